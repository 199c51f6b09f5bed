"""When numbers of a training mean that it goes wrong. Plain numbers in, problems out."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .problem import Kind, Problem

#: Steps after which a fault that does not end the training is to be named.
WINDOW = 50
#: Samples of a fault, one after the other, before it is named: fewer may be chance.
SAMPLES = 5
#: Mean losses this close to the baseline, relative to it, are at the baseline.
AT_BASELINE = 0.01
#: Without a baseline losses are gathered until their mean is known to this share of it, at most so
#: many: before, noise may hide a fall.
TELLING, LONGEST = 0.02, 1000
#: A fall of the loss by fewer standard errors than this is no fall.
SIGNIFICANT = 2.0
#: Predictions that differ between the rows of a batch by less than this share of their size are
#: one prediction: rounding in float32 alone gives 1e-7, a fresh network 1e-3 or more.
COLLAPSED = 1e-5
#: Gradient norms of many steps that agree to this were scaled to it.
CLIPPED = 1e-5
#: Share of the units of a layer without gradient from which on the layer is named.
DEAD = 0.5


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was looked at in one step.

    Attributes:
        step: Its number.
        gradient_norm: As the optimizer got it; None where there is no gradient.
        update: Norm of the change of all weights by the step over that of the weights.
        spread: Largest standard deviation over rows of a column of the predictions, over their
            root mean square; None where predictions are not known or too few.
        dead: Layer -> which of its units got no gradient at all, as a tuple of flags.
        bad_gradients: Names of parameters whose gradient is not finite.
    """

    step: int
    gradient_norm: float | None = None
    update: float | None = None
    spread: float | None = None
    dead: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    bad_gradients: tuple[str, ...] = ()


class Rules:
    """Takes losses and samples, gives each kind of problem once.

    Args:
        baseline_loss: What a predictor that knows nothing scores, where that is known.
        fresh: Whether the training begins here: a loss that has fallen already may be flat.
    """

    def __init__(self, baseline_loss: float | None = None, *, fresh: bool = True) -> None:
        self._baseline = baseline_loss
        self._fresh, self._fallen = fresh, False
        self._losses: deque[float] = deque(maxlen=LONGEST)
        self._samples: deque[Sample] = deque(maxlen=WINDOW)
        self._named: set[Kind] = set()

    def loss(self, step: int, value: float) -> Iterator[Problem]:
        """Look at the loss of a step."""
        if not math.isfinite(value):
            yield from self._once("non-finite", step, f"the loss of step {step} is {value}", {})
            return
        self._losses.append(value)
        if len(self._losses) >= WINDOW:
            yield from self._flat(step)

    def sample(self, sample: Sample) -> Iterator[Problem]:
        """Look at a sampled step."""
        step = sample.step
        if sample.bad_gradients:
            yield from self.gradient(step, sample.bad_gradients)
            return
        self._samples.append(sample)
        yield from self._still(step)
        yield from self._collapse(step)
        yield from self._clipping(step)
        yield from self._dead(step)

    def gradient(self, step: int, bad: tuple[str, ...]) -> Iterator[Problem]:
        """Look at the names of parameters whose gradient is not finite."""
        if bad:
            first, *others = bad
            more = f" and {len(others)} more" if others else ""
            message = f"the gradient of {first}{more} is not finite at step {step}"
            yield from self._once("non-finite", step, message, {"parameters": bad})

    def _once(
        self, kind: Kind, step: int, message: str, evidence: dict[str, object]
    ) -> Iterator[Problem]:
        if kind not in self._named:
            self._named.add(kind)
            yield Problem(kind=kind, step=step, message=message, evidence=evidence)

    def _flat(self, step: int) -> Iterator[Problem]:
        """At the baseline for a whole window; where that is unknown, no fall since the start."""
        if self._baseline is not None:
            recent = list(self._losses)[-WINDOW:]
            fall, error = _fall(recent)
            mean = sum(recent) / WINDOW
            near = abs(mean - self._baseline) <= AT_BASELINE * abs(self._baseline)
            if near and fall <= SIGNIFICANT * error:
                yield from self._once(
                    "flat",
                    step,
                    f"the loss is {mean:.4g} over the last {WINDOW} steps, to step {step}; knowing "
                    f"nothing gives {self._baseline:.4g}",
                    {"mean": mean, "fall": fall, "baseline": self._baseline},
                )
            return
        if not self._fresh or self._fallen:
            return
        fall, error = _fall(list(self._losses))
        mean = sum(self._losses) / len(self._losses)
        self._fallen = fall > SIGNIFICANT * error
        if not self._fallen and error <= TELLING * abs(mean):
            yield from self._once(
                "flat",
                step,
                f"the loss has not fallen in the first {step} steps: by {fall:.3g} from one half "
                f"to the other, of {mean:.4g}, with a standard error of {error:.2g}",
                {"mean": mean, "fall": fall, "standard_error": error},
            )

    def _last(self, n: int = SAMPLES) -> list[Sample]:
        return list(self._samples)[-n:] if len(self._samples) >= n else []

    def _still(self, step: int) -> Iterator[Problem]:
        last = self._last()
        if last and all(sample.update == 0 for sample in last):
            message = f"no weight has changed in {len(last)} steps looked at, to step {step}"
            yield from self._once("weights-do-not-move", step, message, {})

    def _collapse(self, step: int) -> Iterator[Problem]:
        spreads = [s.spread for s in self._last() if s.spread is not None]
        if len(spreads) == SAMPLES and max(spreads) < COLLAPSED:
            message = (
                "all rows of a batch get the same prediction: they differ by "
                f"{max(spreads):.1g} of their size at most, in {SAMPLES} steps looked at, to step "
                f"{step}"
            )
            yield from self._once("collapse", step, message, {"spread": max(spreads)})

    def _clipping(self, step: int) -> Iterator[Problem]:
        norms = [s.gradient_norm for s in self._last() if s.gradient_norm is not None]
        if len(norms) < SAMPLES or min(norms) <= 0:
            return
        if max(norms) - min(norms) <= CLIPPED * max(norms):
            message = (
                f"the gradient is cut to a norm of {norms[-1]:.4g} in each of {len(norms)} steps "
                f"looked at, to step {step}: only its direction is used"
            )
            yield from self._once("clipping-always-on", step, message, {"norm": norms[-1]})

    def _dead(self, step: int) -> Iterator[Problem]:
        last = self._last()
        worst: tuple[float, str, int, int] | None = None
        for layer in last[-1].dead if last else ():
            flags = [sample.dead.get(layer, ()) for sample in last]
            if any(len(f) != len(flags[0]) for f in flags) or not flags[0]:
                continue
            dead = sum(all(of_unit) for of_unit in zip(*flags, strict=True))
            share = dead / len(flags[0])
            if share > DEAD and (worst is None or share > worst[0]):
                worst = (share, layer, dead, len(flags[0]))
        if worst is not None:
            _, layer, dead, units = worst
            message = (
                f"{dead:,} of {units:,} units of {layer} got no gradient in any of {SAMPLES} steps "
                f"looked at, to step {step}"
            )
            numbers: dict[str, object] = {"layer": layer, "dead": dead, "units": units}
            yield from self._once("dead-units", step, message, numbers)


def _fall(losses: list[float]) -> tuple[float, float]:
    """By how much the second half lies below the first, and the standard error of that."""
    half = len(losses) // 2
    first, last = np.asarray(losses[:half]), np.asarray(losses[-half:])
    error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / half)
    return float(first.mean() - last.mean()), error
