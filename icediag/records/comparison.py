"""Two recordings of one pipeline side by side: what is counted more, and what takes longer."""

from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Location, Unjudged
from icediag.records.work import Phase

#: What is counted. `executions` are those of lines of the user's own.
Measure = Literal["operations", "launches", "syncs", "bytes", "executions"]
MEASURES: tuple[Measure, ...] = ("operations", "launches", "syncs", "bytes", "executions")


@dataclass(frozen=True, kw_only=True)
class LineChange:
    """A line whose count rose.

    Attributes:
        location: Where it is in the new code.
        text: What stands there; "" where that is not known.
        before: Its count in the old code; 0 of a line that was not there.
        after: Its count now.
        known: Whether the line was there before.
    """

    location: Location
    text: str
    before: int
    after: int
    known: bool


@dataclass(frozen=True, kw_only=True)
class CountChange:
    """A count that differs in one stage of one part of the step.

    Attributes:
        measure: What is counted.
        phase: Part of the step.
        stage: Where; "" of all stages together, and of stages that are in one recording alone.
        before: In the old recording.
        after: In the new one.
        whole: Of the whole step in the old one; of executions all in this part of the step, with
            those of lines that do not grow with the batch, which are not compared.
        lines: Lines that it rose in, most first.
    """

    measure: Measure
    phase: Phase
    stage: str
    before: int
    after: int
    whole: int
    lines: tuple[LineChange, ...] = ()

    @property
    def share(self) -> float:
        """By how much it rose, of the whole; negative where it fell."""
        return (self.after - self.before) / max(1, self.whole)


@dataclass(frozen=True, kw_only=True)
class TimeChange:
    """A step against the yardstick beside it, in one round of each recording: new by old.

    Attributes:
        old_round: Which round of the old recording.
        new_round: Which of the new one.
        old_steps: Steps in that of the old recording.
        new_steps: Steps in that of the new one.
        ratio: Ratio of the medians of step by yardstick, by processor time.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        wall_ratio: The same by the clock on the wall.
        wall_low: Lower end.
        wall_high: Upper end.
    """

    old_round: int
    new_round: int
    old_steps: int
    new_steps: int
    ratio: float
    low: float
    high: float
    wall_ratio: float
    wall_low: float
    wall_high: float


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """A stage's time against the yardstick, medians over all rounds.

    Attributes:
        name: As in the clock.
        depth: As there.
        before_s: Median before.
        after_s: Median now, scaled to the machine's speed of then by the yardstick.
        location: Where it is defined.
    """

    name: str
    depth: int
    before_s: float
    after_s: float
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord:
    """A recording beside an older one.

    Attributes:
        before: Name of the old pipeline.
        after: Name of the new one.
        samples: Samples of the batch whose counts are compared; None where none is common.
        counts: What differs, by part of the step and stage.
        totals: Measure -> (before, after) of the whole step.
        times: Steps by rounds; empty where they cannot be compared.
        before_s: Median of a step before; None where times cannot be compared.
        after_s: Median of a step now, scaled by the yardstick.
        stages: Stages by time, for the reader.
        memory: Most memory in a step, before and after; empty where that cannot be compared.
        confidence: Of the intervals, 0..1.
        missing: What could not be compared, and why.
    """

    before: str
    after: str
    samples: int | None = None
    counts: tuple[CountChange, ...] = ()
    totals: dict[str, tuple[int, ...]] = field(default_factory=dict)
    times: tuple[TimeChange, ...] = ()
    before_s: float | None = None
    after_s: float | None = None
    stages: tuple[StageTime, ...] = ()
    memory: tuple[int, ...] = ()
    confidence: float = 0.0
    missing: tuple[Unjudged, ...] = ()
