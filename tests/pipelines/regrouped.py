"""Nets on padded and on flat batches, each with the ways in which events get mixed up."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline

LENGTHS = (3, 9, 5, 2, 7, 4, 6, 12, 8, 1, 3, 10)
Sample = dict[str, Tensor]


def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(4)
    return [
        {"x": torch.randn(n, 5, generator=generator), "y": torch.randn(2, generator=generator)}
        for n in LENGTHS
    ]


def collate(batch: list[Sample]) -> dict[str, Tensor]:
    lengths = torch.tensor([len(sample["x"]) for sample in batch])
    x = nn.utils.rnn.pad_sequence([sample["x"] for sample in batch], batch_first=True)
    return {
        "x": x,
        "absent": torch.arange(x.shape[1]) >= lengths[:, None],
        "lengths": lengths,
        "y": torch.stack([sample["y"] for sample in batch]),
    }


def collate_cut(batch: list[Sample]) -> dict[str, Tensor]:
    return collate([{"x": sample["x"][:6], "y": sample["y"]} for sample in batch])


def collate_brightest(batch: list[Sample]) -> dict[str, Tensor]:
    """Of long ones the six largest by their first column, largest first; short ones as they are."""
    kept = [s["x"][s["x"][:, 0].argsort(descending=True)[:6]] for s in batch]
    parts = [rows if len(s["x"]) > 6 else s["x"] for s, rows in zip(batch, kept, strict=True)]
    return collate([{**s, "x": rows} for s, rows in zip(batch, parts, strict=True)])


def collate_dropping(batch: list[Sample]) -> dict[str, Tensor]:
    return collate([sample for sample in batch if len(sample["x"]) > 2] or batch)


def collate_doubling(batch: list[Sample]) -> dict[str, Tensor]:
    return collate([s for sample in batch for s in [sample] * (1 + (len(sample["x"]) > 9))])


def collate_sorted(batch: list[Sample]) -> dict[str, Tensor]:
    """Longest first, inputs and targets alike: in order."""
    return collate(sorted(batch, key=lambda sample: -len(sample["x"])))


def collate_targets_sorted(batch: list[Sample]) -> dict[str, Tensor]:
    made = collate(batch)
    return made | {"y": made["y"][made["lengths"].argsort(stable=True)]}


def collate_standardised(batch: list[Sample]) -> dict[str, Tensor]:
    made = collate(batch)
    rows = made["x"][~made["absent"]]
    return made | {"x": (made["x"] - rows.mean(0)) / rows.std(0)}


class Attending(nn.Module):
    """Attention over the rows, a masked mean, a head."""

    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.lift = nn.Linear(5, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.norm: nn.Module = nn.BatchNorm1d(16)
        if fault == "batch statistics in evaluation":
            self.norm = nn.BatchNorm1d(16, track_running_stats=False)
        self.head = nn.Linear(16, 2)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        absent = batch["absent"]
        hidden = self.lift(batch["x"])
        if self.fault == "dropout in evaluation":
            hidden = functional.dropout(hidden, 0.1)
        if self.fault == "sampling":
            hidden = hidden + torch.randn_like(hidden)
        mask = None if self.fault == "no padding mask" else absent
        hidden = self.layer(hidden, src_key_padding_mask=mask)
        pooled = self.pool(hidden, absent)
        if self.fault == "centred over the batch":
            pooled = pooled - pooled.mean(0)
        if self.fault == "count of the batch":
            pooled = pooled * (1 + 0.01 * len(pooled))
        out: Tensor = self.head(self.norm(pooled))
        return out[:, :1].squeeze() if self.fault == "squeeze" else out

    def pool(self, hidden: Tensor, absent: Tensor) -> Tensor:
        total = hidden.masked_fill(absent[..., None], 0.0).sum(1)
        count = (~absent).sum(1, keepdim=True)
        if self.fault == "padded length":
            return total / hidden.shape[1]
        if self.fault == "spread of one":
            return total / (count - 1)
        return total / count.clamp_min(1)


COLLATES: dict[str, Callable[[list[Sample]], dict[str, Tensor]]] = {
    "cut": collate_cut,
    "brightest": collate_brightest,
    "dropping": collate_dropping,
    "doubling": collate_doubling,
    "sorted": collate_sorted,
    "targets sorted": collate_targets_sorted,
    "standardised": collate_standardised,
}


def loss(predicted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    y = batch["y"]
    return (predicted - (y[:, 0] if predicted.ndim < 2 else y)).square().mean()


def pipeline(fault: str | None = None, **more: Any) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="regrouped",
        dataset=samples(),
        collate=COLLATES.get(fault or "", collate),
        model=Attending(fault),
        loss=loss,
        batch_size=len(LENGTHS),
        **more,
    )
