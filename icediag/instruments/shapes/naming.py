"""Naming: puts names to the axes of a recorded run, with the help of a second, smaller one."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import torch

from icediag.instruments.recorder.flow import Flow, SeenTensor
from icediag.instruments.trees.layouts import sizes_of
from icediag.instruments.trees.walk import integers, leaves
from icediag.recording import Unjudged, singular

from .axes import Axes, Sizes, annotated_axes, pairs, plural_of_count
from .ragged import Ragged, find_ragged

#: The small batch has this part of the samples of the large one, and no more than so many.
SMALL = 8
MOST_SMALL = 8


def small_size(n_samples: int) -> int:
    """Samples of the small batch; where there are enough, 2: batch statistics need that many."""
    return min(max(2, n_samples // SMALL), MOST_SMALL, max(1, n_samples - 1))


@dataclasses.dataclass
class Run:
    """What one run of the pipeline left behind.

    Attributes:
        flow: Every stage and tensor.
        batch: What collate gave.
        lengths: Of tensors whose first axis differs between samples, by path: its size in each.
        few: Indices of the samples of the small batch.
        loss: Value of the loss, None where it was not reached.
        backward: Whether the backward pass came through.
        not_judged: What went wrong.
    """

    flow: Flow
    batch: Any = None
    lengths: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    few: list[int] = dataclasses.field(default_factory=list)
    loss: float | None = None
    backward: bool = False
    not_judged: list[Unjudged] = dataclasses.field(default_factory=list)


def _field_annotations(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Annotations of the fields of a dataclass, and of the dataclasses in them."""
    if not dataclasses.is_dataclass(tree) or isinstance(tree, type):
        return
    try:
        hints = typing.get_type_hints(type(tree), include_extras=True)
    except Exception:  # an annotation may be any expression
        return
    for field in dataclasses.fields(tree):
        inner = f"{path}.{field.name}" if path else field.name
        yield inner, hints.get(field.name)
        yield from _field_annotations(getattr(tree, field.name), inner)


def name_axes(run: Run, small: Run, n_samples: int) -> tuple[Axes, list[Ragged]]:
    """Names of the axes that follow the data, and the ragged axes among them.

    Args:
        run: The run with the whole batch.
        small: The run with those of its samples that `run.few` lists.
        n_samples: Samples in the whole batch.

    Returns:
        Axes, and lengths of ragged axes.
    """
    axes = Axes()
    if run.batch is None or small.batch is None:
        return axes, []
    large_shapes = {path: sizes_of(tensor) for path, tensor in leaves(run.batch)}
    small_shapes = {path: sizes_of(tensor) for path, tensor in leaves(small.batch)}

    # What the author of the code calls them.
    annotations = dict(_field_annotations(run.batch))
    for path, axis, sizes in pairs(large_shapes.items(), small_shapes):
        words = annotated_axes(annotations.get(path))
        if axis < len(words) and (word := words[axis]):
            axes.add(word, sizes)
    n_small = len(run.few)
    axes.add("batch", (n_samples, n_small), "samples in the batch")
    few = dict(integers(small.batch))
    for name, value in integers(run.batch):
        counted = plural_of_count(name)
        if counted and name in few:
            axes.add(counted, (value, few[name]))
    for path, lengths in run.lengths.items():
        # Padded where they were collated: some axis of the batch is as long as the longest sample.
        sizes = (max(lengths), max(lengths[i] for i in run.few))
        if any(sizes == there for *_, there in pairs(large_shapes.items(), small_shapes)):
            axes.add("longest", sizes, f"most rows of {path or 'a sample'} in one sample")
    for path, axis, sizes in pairs(large_shapes.items(), small_shapes):
        if axes.name(sizes) == "?":
            name = f"n_{path}" if axis == 0 else f"n_{path}_{axis}"
            axes.add(name, sizes, f"axis {axis} of {path}")
    for key, stage in run.flow.stages.items():
        twin = small.flow.stages.get(key)
        for at, tensor in stage.tensors.items():
            other = twin.tensors.get(at) if twin else None
            words = annotated_axes(tensor.annotation)
            if other is None or len(other.shape) != len(tensor.shape) or any(tensor.varies):
                continue
            for word, sizes in zip(
                words, zip(tensor.shape, other.shape, strict=True), strict=False
            ):
                # Only what nothing before explains: helpers call their axes "rows".
                if word and axes.name(sizes) == "?":
                    axes.add(word, sizes)

    ragged = find_ragged(leaves(run.batch), axes)
    outer = axes.name((n_samples, n_small))
    for path, lengths in run.lengths.items():
        inner = axes.name((sum(lengths), sum(lengths[i] for i in run.few)))
        if inner in (None, "?"):
            inner = f"rows of {path}" if path else "rows"  # padded: no axis counts them all
        known = {(axis.inner, axis.outer) for axis in ragged}
        if outer and (inner, outer) not in known:
            assert inner is not None
            ragged.insert(0, Ragged(inner, outer, torch.tensor(lengths)))
    _add_longest(axes, ragged, find_ragged(leaves(small.batch), _of_small(axes)))
    return axes, ragged


def _of_small(axes: Axes) -> Axes:
    """The same names with the sizes of the small batch."""
    turned = Axes()
    turned.names = {(small, large): name for (large, small), name in axes.names.items()}
    return turned


def _add_longest(axes: Axes, ragged: list[Ragged], small: list[Ragged]) -> None:
    """Name the size that padding to the longest group gives."""
    twins = {(axis.inner, axis.outer): axis for axis in small}
    batch_axis = axes.sizes()
    # What is padded is mostly what one event holds: that is the longest without more words.
    by_events = sorted(ragged, key=lambda axis: batch_axis.get(axis.outer, 0))
    for axis in by_events:
        twin = twins.get((axis.inner, axis.outer))
        if twin is None:
            continue
        sizes: Sizes = (int(axis.lengths.max()), int(twin.lengths.max()))
        what = f"most {axis.inner} in one {singular(axis.outer)}"
        taken = "longest" in axes.names.values()
        axes.add(
            f"longest {axis.inner}/{singular(axis.outer)}" if taken else "longest", sizes, what
        )


def tensor_axes(tensor: SeenTensor, twin: SeenTensor | None, axes: Axes) -> tuple[str | None, ...]:
    """Names of the axes of a tensor, from its twin in the small run."""
    if twin is None or len(twin.shape) != len(tensor.shape):
        return (None,) * len(tensor.shape)
    return tuple(
        "?" if varies else axes.name(sizes)
        for varies, sizes in zip(
            tensor.varies, zip(tensor.shape, twin.shape, strict=True), strict=True
        )
    )


def item_axes(tensor: SeenTensor, run: Run, axes: Axes) -> tuple[str | None, ...]:
    """Names of the axes of a sample's tensor: `pulses/event` where samples differ in size."""
    lengths = run.lengths.get(tensor.path)
    sizes = axes.sizes()
    name = "?"
    if lengths:
        name = next((known for known, size in sizes.items() if size == sum(lengths)), "?")
        outer = next((known for known, size in sizes.items() if size == len(lengths)), "samples")
        each = singular(outer)
    return tuple(
        (f"{name}/{each}" if axis == 0 and name != "?" else "?") if varies else None
        for axis, varies in enumerate(tensor.varies)
    )
