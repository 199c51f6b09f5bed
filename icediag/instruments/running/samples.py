"""Samples: the first of a data set, read as training reads them, and what all of them hold."""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from icediag.errors import ENDS, IcediagError
from icediag.instruments.recorder.flow import Flow, SeenStage
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.layouts import sizes_of
from icediag.instruments.trees.walk import leaves
from icediag.model.errors import DataError
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged

from .kept import read_once
from .reasons import place_of, reason_of


def read_samples(pipeline: Pipeline, wanted: int, run: Run) -> list[Any]:
    """The first samples of the data set: what is read from disk lies together.

    Where the data set raises, that is listed in `run.not_judged`, and none are given.

    Raises:
        IcediagError: The data set is empty.
        DataError: It is a built-in one, and its files are not what they must be.
    """
    dataset = pipeline.dataset
    by_index = _by_index(dataset)
    samples: list[Any] = []
    flow = run.flow
    owner = getattr(type(dataset), "__getitem__" if by_index else "__iter__", None)
    stage = flow.begin("dataset item", "item", owner)
    stage.calls = 0
    try:
        if by_index:
            for i in range(min(wanted, len(dataset))):
                samples.append(dataset[i])  # noqa: PERF401 - those before one that raises are kept
        else:
            if read_once(dataset):
                run.not_judged.append(
                    Unjudged(
                        name="data order",
                        reason=f"the data set is a one-shot iterator: {wanted} samples were taken",
                    )
                )
            samples.extend(itertools.islice(dataset, wanted))
    except (IcediagError, DataError, *ENDS):
        raise
    except BaseException as error:
        run.not_judged.append(
            Unjudged(
                name="dataset item",
                reason=f"sample {len(samples)}: {reason_of(error, pipeline)}",
                raised=True,
                location=place_of(error, pipeline),
            )
        )
        _note_all(flow, stage, samples, run)
        return []
    finally:
        flow.end()
    if not samples:
        raise IcediagError(f"{pipeline.name}: expected at least one sample in the data set, got 0")
    if len(samples) < wanted:
        run.not_judged.append(
            Unjudged(
                name="batch size",
                reason=f"{wanted} samples asked for, {len(samples)} in the data set",
            )
        )
    _note_all(flow, stage, samples, run)
    return samples


def _by_index(dataset: Any) -> bool:
    """Whether samples are taken by index; torch gives iterable data sets a `__getitem__` too."""
    if isinstance(dataset, IterableDataset):
        return False
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def few_of(samples: list[Any], run: Run, n: int) -> list[int]:
    """Indices of the samples of the small batch: the first ones without the longest of all.

    A batch that holds the longest sample is padded to the same size as the large one, and the
    padded axis would seem not to follow the data.
    """
    longest = {
        i
        for lengths in run.lengths.values()
        for i, length in enumerate(lengths)
        if length == max(lengths)
    }
    shorter = [i for i in range(len(samples)) if i not in longest]
    return sorted((shorter + sorted(longest))[:n])


def _note_all(flow: Flow, stage: SeenStage, samples: list[Any], run: Run) -> None:
    together: dict[str, list[Tensor]] = {}
    for sample in samples:
        for path, tensor in leaves(sample):
            together.setdefault(path, []).append(tensor)
    for path, tensors in together.items():
        _note_samples(flow, stage, path, tensors)
        seen = stage.tensors["out", path]
        if seen.varies and seen.varies[0] and len(tensors) == len(samples):
            run.lengths[path] = [tensor.shape[0] for tensor in tensors]
    stage.calls = len(samples)


def _note_samples(flow: Flow, stage: SeenStage, path: str, tensors: list[Tensor]) -> None:
    """Note what all samples have under one path: the first one's shape, the values of all."""
    first = tensors[0]
    shapes = {sizes_of(tensor) for tensor in tensors}
    stage.calls = 1
    # Where nobody looks at values, the first one stands for all.
    for whole in _joined(tensors, len(shapes) == 1) if flow.looks else tensors[:1]:
        flow.note_tensor(stage, "out", path, whole)
    seen = stage.tensors["out", path]
    seen.shape = sizes_of(first)
    seen.varies = [False] * first.ndim
    if all(len(shape) == first.ndim for shape in shapes):
        seen.varies = [len(set(sizes)) > 1 for sizes in zip(*shapes, strict=True)]


def _joined(tensors: list[Tensor], same_shape: bool) -> list[Tensor]:
    """Tensors of all samples as one where they can be joined: columns stay columns."""
    first = tensors[0]
    kinds = {(t.dtype, t.layout, t.device, t.is_nested) for t in tensors}
    if len(kinds) > 1 or first.layout != torch.strided or first.is_nested:
        return tensors
    detached = [tensor.detach() for tensor in tensors]
    if same_shape:
        return [torch.stack(detached)]
    if len({(t.ndim, t.shape[1:]) for t in tensors}) == 1:
        return [torch.cat(detached)]
    return [torch.cat([t.reshape(-1) for t in detached])]
