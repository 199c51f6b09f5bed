"""How values are spread, in bins: facts only, for reports to draw."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of the finite values of a tensor, or of one of its columns, in bins of one width.

    Attributes:
        stage: Stage of the flow; of one that ran more than once, its first call.
        role: `in` or `out`.
        path: Which tensor.
        column: Which of its columns; None for all its values together.
        low: Lower end of the first bin.
        high: Upper end of the last bin.
        counts: Values in each bin; those beyond an end are in the bin at that end.
        below: How many are below `low`.
        above: How many are above `high`.
        sampled: How many values were looked at, evenly spread over the tensor.
    """

    stage: str
    role: Literal["in", "out"]
    path: str
    column: int | None = None
    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0
    sampled: int = 0


@dataclass(frozen=True, kw_only=True)
class HistogramsRecord:
    """Histograms of one batch, in the order of the flow.

    Attributes:
        histograms: All of them.
        left_out: Tensors beyond the number that is kept.
    """

    histograms: tuple[Histogram, ...] = ()
    left_out: int = 0
