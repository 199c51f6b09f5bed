"""Collate beside the least that a batch costs: joining the same rows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.running.stages import location_of
from icediag.instruments.trees.walk import leaves
from icediag.records.clock import CollateClock

from .step import Stepper


def measure_collate(
    stepper: Stepper,
    n: int,
    repeats: int,
    clock: Callable[[], float],
    enough_s: float,
) -> CollateClock | None:
    """Time collate and joining in turn, after one run of each that does not count.

    Args:
        stepper: Whose data set and collate.
        n: Samples.
        repeats: How often, and at least three times.
        clock: Seconds.
        enough_s: Seconds after which no more than three are taken.

    Returns:
        What they took; None where samples hold no tensors.
    """
    collate = stepper.pipeline.collate
    samples = stepper.fetch(n)
    columns = columns_of(samples)
    if not columns:
        return None
    batch = collate(samples)
    out = sum(_bytes(tensor) for _, tensor in leaves(batch))
    join(columns)
    times: list[tuple[float, float]] = []
    began = clock()
    for i in range(max(3, repeats)):
        if i >= 3 and clock() - began > enough_s:
            break
        samples = stepper.fetch(n)
        start = clock()
        collate(samples)
        middle = clock()
        join(columns)
        times.append((middle - start, clock() - middle))
    place = location_of(collate)
    return CollateClock(
        samples=len(samples),
        rows=max(len(tensor) if tensor.ndim else 1 for tensor in join(columns)),
        bytes_in=sum(_bytes(tensor) for tensors in columns for tensor in tensors),
        bytes_out=out,
        collate_s=tuple(a for a, _ in times),
        joined_s=tuple(b for _, b in times),
        location=place,
    )


def columns_of(samples: list[Any]) -> list[list[Tensor]]:
    """The tensors of all samples that lie under the same path; a number counts as a tensor."""
    together: dict[str, list[Tensor]] = {}
    for sample in samples:
        for path, tensor in leaves(sample):
            if tensor.layout == torch.strided and not tensor.is_nested:
                together.setdefault(path, []).append(tensor)
    return list(together.values())


def join(columns: list[list[Tensor]]) -> list[Tensor]:
    """Each column as one tensor, padded to nothing."""
    return [_joined(tensors) for tensors in columns]


def _joined(tensors: list[Tensor]) -> Tensor:
    first = tensors[0]
    if all(tensor.shape == first.shape for tensor in tensors):
        return torch.stack(tensors)
    if first.ndim and all(tensor.shape[1:] == first.shape[1:] for tensor in tensors):
        return torch.cat(tensors)
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _bytes(tensor: Tensor) -> int:
    return 0 if tensor.is_nested else tensor.numel() * tensor.element_size()
