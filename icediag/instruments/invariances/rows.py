"""Rows: which part of a tensor belongs to which event, found by sizes alone.

An axis that has as many entries as there are samples, in two batches of different size, counts
events. A first axis whose size is the sum of what it is for each sample alone holds the rows of all
events, one event after the other.
"""

# N samples of a batch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from icediag.instruments.lab import difference

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """How the events lie in one tensor.

    Attributes:
        kind: `events`: one entry an event along `axis`; `rows`: `sizes` rows each along axis 0.
        axis: Which axis.
        sizes: Rows of each sample, of kind `rows`.
    """

    kind: Literal["events", "rows"]
    axis: int = 0
    sizes: tuple[int, ...] = ()

    def piece(self, tensor: Tensor, k: int) -> Tensor:
        """The part of the k-th sample."""
        if self.kind == "events":
            return tensor.select(self.axis, k)
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
                found[path] = Rows("rows", 0, sizes)
    return found


def reordered(rows: Rows, order: Sequence[int]) -> Rows:
    """The layout of a batch of the same samples in another order."""
    if rows.kind == "events":
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
