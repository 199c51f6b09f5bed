"""Rows: which part of a tensor belongs to which event, found by sizes alone.

An axis that has as many entries as there are samples, in two batches of different size, counts
events. A first axis whose size is the sum of what it is for each sample alone holds the rows of all
events: one event after the other, or, where each has as many, in turn, as steps of sequences whose
first axis is time. Which of the two is seen from what each event gives alone; where rows of an
event lie somewhere else, as in a packed sequence, nothing is said of the tensor.
"""

# N samples of a batch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from icediag.instruments.running.lab import difference

Tensors = Mapping[str, Tensor]

#: Units in the last place that a sum may differ by for another order of summation.
ROUNDING = 1000.0


@dataclass(frozen=True)
class Rows:
    """How the events lie in one tensor.

    Attributes:
        kind: `events`: one entry an event along `axis`; `rows`: `sizes` rows each along axis 0, one
            event after the other; `turns`: one row of each event in turn, `sizes` times.
        axis: Which axis.
        sizes: Rows of each sample, of kinds `rows` and `turns`.
    """

    kind: Literal["events", "rows", "turns"]
    axis: int = 0
    sizes: tuple[int, ...] = ()

    def piece(self, tensor: Tensor, k: int) -> Tensor:
        """The part of the k-th sample."""
        if self.kind == "events":
            return tensor.select(self.axis, k)
        if self.kind == "turns":
            return tensor[k :: tensor.shape[0] // self.sizes[k]]
        return tensor.narrow(0, sum(self.sizes[:k]), self.sizes[k])

    def alone(self, tensor: Tensor) -> Tensor:
        """The part of the only sample of a batch, which may lack the axis of events."""
        if self.kind == "events" and tensor.ndim > self.axis and tensor.shape[self.axis] == 1:
            return tensor.select(self.axis, 0)
        return tensor


def find_rows(
    whole: Tensors, fewer: Tensors, alone: Sequence[Tensors | None], n: int
) -> dict[str, Rows]:
    """How events lie in the tensors of a batch.

    Args:
        whole: Tensors of the batch of all N samples.
        fewer: Of the batch without the last one.
        alone: Of each sample in a batch of its own; None where that failed.
        n: N.

    Returns:
        path -> layout, for the tensors where it shows.
    """
    found: dict[str, Rows] = {}
    for path, tensor in whole.items():
        if path not in fewer or fewer[path].ndim != tensor.ndim:
            continue
        small = fewer[path]
        for axis in range(tensor.ndim):
            if tensor.shape[axis] == n and small.shape[axis] == n - 1:
                found[path] = Rows("events", axis)
                break
        else:
            ones = [one[path] for one in alone if one is not None and path in one]
            if len(ones) < n or not tensor.ndim or any(o.ndim != tensor.ndim for o in ones):
                continue
            sizes = tuple(one.shape[0] for one in ones)
            if tensor.shape[0] == sum(sizes) and small.shape[0] == sum(sizes[:-1]):
                rows = _lying(tensor, ones, sizes)
                if rows is not None:
                    found[path] = rows
    return found


def _lying(tensor: Tensor, ones: Sequence[Tensor], sizes: tuple[int, ...]) -> Rows | None:
    """How rows of events lie, by what each gives alone; None where it is some other way."""
    after = Rows("rows", 0, sizes)
    if not tensor.is_floating_point() or not tensor.numel():
        return after
    # Rounding, of a sum over all values.
    limit = (
        ROUNDING * torch.finfo(tensor.dtype).eps * float(tensor.double().abs().nan_to_num().sum())
    )
    off = _off(after, tensor, ones)
    if off <= limit:
        return after
    if len(set(sizes)) == 1:
        turns = Rows("turns", 0, sizes)
        if _off(turns, tensor, ones) < off:
            return turns
    return None if _elsewhere(tensor, ones) <= limit else after


def _off(rows: Rows, tensor: Tensor, ones: Sequence[Tensor]) -> float:
    """By how much the parts of a batch are off from what each event gives alone, in all."""
    pairs = [(one, rows.piece(tensor, k)) for k, one in enumerate(ones)]
    return sum(
        float((one.double() - part.double()).abs().nan_to_num().sum())
        if one.shape == part.shape
        else torch.inf
        for one, part in pairs
    )


def _elsewhere(tensor: Tensor, ones: Sequence[Tensor]) -> float:
    """The same, each row of an event beside that row of the batch that is nearest to it."""
    whole = tensor.double().reshape(tensor.shape[0], -1).nan_to_num()
    found = 0.0
    for one in ones:
        if one.shape[1:] != tensor.shape[1:]:
            return torch.inf
        for rows in one.double().reshape(one.shape[0], -1).nan_to_num().split(64):  # type: ignore[no-untyped-call]
            found += float(torch.cdist(rows, whole, p=1).amin(1).sum())
    return found


def reordered(rows: Rows, order: Sequence[int]) -> Rows:
    """The layout of a batch of the same samples in another order."""
    if rows.kind != "rows":
        return rows
    return Rows("rows", 0, tuple(rows.sizes[k] for k in order))


def apart(extent: Tensor, other: Tensor) -> float:
    """Largest difference over what both have, where one may be padded further.

    The padding is taken to be at the end, or else at the beginning, of each axis. Infinite where
    the two cannot be compared at all.
    """
    if extent.shape == other.shape:
        return difference(extent, other)
    if extent.ndim != other.ndim:
        same = extent.numel() == other.numel()
        return difference(extent.reshape(-1), other.reshape(-1)) if same else torch.inf
    both = [min(a, b) for a, b in zip(extent.shape, other.shape, strict=True)]
    first = tuple(slice(0, size) for size in both)
    last = [
        tuple(slice(n - size, n) for n, size in zip(t.shape, both, strict=True))
        for t in (extent, other)
    ]
    return min(difference(extent[first], other[first]), difference(extent[last[0]], other[last[1]]))
