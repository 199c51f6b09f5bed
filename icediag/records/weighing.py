"""Weighted means that a model takes, as they were recognised from its operations. Plain data."""

from dataclasses import dataclass

from icediag.place import Unjudged


@dataclass(frozen=True, kw_only=True)
class WeighedMean:
    """A sum of weights times values, divided by the sum of the same weights.

    Attributes:
        stage: The stage that was running.
        rows: How many weights there were.
        groups: Means of at least two weights that are not 0.
        negative: Share of the weights that are below 0, 0..1.
        smallest_sum: Of these groups the smallest magnitude of a sum of weights; None if none.
        cancelled: Of these groups the smallest magnitude of the sum, divided by the sum of the
            magnitudes, 0..1: 1 where all weights have one sign; None if there is no group.
        cancelled_groups: How many groups lose nine tenths or more of their weights that way.
        file: Of the user's line that divides, relative.
        line: That line.
    """

    stage: str
    rows: int
    groups: int
    negative: float
    smallest_sum: float | None = None
    cancelled: float | None = None
    cancelled_groups: int = 0
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class WeighingRecord:
    """All weighted means of one batch.

    Attributes:
        means: In the order in which they were taken, each line once.
        not_judged: What could not be looked at.
    """

    means: tuple[WeighedMean, ...] = ()
    not_judged: tuple[Unjudged, ...] = ()
