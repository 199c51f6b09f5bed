"""Attempts: where a batch cannot be learnt, what changes that, and what does not."""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.baseline import pairing_of, target_paths
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.workbench import Batches, Workbench, rate_of
from icediag.instruments.trees.rows import floating, mapped, rolled
from icediag.instruments.trees.walk import leaves
from icediag.records.overfit import LEARNT, SOME, Attempts, StageProbe, Trial

from .probes import probe_stages

#: Steps of an attempt.
STEPS = 30
#: Learning rates of the range test, with Adam.
RATES = (1e-3, 1e-2)
#: Factors on the user's own learning rate, with their own optimizer.
FACTORS = (0.1, 10.0, 100.0)


def attempt(bench: Workbench, batch: Batches, indices: list[int], failed: Trial) -> Attempts:
    """Try what could be the cause; each attempt begins from the weights as they were found."""
    not_tried: list[str] = []

    def guarded(what: str, run: Callable[[], Any], otherwise: Any = None) -> Any:
        try:
            return run()
        except Exception as error:  # an experiment that the user's code does not bear
            not_tried.append(f"{what}: {reason_of(error, bench.pipeline)}")
            return otherwise

    def train(name: str, on: Batches = batch, at: Workbench = bench, **how: Any) -> Trial:
        curve = at.train(on, steps=STEPS, stop=_stop(failed), **how)
        return Trial(
            name=name,
            events=failed.events,
            losses=tuple(curve.losses),
            baseline=failed.baseline,
            floor=failed.floor,
            learning_rate=curve.rate,
            optimizer=curve.optimizer,
            failure=curve.failure,
        )

    if failed.progress is not None and failed.progress >= SOME:
        # It learns, if slowly: all there is to ask is whether another rate is quicker.
        return Attempts(
            rates=tuple(train(f"own optimizer at {r:g}", rate=r) for r in _rates(bench)[:2])
        )
    stages: tuple[StageProbe, ...] = guarded(
        "stages", lambda: probe_stages(bench, batch, indices), ()
    )
    targets: tuple[str, ...] = guarded("targets", lambda: target_paths(bench, batch), ())
    pairing = guarded("pairing", lambda: pairing_of(bench, batch, targets))
    plain = None
    if bench.pipeline.train_step is not None:
        plain = train("plain step", own=False)
    rates = [train(f"own optimizer at {rate:g}", rate=rate) for rate in _rates(bench)]
    rates += [train(f"Adam at {r:g}", own=False, default=True, rate=r) for r in RATES]
    found = Attempts(
        rates=tuple(rates), plain=plain, pairing=pairing, targets=targets, stages=stages
    )
    if failed.verdict == "slow":
        return dataclasses.replace(found, not_tried=tuple(not_tried))
    best = min(
        (t for t in (failed, *rates) if t.last is not None and math.isfinite(t.last)),
        key=lambda t: t.last if t.last is not None else math.inf,
        default=failed,
    )
    how: dict[str, Any] = {
        "own": False,
        "default": best.name.startswith("Adam"),
        "rate": best.learning_rate,
    }
    blinded: tuple[str, ...] = guarded("inputs", lambda: _inputs(batch, targets), ())
    blind = shuffled = double = None
    if blinded:
        blind = guarded("blind", lambda: train("inputs at 0", _blind(batch, blinded), **how))
    if targets:
        moved = Batches(lambda: rolled(batch(), targets))
        shuffled = guarded("shuffled", lambda: train("targets of other events", moved, **how))
    if best.verdict != "learns":
        double = guarded("float64", lambda: _double(bench, batch, train, how))
    return dataclasses.replace(
        found,
        blind=blind,
        blinded=blinded,
        shuffled=shuffled,
        double=double,
        not_tried=tuple(not_tried),
    )


def _stop(failed: Trial) -> Callable[[list[float]], bool]:
    """Whether an attempt has already shown that it learns."""

    def stop(losses: list[float]) -> bool:
        if failed.baseline is None or failed.floor is None or len(losses) < 3:
            return False
        goal = failed.baseline - (LEARNT + 0.02) * (failed.baseline - failed.floor)
        return sorted(losses[-3:])[1] <= goal

    return stop


def _rates(bench: Workbench) -> list[float]:
    """Other learning rates for the user's own optimizer."""
    if bench.pipeline.optimizer is None:
        return []
    with bench.from_here():
        own = rate_of(bench.make_optimizer())
    if own is None:
        return []
    return [own * factor for factor in FACTORS] if own > 0 else [1e-4, 1e-3, 1e-2]


def _inputs(batch: Batches, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Floating-point tensors of the batch that are not targets."""
    return tuple(path for path, _ in floating(batch()) if path not in targets)


def _blind(batch: Batches, paths: tuple[str, ...]) -> Batches:
    """The batch with its inputs at 0."""
    return Batches(
        lambda: mapped(batch(), lambda path, t: torch.zeros_like(t) if path in paths else t)
    )


def _double(
    bench: Workbench, batch: Batches, train: Callable[..., Trial], how: dict[str, Any]
) -> Trial:
    """The same in float64, on a copy of the model."""
    model = copy.deepcopy(bench.model).double()

    def wide(_: str, tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    twin = Workbench(
        dataclasses.replace(bench.pipeline, model=model), bench.samples, bench.device, bench.seed
    )
    some = any(t.is_floating_point() for _, t in leaves(batch()))
    on = Batches(lambda: mapped(batch(), wide)) if some else batch
    return train("float64", on, twin, **how)
