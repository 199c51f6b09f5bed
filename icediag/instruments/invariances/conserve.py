"""Conservation: what of the samples arrives in the batch, and what gets lost or doubled."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icediag.instruments.running.lab import Lab, difference
from icediag.instruments.trees.walk import leaves
from icediag.records.invariances import Conservation

from .samples import Ragged, size_of

#: Events that are looked at one by one: the shortest, the longest and some between.
MOST_EVENTS = 24
#: Share of events with exactly one entry, from which on a tensor is taken to hold events.
MOSTLY = 0.6


def looked_at(samples: Sequence[Any]) -> list[int]:
    """Indices of the samples to look at, half of them at the ends of the range of sizes."""
    ranked = sorted(range(len(samples)), key=lambda i: (size_of(samples[i]), i))
    if len(ranked) <= MOST_EVENTS:
        return sorted(ranked)
    quarter = MOST_EVENTS // 4
    middle = ranked[quarter:-quarter]
    step = len(middle) / (2 * quarter)
    between = [middle[int(k * step)] for k in range(2 * quarter)]
    return sorted([*ranked[:quarter], *between, *ranked[-quarter:]])


def conserved_events(lab: Lab, samples: Sequence[Any], targets: set[str]) -> list[Conservation]:
    """Leave out each sample in turn: how many entries go with it?

    Args:
        lab: Runs collate.
        samples: All samples.
        targets: Tensors of the batch that hold targets: one entry an event.

    Raises:
        Exception: Whatever the user's code raises.
    """
    chosen = looked_at(samples)
    some = [samples[i] for i in chosen]
    n = len(some)
    if n < 3:
        return []
    whole = _first_sizes(lab, some)
    steps: dict[str, list[int]] = {path: [] for path in whole}
    for k in range(n):
        without = _first_sizes(lab, [*some[:k], *some[k + 1 :]])
        for path, size in whole.items():
            if path in steps and path in without:
                steps[path].append(size - without[path])
            else:
                steps.pop(path, None)
    found = []
    for path, counts in steps.items():
        ones = sum(count == 1 for count in counts)
        # One entry an event, but for a few: of the tensors of inputs that may be chance.
        if path not in targets or not MOSTLY * n <= ones or min(counts) < 0:
            continue
        lost = [k for k, count in enumerate(counts) if count == 0]
        doubled = [k for k, count in enumerate(counts) if count > 1]
        found.append(
            Conservation(
                path=path,
                kind="events",
                events=n,
                rows=n,
                arrived=sum(counts),
                lost=tuple(chosen[k] for k in lost),
                doubled=tuple(chosen[k] for k in doubled),
                lost_rows=tuple(size_of(some[k]) for k in lost),
                kept_rows=tuple(0 for _ in lost),
            )
        )
    return found


def _first_sizes(lab: Lab, samples: Sequence[Any]) -> dict[str, int]:
    return {path: t.shape[0] for path, t in lab.collate(samples).items() if t.ndim}


def conserved_rows(lab: Lab, samples: Sequence[Any], ragged: Ragged) -> list[Conservation]:
    """Compare the rows of each sample with those of a batch of it alone, and with the whole batch.

    Rows are looked for where a tensor of the batch begins with those of the sample, padded or not,
    or is made of them in another order: what is too long may be sorted, or drawn from, and cut.

    Raises:
        Exception: Whatever the user's code raises.
    """
    chosen = looked_at(samples)
    had: dict[str, list[int]] = {}
    came: dict[str, list[int]] = {}
    numbers: dict[str, list[int]] = {}
    for i in chosen:
        alone = lab.collate([samples[i]])
        for path, rows in _tables(samples[i], ragged):
            for at, arrived in _arrived(rows, alone):
                key = f"{path} as {at}"
                had.setdefault(key, []).append(rows.shape[0])
                came.setdefault(key, []).append(arrived)
                numbers.setdefault(key, []).append(i)
    found = []
    for key, rows_had in had.items():
        lost = [k for k, (n, m) in enumerate(zip(rows_had, came[key], strict=True)) if m < n]
        # A tensor that begins like the sample by chance, or holds a part of each by design.
        if len(rows_had) < len(chosen) or len(lost) == len(rows_had):
            continue
        found.append(
            Conservation(
                path=key.split(" as ")[1],
                kind="rows",
                events=len(rows_had),
                rows=sum(rows_had),
                arrived=sum(came[key]),
                lost=tuple(numbers[key][k] for k in lost),
                lost_rows=tuple(rows_had[k] for k in lost),
                kept_rows=tuple(came[key][k] for k in lost),
            )
        )
    return found


def _tables(sample: Any, ragged: Ragged) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a sample whose first axis is ragged and that have rows."""
    for path, tensor in leaves(sample):
        if (path, 0) in ragged and tensor.shape[0]:
            yield path, tensor


def _arrived(rows: Tensor, batch: dict[str, Tensor]) -> Iterator[tuple[str, int]]:
    """(path, rows that arrived) of the tensors of a batch that hold the rows of a sample."""
    for path, tensor in batch.items():
        if tensor.dtype != rows.dtype or tensor.layout != rows.layout:
            continue
        if tensor.ndim == rows.ndim + 1 and tensor.shape[0] == 1:
            tensor = tensor[0]
        if tensor.ndim != rows.ndim or tensor.shape[1:] != rows.shape[1:] or not tensor.shape[0]:
            continue
        both = min(tensor.shape[0], rows.shape[0])
        ordered = difference(tensor[:both], rows[:both].to(tensor.device)) == 0
        if ordered or _reordered(rows, tensor) == both:
            yield path, both


def _reordered(rows: Tensor, tensor: Tensor) -> int:
    """How many rows of a tensor are rows of the sample, each counted once; 0 for single numbers.

    Of several columns chance does not make the same row.
    """
    if rows[0].numel() < 2:
        return 0
    had, came = (Counter(map(bytes, _flat(table))) for table in (rows, tensor))
    return (had & came).total()


def _flat(table: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of each row."""
    flat = table.detach().cpu().reshape(table.shape[0], -1).contiguous()
    of_bytes: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return of_bytes
