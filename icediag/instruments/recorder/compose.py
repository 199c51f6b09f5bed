"""Compose: what two runs of a pipeline have shown, written down as a `Recording`."""

import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.shapes.axes import Axes
from icediag.instruments.shapes.naming import Run, item_axes, name_axes, tensor_axes
from icediag.instruments.shapes.ragged import Ragged, find_padding
from icediag.instruments.shapes.slots import Slots
from icediag.instruments.trees.walk import tables
from icediag.pipeline import Pipeline
from icediag.recording import (
    Facts,
    PaddingRecord,
    ParameterRecord,
    Recording,
    Role,
    StageRecord,
    TensorRecord,
)

from .flow import FEW_COLUMNS, VALUED_CALLS, SeenStage, SeenTensor
from .values import merge


def compose(
    pipeline: Pipeline,
    n_samples: int,
    run: Run,
    small: Run,
    collected: list[Facts | str],
    parameters: tuple[ParameterRecord, ...],
) -> Recording:
    """Write down what was seen.

    Args:
        pipeline: What was recorded.
        n_samples: Samples in the large batch.
        run: The run with it.
        small: The run with a few of them, for the names of axes.
        collected: Facts of all tensors, by number; empty where values were not looked at.
        parameters: Gradients by part of the model.
    """
    axes, ragged = name_axes(run, small, n_samples)
    of_slots: tuple[PaddingRecord, ...] = ()
    if run.batch is not None and collected:
        of_slots = tuple(_of_slots(Slots(run.batch, run.lengths, n_samples), axes, ragged))
    raw_columns = _raw_columns(pipeline, run.batch) if run.batch is not None else {}
    stages = tuple(
        _stage(key, stage, run, small, axes, collected, raw_columns)
        for key, stage in run.flow.stages.items()
    )
    masks = {
        (facts.count, facts.zeros): (
            stage.name,
            tensor.path,
            facts.count,
            facts.count - facts.zeros,
        )
        for stage in reversed(stages)
        for tensor in stage.tensors
        if tensor.dtype == "bool" and (facts := tensor.facts) is not None
    }
    return Recording(
        pipeline=pipeline.name,
        batch_size=n_samples,
        loss=run.loss,
        baseline_loss=pipeline.baseline_loss,
        axes=axes.sizes(),
        axis_notes=axes.notes,
        stages=stages,
        ragged=tuple(axis.record() for axis in ragged),
        padding=_with(tuple(find_padding(reversed(masks.values()), ragged)), of_slots),
        parameters=parameters,
        not_judged=tuple(run.not_judged),
        versions={"torch": torch.__version__, "python": platform.python_version()},
    )


def _of_slots(slots: Slots, axes: Axes, ragged: list[Ragged]) -> Iterator[PaddingRecord]:
    """Padding of collate that no mask tells; lengths that were not known yet go to `ragged`."""
    for (n_samples, n), kept in slots.of.items():
        path = slots.path[n_samples, n]
        lengths = torch.from_numpy(kept.sum(1))
        known = next((axis for axis in ragged if _fills(axis.lengths, lengths, n)), None)
        if known is None or int(known.lengths.max()) > n:
            outer = next((name for name, size in axes.sizes().items() if size == n_samples), None)
            if outer is None:
                continue
            taken = any(axis.inner == "filled slots" for axis in ragged)
            known = Ragged(f"filled slots of {path}" if taken else "filled slots", outer, lengths)
            ragged.append(known)
        yield PaddingRecord(
            stage="collate",
            path=path,
            slots=n_samples * n,
            used=int(lengths.sum()),
            padding_is=None,
            holds=known.inner,
        )


def _fills(lengths: Tensor, filled: Tensor, n: int) -> bool:
    """Whether these are the lengths that fill the slots, cut to what there is."""
    return lengths.shape == filled.shape and bool((lengths.clamp(max=n) == filled).all())


def _with(
    masks: tuple[PaddingRecord, ...], of_slots: tuple[PaddingRecord, ...]
) -> tuple[PaddingRecord, ...]:
    """Masks, and what slots tell of tensors of other sizes."""
    sizes = {(mask.slots, mask.used) for mask in masks}
    return (*masks, *(one for one in of_slots if (one.slots, one.used) not in sizes))


def _stage(
    key: tuple[str, ...],
    stage: SeenStage,
    run: Run,
    small: Run,
    axes: Axes,
    collected: list[Facts | str],
    raw_columns: dict[str, tuple[str | None, ...]],
) -> StageRecord:
    twin = small.flow.stages.get(key)
    return StageRecord(
        name=stage.name,
        kind=stage.kind,
        depth=stage.depth,
        calls=stage.calls,
        valued_calls=min(stage.calls, VALUED_CALLS) if stage.kind != "item" else stage.calls,
        type=stage.type,
        location=stage.location,
        tensors=tuple(
            _tensor(
                tensor,
                item_axes(tensor, run, axes)
                if stage.kind == "item"
                else tensor_axes(tensor, _twin(twin, at), axes),
                collected,
                raw_columns.get(tensor.path, ()) if stage.kind in ("item", "collate") else (),
            )
            for at, tensor in stage.tensors.items()
        ),
    )


def _twin(stage: SeenStage | None, at: tuple[Role, str]) -> SeenTensor | None:
    """The same tensor in the small run, which has no gradients: theirs are shaped like outputs."""
    role, path = at
    return stage.tensors.get(("out" if role == "grad" else role, path)) if stage else None


def _tensor(
    tensor: SeenTensor,
    axes: tuple[str | None, ...],
    collected: list[Facts | str],
    names: tuple[str | None, ...],
) -> TensorRecord:
    facts, unseen = _together([collected[number] for number in tensor.numbers])
    columns: list[Facts] = []
    # A table that has other columns in another call, or too many, is not one table.
    widths = {len(found) for found in tensor.columns}
    if len(widths) == 1 and len(tensor.columns) == len(tensor.numbers):
        for column in zip(*tensor.columns, strict=True):
            of_all, _ = _together([collected[number] for number in column])
            if of_all is not None:
                columns.append(of_all)
        if len(columns) not in widths:
            columns = []
    return TensorRecord(
        path=tensor.path,
        role=tensor.role,
        shape=tensor.shape,
        axes=axes,
        varies=tuple(tensor.varies),
        dtype=tensor.dtype,
        device=tensor.device,
        facts=facts,
        unseen=unseen,
        columns=tuple(columns),
        column_names=names if len(names) == len(columns) else (),
    )


def _together(found: list[Facts | str]) -> tuple[Facts | None, str | None]:
    """Facts of all calls, and why there are none of some."""
    facts: Facts | None = None
    unseen: str | None = None if found else "values were not looked at"
    for one in found:
        if isinstance(one, str):
            unseen = one
        else:
            facts = one if facts is None else merge(facts, one)
    return facts, unseen


def _raw_columns(pipeline: Pipeline, batch: Any) -> dict[str, tuple[str | None, ...]]:
    """For each table of the batch the names of the raw columns in it.

    A raw column is recognised as a view into the table: by where it lies, not by its values.
    """
    found: dict[str, tuple[str | None, ...]] = {}
    views: dict[str, Tensor] = {}
    for name, column in pipeline.raw.items():
        try:
            view: Any = column(batch)
        except Exception:  # noqa: S112 - of no use here
            continue
        if isinstance(view, Tensor) and view.layout == torch.strided:
            views[name] = view
    for path, table in tables(batch):
        if table.ndim < 2 or table.shape[-1] > FEW_COLUMNS:
            continue
        at = {
            (column.data_ptr(), tuple(column.shape), column.stride()): i
            for i, column in enumerate(table.unbind(-1))
        }
        names: list[str | None] = [None] * table.shape[-1]
        for name, view in views.items():
            i = at.get((view.data_ptr(), tuple(view.shape), view.stride()))
            if i is not None:
                names[i] = name
        if any(names):
            found[path] = tuple(names)
    return found
