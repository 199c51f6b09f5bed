"""Directions of tracks in a drift chamber, in the manner of Lightning: one class holds it all.

`training_step`, `configure_optimizers` and `log` as there, so that their trainer could run it; here
`train_step` plays its part.
"""

# H hits, B tracks

import math
from typing import Any

import torch
from torch import Tensor, nn

from icediag import Domain, Pipeline

from .case import Fault, Patient

N_TRACKS = 128
Batch = dict[str, Tensor]


def tracks() -> list[dict[str, Tensor]]:
    """Hits along straight lines through the origin, with their drift times in ns."""
    generator = torch.Generator().manual_seed(21)
    made = []
    for _ in range(N_TRACKS):
        n = int(torch.randint(5, 25, (), generator=generator))
        azimuth = torch.rand((), generator=generator) * 2 * math.pi
        zenith = torch.arccos(1 - 2 * torch.rand((), generator=generator))
        direction = torch.stack(
            [azimuth.cos() * zenith.sin(), azimuth.sin() * zenith.sin(), zenith.cos()]
        )
        along = torch.rand(n, 1, generator=generator)
        xyz = along * direction + 0.03 * torch.randn(n, 3, generator=generator)
        drift = 400 + 150 * torch.randn(n, generator=generator).abs()
        made.append({"xyz": xyz, "drift": drift, "truth": torch.stack([azimuth, zenith])})
    return made


def collate(samples: list[dict[str, Tensor]]) -> Batch:
    sizes = torch.tensor([len(sample["xyz"]) for sample in samples])
    return {
        "xyz": torch.cat([sample["xyz"] for sample in samples]),
        "drift": torch.cat([sample["drift"] for sample in samples]),
        "track": torch.arange(len(samples)).repeat_interleave(sizes),
        "sizes": sizes,
        "truth": torch.stack([sample["truth"] for sample in samples]),
    }


class VectorHead(nn.Module):
    """A vector, and its angles."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 3)

    def forward(self, hidden: Tensor) -> Tensor:
        x, y, z = self.linear(hidden).unbind(1)
        azimuth = torch.atan2(y, x) % (2 * math.pi)
        zenith = torch.atan2(torch.hypot(x, y), z)
        return torch.stack([azimuth, zenith], 1)


class BareHead(nn.Module):
    """Two numbers, any numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.linear(hidden)
        return out


class SeamHead(BareHead):
    """Bounded, but the two ends of the azimuth are far apart."""

    def forward(self, hidden: Tensor) -> Tensor:
        shares = super().forward(hidden).sigmoid()
        return shares * shares.new_tensor([2 * math.pi, math.pi])


class NarrowHead(BareHead):
    """Cannot say that a track comes from below."""

    def forward(self, hidden: Tensor) -> Tensor:
        shares = super().forward(hidden).sigmoid()
        return shares * shares.new_tensor([2 * math.pi, math.pi / 2])


HEADS: dict[str, type[nn.Module]] = {
    "bare-head": BareHead,
    "seam": SeamHead,
    "narrow-head": NarrowHead,
}


def opening_angle(predicted: Tensor, truth: Tensor) -> Tensor:
    """Cosine of the angle between directions given as (azimuth, zenith)."""
    (a, z), (b, w) = predicted.unbind(1), truth.unbind(1)
    return z.sin() * w.sin() * (a - b).cos() + z.cos() * w.cos()


class TrackModule(nn.Module):
    """Model, loss, optimizer and step in one."""

    def __init__(self, fault: str | None, width: int = 48) -> None:
        super().__init__()
        self.fault = fault
        self.hits = nn.Sequential(
            nn.Linear(4, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.mix = nn.Sequential(nn.Linear(width + 3, width), nn.GELU())
        self.head = HEADS.get(fault or "", VectorHead)(width)
        self.logged: dict[str, float] = {}

    def forward(self, batch: Batch) -> Tensor:
        drift = batch["drift"] / 1e7 if self.fault == "drift-vanishes" else batch["drift"] / 100 - 5
        if self.fault == "drift-in-half":
            drift = (batch["drift"] + 2e4).half().float() / 100 - 205
        hidden = self.hits(torch.cat([batch["xyz"], drift[:, None]], 1))
        n = len(batch["sizes"])
        pooled = hidden.new_zeros(n, hidden.shape[1]).index_add(0, batch["track"], hidden)
        centre = hidden.new_zeros(n, 3).index_add(0, batch["track"], batch["xyz"])
        sizes = batch["sizes"][:, None]
        if self.fault == "track-by-track":
            pooled = torch.stack([hidden[batch["track"] == i].sum(0) for i in range(n)])
        out: Tensor = self.head(self.mix(torch.cat([pooled / sizes, centre / sizes], 1)))
        return out

    def loss(self, predicted: Tensor, batch: Batch) -> Tensor:
        cosine = opening_angle(predicted, batch["truth"])
        if self.fault == "not-periodic":
            return (predicted - batch["truth"]).abs().mean()
        if self.fault == "bare-arccos":
            return cosine.arccos().mean()
        if self.fault == "one-truth":
            truth = batch["truth"][:1].expand_as(predicted)
            return (1 - opening_angle(predicted, truth)).mean()
        # The chord, 2 sin(angle / 2): smooth wherever tracks are not antipodal.
        return (1 - cosine).mean()

    def log(self, name: str, value: Tensor) -> None:
        self.logged[name] = float(value)

    def training_step(self, batch: Batch) -> Tensor:
        loss = self.loss(self(batch), batch)
        if self.fault == "logs-every-track":
            for i, cosine in enumerate(opening_angle(self(batch), batch["truth"])):
                self.log(f"track {i}", cosine.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rate = 1e-9 if self.fault == "rate-tiny" else 2e-3
        return torch.optim.AdamW(self.parameters(), rate)


def build(fault: str | None) -> Pipeline:
    torch.manual_seed(0)
    module = TrackModule(fault)

    def train_step(model: Any, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        loss: Tensor = model.training_step(batch)
        if fault == "zero-after-backward":
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
        else:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        if fault == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return loss

    return Pipeline(
        name="tracks",
        dataset=tracks(),
        collate=collate,
        model=module,
        loss=module.loss,
        optimizer=lambda _: module.configure_optimizers(),
        batch_size=32,
        outputs={"azimuth": Domain(0, 2 * math.pi, periodic=True), "zenith": Domain(0, math.pi)},
        baseline_loss=None if fault in ("not-periodic", "bare-arccos") else 1.0,
        train_step=train_step,
        raw={"drift": lambda batch: batch["drift"]},
        sources=("tests.faults.tracks",),
    )


PATIENT = Patient(
    name="tracks",
    build=build,
    variants=("clipped",),
    faults=(
        Fault(name="bare-head", checks=("unbounded-output",), stages=("head",)),
        Fault(name="seam", checks=("azimuth-seam",), stages=("head",), lowest="note"),
        Fault(name="narrow-head", checks=("unreachable-range",), stages=("head",)),
        Fault(name="drift-vanishes", checks=("under-scaled-feature",), stages=("hits", "model")),
        Fault(name="drift-in-half", checks=("lost-resolution",), stages=("model",)),
        Fault(name="track-by-track", checks=("python-loop",), stages=("model",)),
        Fault(name="not-periodic", checks=("loss-not-periodic",), stages=("loss", "TrackModule")),
        Fault(name="bare-arccos", checks=("singular-loss",), stages=("loss", "TrackModule")),
        Fault(name="one-truth", checks=("loss-ignores-targets", "loss-mixes-samples")),
        Fault(name="logs-every-track", checks=("host-sync", "python-loop")),
        Fault(name="rate-tiny", checks=("learning-rate",)),
        Fault(name="zero-after-backward", checks=("step-order",)),
    ),
)
