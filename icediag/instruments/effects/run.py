"""Effects: what a fault costs the training, measured by training without it.

Every repair that was found to be possible is put in place alone, then all together. The trainings
begin from the same weights and see the same events in the same order; seeds draw other weights and
another order. What is compared is the loss at equal steps.
"""

import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from icediag.instruments.running.preserve import preserved
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.workbench import Batches, Workbench, has_weights, workbench
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged
from icediag.records.effects import Effect, EffectsRecord

from .repair import Repair
from .repairs import changes_something, repairs_of, shuffled

#: Seconds that are spent in all, unless more are given.
BUDGET = 20.0
#: Different events, and those of a step; fewer of them where a step takes long.
POOL = 64
EVENTS = (16, 8, 4)
#: How often an event is seen at least: in a brief training nothing else is learnt.
REPEATS = 12
#: Seeds, and steps of a training: at least, as far as possible, and at most.
SEEDS = (4, 8, 16)
STEPS = (16, 30, 60)


def record_effects(
    pipeline: Pipeline,
    *,
    recording: Recording,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    budget: float = BUDGET,
    thorough: bool = False,
    clock: Callable[[], float] = time.process_time,
) -> EffectsRecord:
    """Repair what was recorded, one thing at a time, and train with and without.

    Everything is left as it was found.

    Args:
        pipeline: What to train.
        recording: What the other instruments saw of it.
        batch_size: Events of a step at most.
        device: Where the model is.
        seed: The first of the seeds.
        budget: Seconds of processor time to spend.
        thorough: Whether what is but a note is tried as well.
        clock: What counts them.

    Raises:
        IcediagError: The data set is empty or cannot be read.
    """
    reason = has_weights(pipeline.model)
    if reason is not None:
        return EffectsRecord(budget=budget, reason=reason)
    notes: list[Unjudged] = []
    asked = pipeline.batch_size if batch_size is None else batch_size
    with workbench(pipeline, wanted=POOL, device=device, seed=seed, notes=notes) as bench:
        try:
            return _record(bench, recording, asked, budget, clock, thorough)
        except Exception as error:  # the user's code does not come through
            return EffectsRecord(budget=budget, reason=reason_of(error, pipeline))


def _record(
    bench: Workbench,
    recording: Recording,
    asked: int,
    budget: float,
    clock: Callable[[], float],
    thorough: bool,
) -> EffectsRecord:
    began = clock()
    n = len(bench.samples)
    skipped: list[str] = []
    few = bench.batches(list(range(min(4, n))))
    repairs = []
    for repair in repairs_of(bench, few, recording, skipped, thorough=thorough):
        why = changes_something(bench, few, repair)
        if why is None:
            repairs.append(repair)
        else:
            skipped.append(f"{repair.text}: {why}")
    if not repairs:
        why = "nothing that was found can be repaired in flight"
        return EffectsRecord(pool=n, budget=budget, skipped=tuple(skipped), reason=why)
    arms: list[tuple[Repair, ...]] = [(), *((repair,) for repair in repairs)]
    if len(repairs) > 1:
        arms.append(tuple(repairs))
    events, seeds, steps = _affordable(bench, min(asked, n), len(arms), budget)
    pool = min(n, max(events, events * steps // REPEATS))
    losses: list[list[float]] = [[] for _ in arms]
    falls: list[list[tuple[float, float]]] = [[] for _ in arms]
    for i in range(seeds):
        if i >= 2 and clock() - began > budget * (i / (i + 1) + 0.25):
            skipped.append(f"{seeds - i} of {seeds} seeds: the {budget:g} seconds were spent")
            break
        row = [_train(bench, arm, i, events, pool, steps) for arm in arms]
        for at, (first, last) in enumerate(row):
            losses[at].append(last)
            falls[at].append((first, last))
    unit, baseline = _unit(recording, losses[0]), _baseline(recording)
    learnt = baseline is not None and any(last < baseline for of in losses for last in of)
    ceiling = baseline if learnt else None
    top = math.inf if ceiling is None else ceiling
    fell = [
        statistics.fmean(
            min(first, top) - min(last, top) if math.isfinite(last) else 0.0 for first, last in of
        )
        for of in falls
    ]
    effects = [
        Effect(
            kind=arm[0].kind,
            stage=arm[0].stage if len(arm) == 1 else "model",
            repair="; ".join(repair.text for repair in arm),
            as_it_is=tuple(losses[0]),
            repaired=tuple(losses[at]),
            fall=max(fell[0], fell[at]),
            unit=unit,
            ceiling=ceiling,
        )
        for at, arm in enumerate(arms)
        if at
    ]
    together = effects.pop() if len(repairs) > 1 else None
    with bench.from_here():
        optimizer = type(bench.make_optimizer()).__name__
    return EffectsRecord(
        effects=tuple(effects),
        together=together,
        seeds=len(losses[0]),
        steps=steps,
        events=events,
        pool=pool,
        optimizer=optimizer,
        budget=budget,
        skipped=tuple(skipped),
    )


def _affordable(bench: Workbench, n: int, arms: int, budget: float) -> tuple[int, int, int]:
    """Events a step, seeds and steps that the budget allows; at least the least of each.

    Rather fewer events a step than fewer seeds: an interval over four of them is wide.
    """
    events = 0
    for most in EVENTS:
        events = min(most, n)
        batch = bench.batches(list(range(events)))
        bench.seconds(batch)
        allowed = budget / max(bench.seconds(batch), 1e-6) / arms
        if allowed >= SEEDS[1] * STEPS[1]:
            break
    seeds = max(SEEDS[0], min(SEEDS[1], int(allowed / STEPS[1])))
    steps = max(STEPS[0], min(STEPS[2], int(allowed / seeds)))
    # What is left goes to more seeds.
    return events, max(seeds, min(SEEDS[2], int(allowed / steps))), steps


def _train(
    bench: Workbench, arm: tuple[Repair, ...], index: int, events: int, pool: int, steps: int
) -> tuple[float, float]:
    """The loss, mean over the first and the last third of the steps; infinite if not finite."""
    generator = torch.Generator().manual_seed(bench.seed + index)
    how: dict[str, Any] = {}
    for repair in arm:
        how |= repair.how
    with preserved(bench.model), ExitStack() as stack:
        if index:
            shuffled(bench.model, bench.seed + index)
        for repair in arm:
            stack.enter_context(repair.force())
        stream = _Stream(bench, events, pool, generator)
        curve = bench.train(stream, steps=steps, stop=stream.next, **how)
    if curve.failure is not None:
        raise RuntimeError(f"{' and '.join(r.text for r in arm) or 'as it is'}: {curve.failure}")
    third = max(1, steps // 3)
    if len(curve.losses) < steps or not all(map(math.isfinite, curve.losses[:steps])):
        return math.inf, math.inf
    first, last = curve.losses[:third], curve.losses[steps - third : steps]
    return statistics.fmean(first), statistics.fmean(last)


class _Stream(Batches):
    """Some of the events in random order, a batch a step; a new order when all were seen."""

    def __init__(
        self, bench: Workbench, events: int, pool: int, generator: torch.Generator
    ) -> None:
        super().__init__(lambda: None)
        self._bench, self._events, self._generator = bench, events, generator
        self._pool = torch.randperm(len(bench.samples), generator=generator)[:pool]
        self._order: list[int] = []
        self._step: Batches | None = None

    def __call__(self) -> Any:
        """The batch of this step: a step may ask for it more than once."""
        if self._step is None:
            if len(self._order) < self._events:
                order = torch.randperm(len(self._pool), generator=self._generator)
                self._order = self._pool[order].tolist()
            picked, self._order = self._order[: self._events], self._order[self._events :]
            self._step = self._bench.batches(picked)
        return self._step()

    def next(self, _: list[float]) -> bool:
        """Called after each step: the next one gets other events."""
        self._step = None
        return False


def _baseline(recording: Recording) -> float | None:
    """What knowing nothing scores: as estimated beside the loss's floor, or as stated."""
    batch = recording.overfit.batch if recording.overfit is not None else None
    if batch is not None and batch.baseline is not None:
        return batch.baseline
    return recording.baseline_loss


def _unit(recording: Recording, losses: list[float]) -> float:
    """What a difference is held against."""
    batch = recording.overfit.batch if recording.overfit is not None else None
    if batch is not None and batch.baseline is not None and batch.floor is not None:
        return abs(batch.baseline - batch.floor)
    if recording.baseline_loss is not None:
        return abs(recording.baseline_loss)
    finite = [loss for loss in losses if math.isfinite(loss)]
    return abs(statistics.fmean(finite)) if finite else 1.0
