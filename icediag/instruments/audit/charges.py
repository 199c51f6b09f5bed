"""Charges: those on the detector's grid are counted one by one, all others in bins.

The detector writes charges in steps of 0.05 p.e., 0.025 the first. Which step a charge is on is a
whole number, and to count whole numbers is both quicker than to bin floats and exact.
"""

# P pulses

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icediag.records.data import Distribution

from .histograms import FLOAT_ERROR, QUANTILES, Floats, Moments, quantiles_of

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Values = npt.NDArray[Any]

#: Steps of the grid for each p.e., and steps that are counted: up to 3,276.775 p.e., the
#: competition's largest charge is 2,762.
_STEPS: Final = 20.0
_COUNTED: Final = 2**16
#: A charge is on the grid if it is as near to it as this share of a step: the float64 nearest to a
#: charge of 3,000 p.e. is off by 1e-11 of a step, the float32 nearest to 1 p.e. by 1e-6.
_NEAR: Final = 1e-7


@dataclass(kw_only=True)
class Charges:
    """Charges of pulses, p.e.

    Attributes:
        grid: `(65536,)` pulses on each step of the grid.
        others: The pulses that are on none.
    """

    grid: I64 = field(default_factory=lambda: np.zeros(_COUNTED, np.int64))
    others: Floats = field(default_factory=Floats)

    def add(self, values: Values) -> tuple[int, int]:
        """Take `(P,)` charges in; says how many are not finite, and how many not above 0."""
        if not values.size:
            return 0, 0
        with np.errstate(invalid="ignore", over="ignore"):  # infinities, which are on no grid
            part = values * _STEPS
            step = np.floor(part)
            part -= step
            # Beyond 32 bits this is a negative number.
            whole = step.astype(np.int32)
        # Of NaN no comparison is true; a negative number without its sign is a large one.
        inside = whole.view(np.uint32).max() < _COUNTED
        if inside and _is_middle(part.min()) and _is_middle(part.max()):
            self._count(whole)
            return 0, 0
        on = (np.abs(part - 0.5) <= _NEAR) & (whole >= 0) & (whole < _COUNTED)
        self._count(whole[on])
        return self.others.add(values[~on])

    def merge(self, other: "Charges") -> None:
        """Take in what another has seen."""
        self.grid += other.grid
        self.others.merge(other.others)

    def _count(self, step: npt.NDArray[np.int32]) -> None:
        found = np.bincount(step)
        self.grid[: len(found)] += found

    def points(self) -> tuple[F64, I64]:
        """Rising values, and how many charges are there; those of 0 and below count as 0."""
        low, high = self.others.edges()
        values = np.concatenate([_at(), (low + high) / 2])
        counts = np.concatenate([self.grid, self.others.positive()])
        filled = np.flatnonzero(counts)
        order = filled[np.argsort(values[filled], kind="stable")]
        return values[order], counts[order]

    def distribution(self, name: str, unit: str = "") -> Distribution:
        """What was counted; exact where all is on the grid."""
        moments = _joined(self.others.moments, self.grid)
        if not moments.count:
            return Distribution(name=name, unit=unit, count=0)
        everything = Floats(moments=moments, not_positive=self.others.not_positive)
        everything.counts += self.others.counts
        everything.put(_at(), self.grid)
        values, counts = self.points()
        quantiles = quantiles_of(counts, values)
        return replace(
            everything.distribution(name, unit),
            quantiles=dict(zip(map(str, QUANTILES), quantiles, strict=True)),
            error=FLOAT_ERROR if self.others.moments.count else 0.0,
        )


def _is_middle(part: float) -> bool:
    return bool(abs(part - 0.5) <= _NEAR)


def _at() -> F64:
    """The grid's charges, p.e., each the float64 nearest to its decimal."""
    return np.asarray(np.round((np.arange(_COUNTED) + 0.5) / _STEPS, 3))


def _joined(others: Moments, grid: I64) -> Moments:
    filled = np.flatnonzero(grid)
    if not len(filled):
        return others
    at = _at()
    return Moments(
        count=others.count + int(grid.sum()),
        total=others.total + float(grid @ at),
        squares=others.squares + float(grid @ at**2),
        least=min(others.least, float(at[filled[0]])),
        most=max(others.most, float(at[filled[-1]])),
    )
