"""What findings cost the training: the same short training, with and without. Plain data."""

import math
import statistics
from dataclasses import dataclass
from typing import Literal

RepairKind = Literal[
    "raw values",
    "raw weights",
    "bounded outputs",
    "standardised features",
    "rescaled features",
    "rate",
    "plain step",
]
Answer = Literal["confirmed", "not shown", "refuted", "too short"]

#: Of the way from the baseline to 0, what a difference in the loss must reach to matter, and below
#: what it is nothing even where it is certain.
MATTERS = 0.05
NOTHING = 0.01
#: Student's t at 97.5 % for 1, 2, ... degrees of freedom (Abramowitz and Stegun, table 26.10).
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131),
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One repair, made in flight, and the loss with and without it at equal steps.

    Attributes:
        kind: Of repair.
        stage: Stage of the finding that it speaks to.
        repair: What was put in place of what.
        as_it_is: A value a seed: the loss as it is, mean over the last third of the steps.
        repaired: The same with the repair, in the same order of seeds.
        fall: How far the loss fell from the first third of the steps to the last, mean over the
            seeds, in that of the two trainings where it fell further.
        unit: What differences are measured by: the way from the baseline to the floor, or the
            baseline, or the loss where that is not known.
        ceiling: Loss of knowing nothing, where at least one of the trainings came below it: one
            that ends above it has learnt nothing, however far above. Without, one seed that went
            astray hides that all the others tell the same.
    """

    kind: RepairKind
    stage: str
    repair: str
    as_it_is: tuple[float, ...] = ()
    repaired: tuple[float, ...] = ()
    fall: float = 0.0
    unit: float = 1.0
    ceiling: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where seeds are missing on one side."""
        if len(self.as_it_is) != len(self.repaired):
            raise ValueError(f"{len(self.as_it_is)} losses beside {len(self.repaired)} repaired")

    @property
    def differences(self) -> tuple[float, ...]:
        """As it is minus repaired, seed by seed: above 0 where the repair helps."""
        top = math.inf if self.ceiling is None else self.ceiling
        pairs = [
            (min(a, top), min(b, top)) for a, b in zip(self.as_it_is, self.repaired, strict=True)
        ]
        return tuple(0.0 if a == b else a - b for a, b in pairs)

    @property
    def capped(self) -> bool:
        """Whether a loss counts as that of knowing nothing, and is above it."""
        return self.ceiling is not None and max(*self.as_it_is, *self.repaired) > self.ceiling

    @property
    def mean(self) -> float:
        """Mean of the differences."""
        return statistics.fmean(self.differences) if self.differences else 0.0

    @property
    def interval(self) -> tuple[float, float] | None:
        """Their 95 % interval over the seeds (Student's t); None with fewer than two."""
        n = len(self.differences)
        if n < 2:
            return None
        if not all(math.isfinite(d) for d in self.differences):
            return min(self.differences), max(self.differences)
        half = T_975[min(n - 1, len(T_975)) - 1] * statistics.stdev(self.differences) / math.sqrt(n)
        return self.mean - half, self.mean + half

    @property
    def at_most(self) -> float | None:
        """The upper end of the interval as a share of `unit`; None with fewer than two seeds."""
        if self.interval is None or not self.unit:
            return None
        return max(0.0, self.interval[1]) / abs(self.unit)

    @property
    def answer(self) -> Answer:
        """Whether it is shown that what was repaired had hurt.

        `refuted` where the interval leaves no room for a difference that matters; `too short` where
        neither training learnt enough for one to show.
        """
        if self.interval is None:
            return "not shown"
        low, high = self.interval
        if low > 0 and self.mean > NOTHING * abs(self.unit):
            return "confirmed"
        if self.fall < 2 * MATTERS * abs(self.unit):
            return "too short"
        return "refuted" if high < MATTERS * abs(self.unit) else "not shown"


@dataclass(frozen=True, kw_only=True)
class EffectsRecord:
    """All repairs that were tried.

    Attributes:
        effects: Each repair alone.
        together: All of them at once; None where there are fewer than two.
        seeds: Seeds that came through.
        steps: Steps of each training.
        events: Events a step.
        pool: Different events of a training.
        optimizer: Class of the optimizer.
        budget: Seconds that were allowed.
        skipped: What was not tried, and why.
        reason: Why nothing could be tried.
    """

    effects: tuple[Effect, ...] = ()
    together: Effect | None = None
    seeds: int = 0
    steps: int = 0
    events: int = 0
    pool: int = 0
    optimizer: str = ""
    budget: float = 0.0
    skipped: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def unit(self) -> float:
        """What the differences are measured by, see `Effect`."""
        return next((effect.unit for effect in self.effects), 1.0)
