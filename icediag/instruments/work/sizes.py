"""Sizes: batches of different make-up, so that it shows which axis a count follows.

Batches that differ in their number of samples alone would leave pulses, DOMs and events growing
together. So there are batches of the shortest and of the longest samples too, equal in number.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.shapes.axes import Axes
from icediag.instruments.shapes.naming import Run, name_axes
from icediag.instruments.shapes.ragged import find_ragged
from icediag.instruments.trees.walk import held, integers, leaves
from icediag.recording import singular

#: Samples of the largest of the small batches.
MOST = 16


def weight_of(sample: Any) -> int:
    """How much a sample holds: elements of all its tensors and arrays."""
    total = 0
    for _, thing in held(sample):
        total += thing.numel() if isinstance(thing, Tensor) else int(thing.size)
    return total


def choices(weights: list[int]) -> list[list[int]]:
    """Indices of the samples of each small batch, smallest batch first.

    Args:
        weights: Of all samples, from `weight_of`.

    Returns:
        Up to five batches: short samples, long ones, and three of both. For 4 samples of
        weights [3, 1, 4, 2] they are [1, 3], [0, 2], [0, 1, 3] and [0, 1, 2, 3].
    """
    n = len(weights)
    order = sorted(range(n), key=lambda i: (weights[i], i))
    most = min(n, MOST)
    if n < 2:
        return [order] if n else []
    if n == 2:
        return [[order[0]], [order[1]], [0, 1]]
    few, top = 2 if n < 8 else 4, _top(n)
    # Each batch with another longest sample, or what follows the longest would hardly vary.
    picked = [
        order[:few],
        order[top - few : top],
        _spread(order[: max(few + 1, top * 3 // 4)], max(few + 1, most // 2 - 1)),
        _spread(order[: max(few + 1, top * 7 // 8)], max(few + 1, most // 2 + 2)),
        _spread(order[:top], most),
    ]
    found: list[list[int]] = []
    for batch in picked:
        batch = sorted(set(batch))
        if batch and batch not in found:
            found.append(batch)
    return sorted(found, key=len)


def spread_over(weights: list[int], n: int) -> list[int]:
    """Indices of a batch of `n` samples of all lengths."""
    order = sorted(range(len(weights)), key=lambda i: (weights[i], i))
    return sorted(_spread(order[: max(n, _top(len(order)))], n))


def twins(weights: list[int]) -> list[int]:
    """Indices of pairs of samples of the same weight, lightest first, `MOST` at most.

    For weights [3, 1, 3, 2, 1, 3] they are [0, 1, 2, 4].
    """
    order = sorted(range(len(weights)), key=lambda i: (weights[i], i))
    found: list[int] = []
    at = 0
    while at + 1 < len(order) and len(found) + 1 < MOST:
        if weights[order[at]] == weights[order[at + 1]]:
            found += order[at : at + 2]
            at += 1
        at += 1
    return sorted(found)


def _top(n: int) -> int:
    """Of many samples not the very longest: one event may hold more than all others together."""
    return n if n < 4 * MOST else n - max(1, n // 8)


def _spread(order: list[int], n: int) -> list[int]:
    """N entries of a list at even distances, the last among them."""
    n = min(n, len(order))
    return [order[(i + 1) * len(order) // n - 1] for i in range(n)]


def axes_of_all(runs: list[Run]) -> tuple[list[dict[str, int]], tuple[str, ...]]:
    """Symbolic axes of several batches of one pipeline, under the same names in each.

    Args:
        runs: Each with its batch, the `lengths` of its samples and as many `few` as it has
            samples; names are those that the last has beside each of the others.

    Returns:
        One mapping for each run, and which of its axes follow the longest group, not the sum of
        all. Axes that are the same in all runs are left out.
    """
    last, sizes = runs[-1], [_counted(run) for run in runs]
    # A pair of runs names what differs between these two; what a name stands for is found by its
    # sizes among all that the batch may count.
    named: list[dict[str, int]] = []
    whole: dict[str, int] = {}
    for run in runs[:-1]:
        pair = Run(last.flow, last.batch, few=run.few)
        axes, _ = name_axes(pair, run, len(last.few))
        named.append({name: small for (_, small), name in axes.names.items()})
        for (large, _), name in axes.names.items():
            whole.setdefault(name, large)
    keys = [key for key in sizes[-1] if all(key in other for other in sizes)]
    vectors = {key: tuple(other[key] for other in sizes) for key in keys}
    names: dict[str, str] = {}
    for name, large in whole.items():
        for key, vector in vectors.items():
            fits = all(
                here.get(name, size) == size for here, size in zip(named, vector, strict=False)
            )
            if vector[-1] == large and fits and len(set(vector)) > 1 and key not in names:
                names[key] = name
                break
    result: list[dict[str, int]] = [{} for _ in runs]
    taken: set[tuple[int, ...]] = set()
    for key in [*names, *(key for key in keys if key not in names)]:
        vector = vectors[key]
        if len(set(vector)) > 1 and vector not in taken:
            taken.add(vector)
            for here, size in zip(result, vector, strict=True):
                here.setdefault(names.get(key, key), size)
    for here, run in zip(result, runs, strict=True):
        _add_groups(here, run)
    # Of axes that agree in all runs the first stands for all.
    firsts: dict[tuple[int, ...], str] = {}
    for name in result[-1]:
        if all(name in here for here in result):
            firsts.setdefault(tuple(here[name] for here in result), name)
    common = {name: sizes for sizes, name in firsts.items() if len(set(sizes)) > 1}
    everything = {name: tuple(here.get(name, 0) for here in result) for name in result[-1]}
    heights = [sizes for name, sizes in everything.items() if name.startswith("longest")]
    longest = [name for name, sizes in common.items() if _follows_one(sizes, heights)]
    return [{name: here[name] for name in common} for here in result], tuple(longest)


def _follows_one(sizes: tuple[int, ...], heights: list[tuple[int, ...]]) -> bool:
    """Whether sizes follow one of the heights: the same, a few more, rounded up, or a part of it.

    Where a batch of fewer samples has a longer one, what is no less there than in a larger batch of
    shorter samples is no sum.
    """
    for height in heights:
        if len({a - b for a, b in zip(sizes, height, strict=True)}) == 1:
            return True
        pairs = list(itertools.combinations(zip(sizes, height, strict=True), 2))
        # Runs come smallest first.
        told = any(before > after for (_, before), (_, after) in pairs)
        if told and all(_no_inversion(*pair) for pair in pairs):
            return True
    return False


def _no_inversion(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Of (size, height) twice: whether what is as high is as large, and what is higher no less."""
    if one[1] == other[1]:
        return one[0] == other[0]
    return (one[0] - other[0]) * (one[1] - other[1]) >= 0


def _counted(run: Run) -> dict[str, int]:
    """Everything of a batch that may count something, by where it stands."""
    found: dict[str, int] = {"batch": len(run.few)}
    for name, value in integers(run.batch):
        if value >= 0:
            found.setdefault(f"{name}", value)
    for path, tensor in leaves(run.batch):
        for axis, size in enumerate(tensor.shape):
            found[f"n_{path}" if axis == 0 else f"n_{path}_{axis}"] = size
    for path, lengths in run.lengths.items():
        found[f"rows of {path or 'a sample'}"] = sum(lengths)
        found.setdefault("longest", max(lengths))
    return found


def _add_groups(axes: dict[str, int], run: Run) -> None:
    """Add what depends on how rows are spread over groups: longest, distinct, pairs."""
    names = Axes()
    for name, size in axes.items():
        # Sizes of this batch alone: the second of a pair is only to differ.
        names.names[size, -1] = name
    groups: dict[tuple[str, str], Tensor] = {
        (found.inner, found.outer): found.lengths for found in find_ragged(leaves(run.batch), names)
    }
    for path, lengths in run.lengths.items():
        total = sum(lengths)
        inner = next((n for n, s in axes.items() if s == total), f"rows of {path or 'a sample'}")
        groups.setdefault((inner, "batch"), torch.tensor(lengths))
    for (inner, outer), lengths_G in groups.items():
        if not lengths_G.numel():
            continue
        title = f"{inner}/{singular(outer)}"
        axes.setdefault(f"longest {title}", int(lengths_G.max()))
        axes.setdefault(f"distinct {title}", int(torch.unique(lengths_G).numel()))
        axes.setdefault(f"{title}^2", int(lengths_G.square().sum()))
        axes.setdefault(f"{outer} with {inner}", int((lengths_G > 0).sum()))
