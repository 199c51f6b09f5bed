"""Overfit: can the model learn one batch by heart, and where not, why not?

One event, two events, one batch, dropout off, from the weights as they are found; each training
ends as soon as it has shown what it can. Yardsticks are the loss's own: the best constant
prediction for these targets, and what one event alone can be brought to.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from icediag.instruments.baseline import constant_baseline
from icediag.instruments.running.preserve import is_lazy
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.still import running_statistics
from icediag.instruments.running.workbench import Batches, Curve, Workbench, has_weights, workbench
from icediag.instruments.trees.rows import columns_of, spread_of
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged
from icediag.records.overfit import LEARNT, OutputSpread, OverfitRecord, Trial

from .attempts import attempt

#: Events of the batch at most, and to begin with; more are taken while a step stays this quick.
MOST_EVENTS = 64
FIRST_EVENTS = 8
QUICK_SECONDS = 0.04
#: Steps on one or two events, and at most on the batch.
FEW_STEPS = 60
BUDGET = 200
#: A step that takes long gets fewer of them: so many seconds, and so many steps at least.
SECONDS = 12.0
LEAST_STEPS = 60
#: Columns of predictions that are listed.
MOST_OUTPUTS = 8
#: A loss is a sum over events where that of each twice is twice as large, to this share of it.
SUMMED = 0.2
#: Draws of other random numbers, after the training.
DRAWS = 4
#: Without any gain for so many steps a training ends.
PATIENCE = 40


def record_overfit(
    pipeline: Pipeline,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    steps: int = BUDGET,
) -> OverfitRecord:
    """Overfit one event, two events and a batch; where that fails, try what could be the cause.

    Everything is left as it was found.

    Args:
        pipeline: What to train.
        batch_size: Events of the batch at most; without, that of the pipeline, up to 64.
        device: Where the model is.
        seed: Of every step.
        steps: Budget of the batch, at least 1.

    Raises:
        IcediagError: The data set is empty or cannot be read.
    """
    asked = pipeline.batch_size if batch_size is None else batch_size
    reason = has_weights(pipeline.model)
    if reason is not None:
        return OverfitRecord(asked=asked, reason=reason)
    notes: list[Unjudged] = []
    with workbench(
        pipeline, wanted=min(asked, MOST_EVENTS), device=device, seed=seed, notes=notes
    ) as bench:
        modes = tuple(f"{note.name} {note.reason}" for note in notes if note.name == "dropout")
        record = OverfitRecord(
            declared_baseline=pipeline.baseline_loss,
            asked=asked,
            own_step=pipeline.train_step is not None,
            default_optimizer=pipeline.optimizer is None,
            modes=modes,
            budget=steps,
            trained=_trained(pipeline.model),
        )
        try:
            indices, seconds = _affordable(bench)
        except Exception as error:  # the user's code, at its first run here
            return dataclasses.replace(record, reason=reason_of(error, pipeline))
        if steps == BUDGET and seconds * steps > SECONDS:
            steps = max(LEAST_STEPS, round(SECONDS / seconds))
        return _run(bench, indices, dataclasses.replace(record, step_seconds=seconds, budget=steps))


def _affordable(bench: Workbench) -> tuple[list[int], float]:
    """The events of the batch: as many as a quick step allows."""
    n = min(FIRST_EVENTS, len(bench.samples))
    bench.seconds(bench.batches(list(range(min(2, n)))))  # the first of all takes longer
    seconds = bench.seconds(bench.batches(list(range(n))))
    while n < len(bench.samples) and seconds < QUICK_SECONDS:
        n = min(2 * n, len(bench.samples))
        seconds = bench.seconds(bench.batches(list(range(n))))
    return list(range(n)), seconds


def _run(bench: Workbench, indices: list[int], record: OverfitRecord) -> OverfitRecord:
    batch = bench.batches(indices)
    found = constant_baseline(bench, batch, len(indices))
    known = [] if found is None else [found]
    if record.declared_baseline is not None and math.isfinite(record.declared_baseline):
        known.append((record.declared_baseline, "declared by the pipeline"))
    baseline, source = min(known) if known else (None, "")
    share = _share(bench, indices)
    few = [
        _few(bench, name, picked, None if baseline is None else baseline * share(len(picked)))
        for name, picked in (("one event", indices[:1]), ("two events", indices[:2]))
        if len(indices) >= len(picked)
    ]
    floors = [
        min(t.losses) / share(t.events)
        for t in few
        if t.losses and all(map(math.isfinite, t.losses))
    ]
    floor = min(floors) if floors else None
    if baseline is not None and floor is not None and not floor < baseline:
        floor = None  # nothing that training reached is better than a constant
    whole = _batch(bench, batch, len(indices), record.budget, baseline, floor)
    trials = [_with_floor(trial, floor, share) for trial in (*few, whole)]
    if floor is None and baseline is not None and whole.losses:
        # How low this loss can go is not known; where it counts from 0, as most do, 0 is right.
        floor = min(0.0, baseline - abs(baseline), *(x for x in whole.losses if x == x))
        trials = [_with_floor(trial, floor, share) for trial in trials]
        floor_from = "taken for 0: no training came below the baseline"
    else:
        floor_from = "what one or two events can be brought to"
    record = dataclasses.replace(
        record,
        trials=tuple(trials),
        baseline_from=source,
        floor_from=floor_from,
        modes=(*record.modes, *_norm_modes(bench.model)),
    )
    whole = trials[-1]
    if whole.verdict in ("learns", "not judged") and whole.failure is None:
        return record
    return dataclasses.replace(record, attempts=attempt(bench, batch, indices, whole))


def _with_floor(trial: Trial, floor: float | None, share: Callable[[int], float]) -> Trial:
    return dataclasses.replace(trial, floor=None if floor is None else floor * share(trial.events))


def _share(bench: Workbench, indices: list[int]) -> Callable[[int], float]:
    """What a loss of some events is beside that of all: its part where it is summed over events."""
    summed = False
    try:
        with bench.from_here(), torch.no_grad():
            once, twice = (
                float(bench.loss(bench.batches(picked)())) for picked in (indices, indices * 2)
            )
        # Not exactly, where random numbers are drawn for every event.
        summed = abs(twice - 2 * once) < SUMMED * abs(once)
    except Exception:  # the trials meet it and say so
        summed = False
    return lambda events: events / len(indices) if summed else 1.0


def _trained(model: nn.Module) -> float:
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters() if not is_lazy(p)]
    whole = sum(size for size, _ in sizes)
    return sum(size for size, asks in sizes if asks) / whole if whole else 1.0


def _norm_modes(model: nn.Module) -> tuple[str, ...]:
    some = any(isinstance(module, _NormBase) for module in model.modules())
    return ("batch norms in evaluation for one event",) if some else ()


def _few(bench: Workbench, name: str, picked: list[int], baseline: float | None) -> Trial:
    """One or two events: until the loss no longer falls, which shows how low it can go."""

    def stop(losses: list[float]) -> bool:
        if len(losses) < 20:
            return False
        unit = abs((baseline if baseline is not None else losses[0]) - min(losses))
        return min(losses[:-10]) - min(losses[-10:]) < 0.02 * unit

    def train() -> Curve:
        return bench.train(bench.batches(picked), steps=FEW_STEPS, stop=stop)

    if len(picked) == 1:
        with running_statistics(bench.model):
            curve = train()
    else:
        curve = train()
    return trial_of(name, len(picked), curve, baseline)


def _batch(
    bench: Workbench,
    batch: Batches,
    events: int,
    budget: int,
    baseline: float | None,
    floor: float | None,
) -> Trial:
    def stop(losses: list[float]) -> bool:
        if len(losses) >= 3 and baseline is not None and floor is not None:
            middle = sorted(losses[-3:])[1]
            if middle <= baseline - (LEARNT + 0.02) * (baseline - floor):
                return True
        return len(losses) > 2 * PATIENCE and min(losses[:-PATIENCE]) <= min(losses[-PATIENCE:])

    return train_and_look(
        bench, batch, "batch", events, baseline=baseline, floor=floor, steps=budget, stop=stop
    )


def train_and_look(
    bench: Workbench,
    batch: Batches,
    name: str,
    events: int,
    *,
    baseline: float | None,
    floor: float | None,
    **how: Any,
) -> Trial:
    """Train, and look at the predictions before and after."""
    before = _look(bench, batch)
    after: list[Looked | None] = []
    redrawn: list[float] = []

    def look() -> None:
        after.append(_look(bench, batch))
        if name == "batch":
            redrawn.extend(_redrawn(bench, batch))

    curve = bench.train(batch, after=look, **how)
    trial = trial_of(name, events, curve, baseline)
    last = after[0] if after else None
    return dataclasses.replace(
        trial,
        floor=floor,
        spread_first=before.spread[0] if before and before.spread else None,
        spread_last=last.spread[0] if last and last.spread else None,
        size_last=last.spread[1] if last and last.spread else None,
        outputs=_outputs(before, last),
        redrawn=tuple(redrawn),
    )


def _redrawn(bench: Workbench, batch: Batches) -> list[float]:
    """The loss with other random numbers than those of the training; none where it draws none."""
    found: list[float] = []
    own = bench.seed
    try:
        with torch.no_grad():
            trained = float(bench.loss(batch()))
            for number in range(1, DRAWS + 1):
                bench.seed = own + number
                found.append(float(bench.loss(batch())))
                if found[0] == trained:
                    return []
    except Exception:  # the training met it and said so
        return []
    finally:
        bench.seed = own
    return found


@dataclass(frozen=True)
class Looked:
    """Predictions over the events: spread and size of all, mean and spread of each column."""

    spread: tuple[float, float] | None
    columns: list[tuple[str, float, float]]


def _look(bench: Workbench, batch: Batches) -> Looked | None:
    try:
        with torch.no_grad():
            predictions = bench.predict(batch())
            return Looked(spread_of(predictions), columns_of(predictions, MOST_OUTPUTS))
    except Exception:  # the training meets it and says so
        return None


def _outputs(before: Looked | None, last: Looked | None) -> tuple[OutputSpread, ...]:
    ends = {name: (mean, sd) for name, mean, sd in last.columns} if last else {}
    return tuple(
        OutputSpread(
            name=name,
            mean_first=mean,
            spread_first=sd,
            mean_last=ends.get(name, (None, None))[0],
            spread_last=ends.get(name, (None, None))[1],
        )
        for name, mean, sd in (before.columns if before else ())
    )


def trial_of(name: str, events: int, curve: Curve, baseline: float | None) -> Trial:
    """A curve as facts."""
    return Trial(
        name=name,
        events=events,
        losses=tuple(curve.losses),
        baseline=baseline,
        learning_rate=curve.rate,
        optimizer=curve.optimizer,
        failure=curve.failure,
    )
