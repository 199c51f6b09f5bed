"""The table of `icediag profile`: what was measured of a stage beside what is projected. Plain."""

from dataclasses import dataclass

from icediag.place import Location
from icediag.projection_record import Bound


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One stage; stages inside of it are part of its numbers.

    Attributes:
        name: As in the clock.
        kind: As there.
        depth: As there.
        calls: How often it runs in a step.
        median_s: Median over repeats.
        spread_s: Half the distance between their quartiles.
        self_s: Median of the time that no stage inside of it took.
        share: Of the step, 0..1.
        peak_bytes: Most memory while it ran; None where that was not counted.
        kept_bytes: What it left allocated.
        forward_s: Projected time on the way forward; None where nothing was projected.
        backward_s: Projected time of the way back through it.
        bound: What it would wait for there, by its longest part.
        operations: Operations that it dispatches, both ways.
        syncs: Of these, blocking reads.
        location: Where it is defined.
    """

    name: str
    kind: str
    depth: int
    calls: int
    median_s: float
    spread_s: float
    self_s: float
    share: float
    peak_bytes: int | None = None
    kept_bytes: int | None = None
    forward_s: float | None = None
    backward_s: float | None = None
    bound: Bound | None = None
    operations: float | None = None
    syncs: float | None = None
    location: Location | None = None
