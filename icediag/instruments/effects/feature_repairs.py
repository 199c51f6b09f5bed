"""Repairs of features: brought to mean 0 and spread 1 where they enter a module."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.workbench import Batches, Workbench
from icediag.recording import Recording
from icediag.records.effects import RepairKind
from icediag.records.features import ColumnFacts, FeatureColumn

from .repair import Repair

#: Features beyond this size are standardised.
LARGE = 10.0
#: Features with a spread below this, or a mean beyond so many spreads, are rescaled one by one, in
#: tables of so many columns at most; so many of them.
SMALL, FAR, WIDE, MOST_RESCALED = 0.2, 3.0, 16, 3
#: Layers whose columns are the channels.
CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def standardised(
    bench: Workbench,
    batch: Batches,  # noqa: ARG001 - as the others
    recording: Recording,
    skipped: list[str],
) -> list[Repair]:
    """Features far beyond order 1, where they enter a module."""
    repairs = []
    for table in recording.features.tables if recording.features is not None else ():
        large = [c for c in table.columns if c.facts.size >= LARGE and c.facts.std > 0]
        if large:
            what = f"{len(large)} columns"
            repairs += _brought(bench, "standardised features", table.stage, large, what, skipped)
    return repairs


def _brought(
    bench: Workbench,
    kind: RepairKind,
    stage: str,
    columns: list[FeatureColumn],
    what: str,
    skipped: list[str],
) -> list[Repair]:
    """Columns brought to mean 0 and spread 1 where they enter a module; none where it is none."""
    module = dict(bench.model.named_modules()).get(stage)
    if module is None:
        skipped.append(f"features into {stage}: it is no module")
        return []
    maps = {column.index: (column.facts.mean, column.facts.std) for column in columns}
    text = f"{what} into {stage} brought to mean 0 and spread 1"
    return [Repair(kind=kind, stage=stage, text=text, force=_mapping(module, maps))]


def _axis_of_columns(module: nn.Module, given: Tensor) -> int:
    """Along which axis of what a module takes its columns lie: channels before the pixels.

    Example: 1 for images (32, 3, 16, 16) into an `nn.Conv2d`, which also takes (3, 16, 16): 0.
    """
    if isinstance(module, CONVOLUTIONS):
        return given.ndim - 1 - len(module.kernel_size)
    return -1


def rescaled(
    bench: Workbench,
    batch: Batches,  # noqa: ARG001 - as the others
    recording: Recording,
    skipped: list[str],
) -> list[Repair]:
    """Features that lie far from 0 or hardly vary, one by one: worth knowing, if it costs."""
    odd = [
        (table.stage, column)
        for table in (recording.features.tables if recording.features is not None else ())
        for column in table.columns
        if not table.image and table.width <= WIDE and column.facts.measure and _off(column.facts)
    ]
    # What is a map of a raw column first: that is what somebody chose.
    odd.sort(key=lambda pair: pair[1].origin is None)
    repairs = []
    for stage, column in odd[:MOST_RESCALED]:
        what = column.origin.formula if column.origin else f"column {column.index}"
        repairs += _brought(bench, "rescaled features", stage, [column], what, skipped)
    return repairs


def _off(facts: ColumnFacts) -> bool:
    """Whether a feature of order 1 has its mean or its spread elsewhere."""
    return (
        facts.size < LARGE
        and facts.std > 0
        and (facts.std < SMALL or abs(facts.mean) > FAR * facts.std)
    )


def _mapping(
    module: nn.Module, maps: dict[int, tuple[float, float]]
) -> Callable[[], AbstractContextManager[Any]]:
    """Brings columns of what a module takes to mean 0 and spread 1: column -> (mean, spread)."""

    @contextmanager
    def force() -> Iterator[None]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            axis = _axis_of_columns(module, args[0])
            columns = list(args[0].unbind(axis))
            for index, (mean, std) in maps.items():
                columns[index] = (columns[index] - mean) / std
            return (torch.stack(columns, axis), *args[1:]), kwargs

        handle = module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    return force
