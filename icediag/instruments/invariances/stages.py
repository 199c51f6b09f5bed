"""Stages: the first one at which an event reads what is not its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.recorder.flow import Flow, SeenStage, watched_functions, watched_modules
from icediag.instruments.running.discover import belongs, user_packages
from icediag.instruments.running.lab import ULPS, Lab, call, difference, scale_of
from icediag.instruments.running.stages import FunctionStage, location_of
from icediag.instruments.trees.walk import leaves
from icediag.pipeline import Pipeline
from icediag.recording import Location

#: Outputs of stages beyond this many are not kept.
MOST_STAGES = 2000


class Tap(Flow):
    """A flow that keeps what each stage gives at its first call, in the order in which they end."""

    def __init__(self) -> None:
        super().__init__(None)
        self.given: dict[tuple[tuple[str, ...], str], tuple[SeenStage, Tensor]] = {}

    def note_tensor(
        self, stage: SeenStage, role: Any, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Keep an output."""
        super().note_tensor(stage, role, path, tensor, annotation)
        key = (self.innermost or (), path)
        keep = role == "out" and tensor.is_floating_point() and tensor.layout == torch.strided
        if keep and key not in self.given and len(self.given) < MOST_STAGES:
            self.given[key] = (stage, tensor.detach().clone())


def _tapped(lab: Lab, samples: Sequence[Any], stages: list[FunctionStage]) -> Tap:
    tap = Tap()
    with lab.ready(samples, native=True) as model, torch.no_grad():
        batch = tap.batch = lab.batch(samples)
        with watched_functions(tap, stages, model):
            if isinstance(model, nn.Module):
                with watched_modules(tap, model, []):
                    call(lab.pipeline, model, batch)
            else:
                call(lab.pipeline, model, batch)
    tap.close()
    return tap


def first_moved(
    lab: Lab,
    stages: list[FunctionStage],
    own: Sequence[Any],
    one: Sequence[Any],
    other: Sequence[Any],
) -> tuple[str, Location | None] | None:
    """The first stage whose output for some samples differs between two batches.

    Args:
        lab: Runs them.
        stages: Functions to watch beside the modules.
        own: Samples that stand at the beginning of both batches.
        one: A batch that begins with them.
        other: Another of as many samples.

    Returns:
        Its name and place; None where no stage whose rows can be told shows it.
    """
    extent, first, second = (_tapped(lab, batch, stages) for batch in (own, one, other))
    tables = [dict(leaves(tap.batch)) for tap in (extent, first, second)]
    counts = {len(one)} | {table.shape[0] for table in tables[1].values() if table.ndim}
    for path, alone in tables[0].items():
        if path in tables[1] and path in tables[2] and alone.is_floating_point():
            a, b = tables[1][path], tables[2][path]
            if _moved(alone, a, b, counts, len(one)):
                return "collate", location_of(lab.pipeline.collate)
    for key, (stage, alone) in extent.given.items():
        if key in first.given and key in second.given:
            a, b = first.given[key][1], second.given[key][1]
            if _moved(alone, a, b, counts, len(one)):
                return stage.name, own_place(extent, key[0], lab.pipeline)
    return None


def first_mixed(
    lab: Lab,
    stages: list[FunctionStage],
    samples: Sequence[Any],
    changed: Sequence[Any],
    half: int,
) -> tuple[str, Location | None] | None:
    """The first stage with values that move with the events of both halves of a batch.

    Where they lie does not matter: what a stage sorts or packs stays of one event.

    Args:
        lab: Runs them.
        stages: Functions to watch beside the modules.
        samples: A batch.
        changed: The same with other values, of the same shapes.
        half: Where its second half begins.

    Returns:
        Its name and place; None where no stage that runs alike in all three batches shows it.
    """
    halves = ([*samples[:half], *changed[half:]], [*changed[:half], *samples[half:]])
    base, *taps = (_tapped(lab, batch, stages) for batch in (samples, *halves))
    tables = [dict(leaves(tap.batch)) for tap in (base, *taps)]
    for path, table in tables[0].items():
        others = [table_of[path] for table_of in tables[1:] if path in table_of]
        if table.is_floating_point() and _mixed(table, others):
            return "collate", location_of(lab.pipeline.collate)
    for key, (stage, given) in base.given.items():
        if _mixed(given, [tap.given[key][1] for tap in taps if key in tap.given]):
            return stage.name, own_place(base, key[0], lab.pipeline)
    return None


def _mixed(given: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether an entry moves in each of two other runs."""
    if len(others) != 2 or any(other.shape != given.shape for other in others):
        return False
    limit = ULPS * torch.finfo(given.dtype).eps * scale_of(given)
    one, other = (
        ((given - moved).abs() > limit) | (given.isnan() != moved.isnan()) for moved in others
    )
    return bool((one & other).any())


def own_place(tap: Flow, key: tuple[str, ...], pipeline: Pipeline) -> Location | None:
    """Where a stage is defined; of a library's, the innermost of the user's own around it."""
    packages = user_packages(pipeline)
    for depth in range(len(key), 0, -1):
        stage = tap.stages.get(key[:depth])
        if stage is not None and stage.location is not None:
            module = stage.location.file.removesuffix(".py").replace("/", ".")
            if belongs(module, packages):
                return stage.location
    stage = tap.stages.get(key)
    return None if stage is None else stage.location


def _moved(alone: Tensor, a: Tensor, b: Tensor, counts: set[int], n: int) -> bool:
    """Whether the rows that stand first moved, in a tensor whose axes show which these are.

    Args:
        alone: Of these rows alone.
        a: Of one batch.
        b: Of the other.
        counts: Sizes of axes along which events lie in order.
        n: Samples of both batches.
    """
    if not alone.ndim == a.ndim == b.ndim or not alone.ndim:
        return False
    if a.shape[0] not in counts and n not in a.shape[1:2]:
        return False
    short = [min(sizes) for sizes in zip(alone.shape, a.shape, b.shape, strict=True)]
    at = tuple(slice(0, size) for size in short)
    limit = ULPS * torch.finfo(a.dtype).eps * scale_of(a)
    return difference(a[at], b[at]) > limit
