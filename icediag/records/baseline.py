"""How well classical fits, and a trained network, find directions."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ErrorRow:
    """Angular errors of one method on one group of events.

    Attributes:
        method: Such as "LineFit".
        group: Such as "all", "kind cascade" or "energy 100 .. 1,000 GeV".
        events: How many.
        mean: rad, the competition's metric.
        median: rad.
        quantiles: Quantile (0..1, as text: JSON keys are text) -> rad.
        ratio: The mean divided by improved LineFit's of the same events; None where there is none.
    """

    method: str
    group: str
    events: int
    mean: float
    median: float
    quantiles: dict[str, float] = field(default_factory=dict)
    ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineRecord:
    """Errors of all methods on the same events.

    Attributes:
        name: Of the data set.
        events: How many were looked at.
        there: How many there are; None where that is not known.
        held_out: Whether they are events that the network was not trained on; None without one.
        rows: By method, and within it by group.
        seconds: What each method took.
        version: Of this format.
    """

    name: str
    events: int
    there: int | None = None
    held_out: bool | None = None
    rows: tuple[ErrorRow, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    version: int = 1
