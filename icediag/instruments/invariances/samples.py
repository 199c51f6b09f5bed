"""Samples for the trials: which ones, with other values, with fewer or other rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.trees.rebuild import rebuilt
from icediag.instruments.trees.walk import integers, leaves

#: Events that take part in the trials: every trial is a run or more of as many.
PROBES = 8

#: (path, axis) -> its size in each sample, of the axes whose sizes differ between samples.
Ragged = dict[tuple[str, int], tuple[int, ...]]


def size_of(sample: Any) -> int:
    """Number of values of a sample."""
    return sum(tensor.numel() for _, tensor in leaves(sample))


def probes(samples: Sequence[Any]) -> list[int]:
    """Indices of samples for the trials: from the shortest to the longest, these two included.

    Every second one comes first, the shortest among them; the longest is among the others.
    """
    ranked = sorted(range(len(samples)), key=lambda i: (size_of(samples[i]), i))
    n = min(PROBES, len(ranked))
    if n < 2:
        return ranked
    spread = [ranked[round(k * (len(ranked) - 1) / (n - 1))] for k in range(n)]
    return spread[::2] + spread[1::2] if n % 2 == 0 else spread[1::2] + spread[::2]


def ragged_axes(samples: Sequence[Any]) -> Ragged:
    """Axes of the samples' tensors whose sizes differ from sample to sample."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for sample in samples:
        for path, tensor in leaves(sample):
            shapes.setdefault(path, []).append(tuple(tensor.shape))
    found: Ragged = {}
    for path, seen in shapes.items():
        if len(seen) != len(samples) or len({len(shape) for shape in seen}) > 1:
            continue
        for axis, sizes in enumerate(zip(*seen, strict=True)):
            if len(set(sizes)) > 1:
                found[path, axis] = sizes
    return found


def mutated(sample: Any, seed: int) -> Any:
    """The same sample with other values, of the same shapes and in the same ranges.

    Numbers that are not whole are brought nearer to 0 by up to a tenth, each by a part of its own;
    whole ones may be names or places and stay. Where there is nothing else, the rows of whole
    numbers are rolled by one: they name the same things in another order.
    """
    generator = torch.Generator().manual_seed(seed)
    some = any(_fractions(tensor) for _, tensor in leaves(sample))

    def change(_: str, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if _fractions(leaf):
            part = 1 - torch.rand(leaf.shape, generator=generator) / 10
            return torch.where(leaf == leaf.round(), leaf, leaf * part.to(leaf))
        whole = not leaf.is_floating_point() and not leaf.is_complex() and leaf.dtype != torch.bool
        if not some and whole and leaf.ndim and leaf.shape[0] > 1:
            return leaf.roll(1, 0)
        return leaf

    return rebuilt(sample, change)


def _fractions(tensor: Tensor) -> bool:
    """Whether there are numbers in a tensor that are not whole."""
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        return False
    return bool(((tensor != tensor.round()) & tensor.isfinite()).any())


def indexed(sample: Any, ragged: Ragged) -> bool:
    """Whether a tensor of whole numbers may point at rows: then rows cannot be moved freely."""
    whole = {
        path
        for path, tensor in leaves(sample)
        if not tensor.is_floating_point() and tensor.dtype != torch.bool
    }
    return len(set(ragged.values())) > 1 and any(path in whole for path, _ in ragged)


def with_rows(
    sample: Any, ragged: Ragged, choose: Callable[[int], Tensor], *, count: bool = True
) -> Any:
    """The same sample with other rows along its ragged axes.

    Args:
        sample: One sample.
        ragged: Its ragged axes.
        choose: Number of rows -> which of them, in which order.
        count: Whether whole numbers of the sample that equal the number of rows follow.
    """
    sizes = {
        tensor.shape[axis]
        for path, tensor in leaves(sample)
        for at, axis in ragged
        if at == path and axis < tensor.ndim
    }
    lengths = {size: choose(size) for size in sizes}
    top = {path for path, _ in integers(sample)}

    def change(path: str, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            counts = count and path in top and leaf in lengths
            return len(lengths[leaf]) if counts else leaf
        for at, axis in ragged:
            if at == path and axis < leaf.ndim:
                leaf = leaf.index_select(axis, lengths[leaf.shape[axis]].to(leaf.device))
        if count and leaf.ndim == 0 and not leaf.is_floating_point() and int(leaf) in lengths:
            return torch.full_like(leaf, len(lengths[int(leaf)]))
        return leaf

    return rebuilt(sample, change)
