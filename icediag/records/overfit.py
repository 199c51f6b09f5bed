"""What came of training on one batch until it is known by heart: facts only, serializable."""

import math
from dataclasses import dataclass
from typing import Literal

from icediag.reference import Early

#: Share of the way from the baseline to the floor after which a batch counts as learnt, and share
#: below which what was won could be rounding or luck.
LEARNT = 0.7
SOME = 0.1
#: Relative fall of the loss over the last quarter of the steps that counts as still falling.
FALLING = 0.02
#: Predictions whose spread over the events is this small beside their size are one constant.
CONSTANT = 0.01

Verdict = Literal[
    "learns",
    "slow",
    "flat at the uninformed baseline",
    "stuck at a constant prediction",
    "diverges",
    "non-finite",
    "not judged",
]


@dataclass(frozen=True, kw_only=True)
class OutputSpread:
    """One column of what is predicted, over the events.

    Attributes:
        name: Its path, with the column where there are several.
        mean_first: Mean over the events before the first step.
        spread_first: Standard deviation before the first step (divided by n).
        mean_last: Mean after the last step; None where no step came through.
        spread_last: Standard deviation after the last step.
    """

    name: str
    mean_first: float
    spread_first: float
    mean_last: float | None = None
    spread_last: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training on fixed events, from the weights as they were found.

    Attributes:
        name: What was tried.
        events: How many events.
        losses: Before each step, and after the last one.
        baseline: Of these events: what the best constant prediction scores. None where unknown.
        floor: The lowest loss that can be reached, as far as that is known.
        learning_rate: The largest of the optimizer's groups; None if it has none.
        optimizer: Its class.
        failure: Where the user's code raised.
        spread_first: Root mean square of the predictions' deviation from their mean over the
            events, before the first step; None where predictions have no row an event.
        spread_last: The same after the last step.
        size_last: Root mean square of the predictions after the last step.
        outputs: Mean and spread of what is predicted, of the first few columns.
        redrawn: The loss in the end with other random numbers than those of every step; empty where
            neither model nor loss draws any.
    """

    name: str
    events: int
    losses: tuple[float, ...] = ()
    baseline: float | None = None
    floor: float | None = None
    learning_rate: float | None = None
    optimizer: str = ""
    failure: str | None = None
    spread_first: float | None = None
    spread_last: float | None = None
    size_last: float | None = None
    outputs: tuple[OutputSpread, ...] = ()
    redrawn: tuple[float, ...] = ()

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return max(0, len(self.losses) - 1)

    @property
    def last(self) -> float | None:
        """The loss in the end: the median of the last three, or what is not finite."""
        if not self.losses:
            return None
        tail = self.losses[-3:]
        bad = [loss for loss in tail if not math.isfinite(loss)]
        return bad[0] if bad else sorted(tail)[len(tail) // 2]

    @property
    def progress(self) -> float | None:
        """Share of the way from the baseline to the floor, 1 is all of it; below 0: above it."""
        if self.last is None or self.baseline is None or self.floor is None:
            return None
        way = self.baseline - self.floor
        if not way > 1e-6 * max(abs(self.baseline), abs(self.floor), 1e-30):
            return None
        return (self.baseline - self.last) / way if math.isfinite(self.last) else None

    @property
    def falling(self) -> bool:
        """Whether the loss was still going down over the last quarter of the steps."""
        n = len(self.losses) // 4
        if n < 2 or self.last is None:
            return False
        before, after = (sorted(part) for part in (self.losses[-2 * n : -n], self.losses[-n:]))
        fell = before[len(before) // 2] - after[len(after) // 2]
        unit = abs(before[len(before) // 2] - (self.floor if self.floor is not None else 0.0))
        return fell > FALLING * unit

    @property
    def constant(self) -> bool:
        """Whether the predictions ended as one constant for all events."""
        if self.spread_last is None or self.size_last is None or self.events < 2:
            return False
        return self.spread_last <= CONSTANT * self.size_last

    @property
    def verdict(self) -> Verdict:
        """What the curve says."""
        if self.failure is not None or self.last is None:
            return "not judged"
        if any(not math.isfinite(loss) for loss in self.losses):
            return "non-finite"
        progress = self.progress
        if progress is None:
            return "not judged"
        if progress >= LEARNT:
            return "learns"
        assert self.baseline is not None and self.floor is not None
        first = self.losses[0]
        unit = max(self.baseline - self.floor, abs(first - self.baseline))
        quarter = self.losses[-max(1, len(self.losses) // 4) :]
        if self.steps and min(quarter) > max(first, self.baseline) + 0.25 * unit:
            return "diverges"
        # Still falling towards the best constant is no learning.
        if progress >= SOME or (self.falling and not (self.constant and progress > -SOME)):
            return "slow"
        return (
            "stuck at a constant prediction" if self.constant else "flat at the uninformed baseline"
        )


@dataclass(frozen=True, kw_only=True)
class StageProbe:
    """What is left of the differences between events after a stage.

    Each event was sent alone; each floating-point output was summed up by mean, spread and extremes
    over its rows.

    Attributes:
        stage: Name of the module.
        type: Its class.
        file: Source file, None where unknown.
        line: Line of its forward.
        spread_in: Spread of what goes in over the events, relative to its size; None where nothing
            goes in.
        spread_out: Of what comes out.
        trained: Whether it holds parameters that ask for a gradient.
        gradient: Norm of the loss's gradient by its output on the batch; None where none came.
        probe_loss: Loss of a linear map from the summed-up output to the prediction, fitted on the
            batch; None where predictions are no single table.
    """

    stage: str
    type: str = ""
    file: str | None = None
    line: int | None = None
    spread_in: float | None = None
    spread_out: float | None = None
    trained: bool = True
    gradient: float | None = None
    probe_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """What was tried where the batch could not be learnt.

    Attributes:
        rates: Trainings with other learning rates, or another optimizer.
        plain: The user's step replaced by a plain one; None where there is none.
        blind: A training with inputs set to 0.
        blinded: Paths of the inputs that were set to 0.
        shuffled: A training with targets of other events.
        pairing: Relative change of the loss when random predictions get targets of other events:
            0 where the loss does not care whose targets it gets. None where not known.
        targets: Paths of what the loss takes for targets.
        double: A training in float64.
        stages: Stages in the order of the flow.
        not_tried: What could not be tried, and why.
    """

    rates: tuple[Trial, ...] = ()
    plain: Trial | None = None
    blind: Trial | None = None
    blinded: tuple[str, ...] = ()
    shuffled: Trial | None = None
    pairing: float | None = None
    targets: tuple[str, ...] = ()
    double: Trial | None = None
    stages: tuple[StageProbe, ...] = ()
    not_tried: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OverfitRecord:
    """The overfit test.

    Attributes:
        trials: One event, two events, the batch, in this order, as far as they came.
        declared_baseline: `Pipeline.baseline_loss`.
        baseline_from: How the batch's baseline was found.
        floor_from: How its floor was found.
        asked: Events of a batch in training.
        step_seconds: What one step on the events of the batch trial took.
        own_step: Whether the user's `train_step` was used.
        default_optimizer: Whether Adam stood in for an optimizer that was not given.
        modes: What was switched off, e.g. dropout.
        budget: Steps that were allowed.
        trained: Share of the model's values that ask for a gradient.
        attempts: What was tried where the batch could not be learnt; None where it could.
        early: A training that is flat so far beside the reference's learning curve; None where
            the loss is not that of the reference.
        reason: Why nothing could be tried.
    """

    trials: tuple[Trial, ...] = ()
    declared_baseline: float | None = None
    baseline_from: str = ""
    floor_from: str = ""
    asked: int = 0
    step_seconds: float = 0.0
    own_step: bool = False
    default_optimizer: bool = False
    modes: tuple[str, ...] = ()
    budget: int = 0
    trained: float = 1.0
    attempts: Attempts | None = None
    early: Early | None = None
    reason: str | None = None

    @property
    def batch(self) -> Trial | None:
        """The trial on the batch."""
        return next((trial for trial in self.trials if trial.name == "batch"), None)
