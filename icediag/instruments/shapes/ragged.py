"""Ragged axes and padding: recognised by counting, whatever they are called.

* A tensor of whole numbers with one entry a group, whose sum is the size of another axis, holds
  lengths.
* A tensor of whole numbers with one entry a row, whose largest value is one less than the size of
  another axis, says to which group each row belongs.
* A boolean tensor of which exactly as many entries are set (or not set) as there are rows along a
  ragged axis (or rows and groups, where each group has a token of its own) is a padding mask.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from icediag.recording import PaddingRecord, RaggedRecord

from .axes import Axes

#: Quantiles that are recorded of lengths.
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)

#: Parts into which groups are cut by length, to see what padding would be left.
PARTS = 8

WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


@dataclass(frozen=True)
class Ragged:
    """Lengths of one ragged axis.

    Attributes:
        inner: Name of the axis of rows.
        outer: Name of the axis of groups.
        lengths: `(groups,)` rows of each group.
    """

    inner: str
    outer: str
    lengths: Tensor

    def record(self) -> RaggedRecord:
        """As it is written down."""
        lengths, padded = self.lengths.double(), self.cut()
        at = torch.quantile(
            lengths, torch.tensor(QUANTILES, dtype=torch.float64), interpolation="lower"
        )
        return RaggedRecord(
            inner=self.inner,
            outer=self.outer,
            groups=self.lengths.numel(),
            quantiles={f"{q:g}": float(v) for q, v in zip(QUANTILES, at, strict=True)},
            mean=float(lengths.mean()),
            mean_square=float(lengths.square().mean()),
            cut=float(padded.mean()),
            cut_square=float(padded.square().mean()),
            parts=min(PARTS, lengths.numel()),
        )

    def cut(self) -> Tensor:
        """Length that each group has if padded beside others of like length."""
        ordered = self.lengths.double().sort().values
        parts = ordered.tensor_split(min(PARTS, max(1, ordered.numel())))
        return torch.cat([part[-1:].expand_as(part) for part in parts])


def find_ragged(batch: Iterable[tuple[str, Tensor]], axes: Axes) -> list[Ragged]:
    """Ragged axes of a batch.

    Args:
        batch: Its tensors.
        axes: Names of the axes that follow the data.

    Returns:
        One entry for each pair of axes, in the order of the batch.
    """
    sizes = axes.sizes()
    found: dict[tuple[str, str], Ragged] = {}
    for _, tensor in batch:
        if tensor.ndim != 1 or tensor.dtype not in WHOLE or tensor.numel() == 0:
            continue
        values = tensor.detach().cpu().to(torch.int64)
        own = next((name for name, size in sizes.items() if size == values.numel()), None)
        if own is None or int(values.min()) < 0:
            continue
        total, top = int(values.sum()), int(values.max())
        for other, size in sizes.items():
            if other == own:
                continue
            # Lengths sum to the other axis; of a single length that would be a coincidence.
            if total == size and size >= values.numel() > 1:
                found.setdefault((other, own), Ragged(other, own, values))
            elif top == size - 1 and size <= values.numel() and total > 0 and size > 1:
                lengths = torch.bincount(values, minlength=size)
                # Every group but a few has rows; ids that happen to end there have gaps. Groups of
                # one row each, save perhaps one group, are an order of rows and no grouping.
                grouped = int((lengths != 1).sum()) > 1
                if grouped and int((lengths > 0).sum()) * 2 >= size:
                    found.setdefault((own, other), Ragged(own, other, lengths))
    return list(found.values())


def find_padding(
    masks: Iterable[tuple[str, str, int, int]], ragged: list[Ragged]
) -> Iterator[PaddingRecord]:
    """Padding masks among boolean tensors.

    Args:
        masks: (stage, path, entries, entries that are True) of each.
        ragged: The ragged axes of the batch.
    """
    totals: dict[int, str] = {}
    for axis in ragged:
        rows, groups = int(axis.lengths.sum()), axis.lengths.numel()
        totals.setdefault(rows, axis.inner)
        totals.setdefault(rows + groups, f"{axis.inner} + {axis.outer}")
    for stage, path, slots, held in masks:
        for used, padding_is in ((held, False), (slots - held, True)):
            if used in totals and slots > used > 0:
                yield PaddingRecord(
                    stage=stage,
                    path=path,
                    slots=slots,
                    used=used,
                    padding_is=padding_is,
                    holds=totals[used],
                )
                break
