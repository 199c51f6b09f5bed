"""Counts from which quantiles follow, exactly or to a stated error, in memory that does not grow.

Whole numbers are counted one by one. Charges, which may be any float, are counted in bins that are
cut from the bits of a float32: sign, exponent and the first nine bits of the fraction, so that a
bin is 1/512 of its value wide at most. Sketches that keep a sample (KLL, t-digest) take an order
of magnitude more time a value, change from run to run, and cannot tell the last thousandth; these
bins have the same relative error everywhere.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icediag.records.data import Distribution

Values = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

QUANTILES: Final = (0.001, 0.01, 0.05, 0.1587, 0.25, 0.5, 0.75, 0.8413, 0.9, 0.95, 0.99, 0.999)

#: Bits of a float32 that are dropped, and the bins of either sign.
_DROPPED: Final = 14
_HALF: Final = 1 << (31 - _DROPPED)
#: Bins at the end of either sign that hold NaN and infinities, whose exponent is all ones.
_ODD: Final = 1 << (23 - _DROPPED)
#: Half the width of a bin, as a share of the value.
FLOAT_ERROR: Final = 2.0**-10

#: Bins of the histogram that is kept for plots, at most.
_PLOTTED: Final = 120


@dataclass(kw_only=True)
class Moments:
    """Count, mean and spread of values that come in parts."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = np.inf
    most: float = -np.inf

    def add(self, values: Values) -> None:
        """Take values in; all must be finite."""
        if not values.size:
            return
        wide = values.astype(np.float64, copy=False)
        self.count += values.size
        self.total += float(wide.sum())
        # Not np.dot, whose threads would compete with the one that decodes.
        self.squares += float(np.einsum("i,i->", wide, wide))
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))

    def merge(self, other: "Moments") -> None:
        """Take in what another has seen."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)

    @property
    def mean(self) -> float:
        """Their mean; there must be some."""
        return self.total / self.count

    @property
    def std(self) -> float:
        """Their standard deviation; there must be some."""
        return float(np.sqrt(max(self.squares / self.count - self.mean**2, 0.0)))


@dataclass(kw_only=True)
class Counted:
    """Whole numbers, counted one by one within a range; beyond it, all together at its ends.

    Attributes:
        low: The first that is counted alone.
        high: The last.
        counts: `(high - low + 1,)`.
        least: The smallest of all, infinite before there is one.
        most: The largest.
    """

    low: int
    high: int
    counts: I64 = field(init=False)
    least: float = np.inf
    most: float = -np.inf

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.high - self.low + 1, np.int64)

    def add(self, values: Values) -> None:
        """Take values in; floats are rounded down."""
        if not values.size:
            return
        least, most = values.min(), values.max()
        self.least, self.most = min(self.least, float(least)), max(self.most, float(most))
        if least < self.low or most > self.high:
            values = np.clip(values, self.low, self.high)
            least, most = values.min(), values.max()
        if values.dtype.kind == "f":
            values = np.floor(values)
        # From 0 where there are more values than counters: a copy would cost more.
        base = 0 if self.low <= 0 <= least and most < len(values) else int(np.floor(least))
        values = values.astype(np.int64, copy=False)
        found = np.bincount(values - base if base else values)
        at = base - self.low
        self.counts[at : at + len(found)] += found

    def merge(self, other: "Counted") -> None:
        """Take in what another of the same range has seen."""
        if other.least > other.most:
            return
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        low, high = (min(max(end, self.low), self.high) for end in (other.least, other.most))
        part = slice(int(np.floor(low)) - self.low, int(np.floor(high)) - self.low + 1)
        self.counts[part] += other.counts[part]

    @property
    def count(self) -> int:
        """How many there were."""
        return int(self.counts.sum())

    @property
    def moments(self) -> Moments:
        """Mean and spread; of a value beyond the range as if it were at its end."""
        at = np.arange(self.low, self.high + 1, dtype=np.float64)
        found = Moments(count=self.count, least=self.least, most=self.most)
        found.total = float(self.counts @ at)
        found.squares = float(self.counts @ at**2)
        return found

    def distribution(self, name: str, unit: str = "") -> Distribution:
        """What was counted."""
        at = np.arange(self.low, self.high + 1, dtype=np.float64)
        edges = np.append(at, at[-1] + 1)
        return _distribution(name, unit, self.moments, self.counts, at, edges, 0.0)


@dataclass(kw_only=True)
class Floats:
    """Floats of any size, counted in bins of 1/512 of their value.

    Attributes:
        counts: `(2 * 2**17,)`: negative ones first.
        moments: Of those that are finite.
        not_finite: NaN and infinities.
        not_positive: Finite ones that are 0 or below.
    """

    moments: Moments = field(default_factory=Moments)
    not_finite: int = 0
    not_positive: int = 0
    counts: I64 = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(2 * _HALF, np.int64)

    def add(self, values: Values) -> tuple[int, int]:
        """Take values in; says how many of them are not finite, and how many not above 0."""
        single = np.ascontiguousarray(values, dtype=np.float32)
        least, most = (single.min(), single.max()) if single.size else (1.0, 1.0)
        bins = single.view(np.int32) >> _DROPPED
        not_finite = not_positive = 0
        if least > 0 and most < np.inf:  # of NaN neither is true
            found = np.bincount(bins)
            self.counts[_HALF : _HALF + len(found)] += found
            not_positive = int(found[0]) if len(found) else 0
            self.moments.add(values)
        else:
            found = np.bincount(bins + _HALF, minlength=2 * _HALF)
            not_finite = int(found[_HALF - _ODD : _HALF].sum() + found[2 * _HALF - _ODD :].sum())
            not_positive = int(found[: _HALF - _ODD].sum() + found[_HALF])
            self.counts += found
            self.moments.add(values[np.isfinite(values)])
        self.not_finite += not_finite
        self.not_positive += not_positive
        return not_finite, not_positive

    def merge(self, other: "Floats") -> None:
        """Take in what another has seen."""
        if other.moments.count or other.not_finite:
            self.counts += other.counts
        self.moments.merge(other.moments)
        self.not_finite += other.not_finite
        self.not_positive += other.not_positive

    def put(self, values: F64, counts: I64) -> None:
        """Put values above 0 into their bins, each so many times; moments stay as they are."""
        bins = values.astype(np.float32).view(np.int32) >> _DROPPED
        np.add.at(self.counts, bins.astype(np.int64) + _HALF, counts)

    def edges(self) -> tuple[F64, F64]:
        """Lower and upper ends of the bins of positive values."""
        bits = np.arange(_HALF - _ODD, dtype=np.int64) << _DROPPED
        low = bits.astype(np.int32).view(np.float32).astype(np.float64)
        return low, np.append(low[1:], np.finfo(np.float32).max)

    def distribution(self, name: str, unit: str = "") -> Distribution:
        """Of the positive values; those of 0 and below count as 0."""
        low, high = self.edges()
        counts = self.positive()
        return _distribution(
            name,
            unit,
            self.moments,
            counts,
            (low + high) / 2,
            np.append(low, high[-1]),
            FLOAT_ERROR,
            logarithmic=True,
        )

    def positive(self) -> I64:
        """Counts of the bins of `edges`, the first with all that is not above 0."""
        counts = self.counts[_HALF : 2 * _HALF - _ODD].copy()
        counts[0] = self.not_positive
        return counts


def _distribution(
    name: str,
    unit: str,
    moments: Moments,
    counts: I64,
    values: F64,
    edges: F64,
    error: float,
    *,
    logarithmic: bool = False,
) -> Distribution:
    if not moments.count:
        return Distribution(name=name, unit=unit, count=0)
    quantiles = dict(zip(map(str, QUANTILES), quantiles_of(counts, values), strict=True))
    plot_edges, plotted = _thinned(counts, edges, logarithmic)
    return Distribution(
        name=name,
        unit=unit,
        count=moments.count,
        minimum=moments.least,
        maximum=moments.most,
        mean=moments.mean,
        std=moments.std,
        quantiles=quantiles,
        error=error,
        edges=plot_edges,
        counts=plotted,
    )


def quantiles_of(counts: I64, values: F64, wanted: tuple[float, ...] = QUANTILES) -> list[float]:
    """Values at quantiles: the smallest below or at which at least that share lies."""
    rising = np.cumsum(counts)
    if not rising[-1]:
        return [float("nan")] * len(wanted)
    at = np.searchsorted(rising, np.asarray(wanted) * rising[-1], side="left")
    return [float(v) for v in values[np.minimum(at, len(values) - 1)]]


def _thinned(
    counts: I64, edges: F64, logarithmic: bool
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """A histogram of few bins from one of many, over the range where there is something."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return (), ()
    low, high = int(filled[0]), int(filled[-1]) + 1
    if logarithmic or high - low <= _PLOTTED:
        cuts = _distinct(np.linspace(low, high, _PLOTTED + 1).round().astype(int))
    else:
        # Where the lengths of events reach from 1 to 100,000, even bins would show nothing.
        span = edges[low : high + 1]
        long_tail = span[0] >= 0 and span[-1] > 50 * max(span[0], 1.0)
        steps = (
            np.geomspace(max(span[0], 1.0), span[-1], _PLOTTED + 1)
            if long_tail
            else np.linspace(span[0], span[-1], _PLOTTED + 1)
        )
        cuts = _distinct(low + np.searchsorted(span, steps, side="left").clip(max=high - low))
        cuts[0], cuts[-1] = low, high
    sums = np.add.reduceat(counts, cuts[:-1])
    return tuple(float(e) for e in edges[cuts]), tuple(int(c) for c in sums)


def _distinct(rising: I64) -> I64:
    """Each value once. Not by `np.unique`, whose first call imports numpy.ma, for 0.1 s."""
    return rising[np.diff(rising, prepend=rising[0] - 1) > 0]
