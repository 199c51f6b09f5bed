"""Raw column: a column of numbers, alone and by groups, and what is asked of it again and again.

Each answer is worked out once: raw columns are held against everything that a batch meets.
"""

# N rows, G groups, M of the rows, F things that may be added

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Fewer distinct values than this fit too many maps.
DISTINCT = 5
#: Rows on which most candidates are turned down before all rows are looked at.
SCREEN = 256
#: What people add to the argument of a logarithm.
FLOORS = (0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)


def distinct(x: F64) -> bool:
    """Whether a column has enough different values to tell maps apart."""
    return np.unique(x[: 8 * SCREEN]).size >= DISTINCT or np.unique(x).size >= DISTINCT


@dataclass(eq=False)
class Grouped:
    """A column and the groups of its rows, and what is asked of both again and again.

    Attributes:
        values: `(N,)`.
        group: `(N,)` number of each row's group, from 0.
    """

    values: F64
    group: I64

    @cached_property
    def counts(self) -> I64:
        """`(G,)` rows of each group, 1 of one that has none."""
        return np.bincount(self.group).clip(min=1)

    @cached_property
    def apart(self) -> F64:
        """`(N,)` values without the mean of their group."""
        means = np.bincount(self.group, self.values) / self.counts
        apart: F64 = self.values - means[self.group]
        return apart

    @cached_property
    def varies(self) -> bool:
        """Whether enough rows, in enough groups, differ: where nothing does, any map fits."""
        moving = np.abs(self.apart) > 1e-9 * max(1.0, float(np.abs(self.values).max()))
        return int(moving.sum()) >= 4 * DISTINCT and np.unique(self.group[moving]).size >= 3

    @cached_property
    def square(self) -> float:
        """Sum of the squares of `apart`."""
        return float(self.apart @ self.apart)

    @cached_property
    def squares(self) -> F64:
        """`(G,)` the same of each group."""
        return np.asarray(np.bincount(self.group, self.apart * self.apart), np.float64)

    @cached_property
    def many(self) -> npt.NDArray[np.bool_]:
        """`(G,)` whether it has three rows or more: through two points there is always a line."""
        return (self.counts >= 3) & (self.squares > 0)

    @cached_property
    def first(self) -> I64:
        """All rows of the first few of those groups."""
        rows = np.flatnonzero(self.many[self.group])
        return np.flatnonzero(np.isin(self.group, self.group[rows[:SCREEN]]))


@dataclass(eq=False)
class Column:
    """A column of numbers, and what is asked of it again and again.

    Attributes:
        values: `(N,)`.
    """

    values: F64

    @cached_property
    def distinct(self) -> bool:
        """Whether it has enough different values to tell maps apart."""
        return distinct(self.values)

    @cached_property
    def usable(self) -> bool:
        """Whether all of it is finite, and not all the same."""
        x = self.values
        return x.size > 0 and bool(np.isfinite(x).all()) and x.min() != x.max()

    @cached_property
    def few(self) -> I64:
        """Rows on which candidates are turned down: the ends of the range, and some between."""
        between = np.arange(0, self.values.size, max(1, self.values.size // SCREEN))
        return np.array([self.values.argmin(), self.values.argmax(), *between])

    @cached_property
    def few_values(self) -> F64:
        """`(1, M)` values of those rows."""
        return self.values[self.few][None]

    @cached_property
    def few_logarithms(self) -> tuple[tuple[float, ...], F64]:
        """What may be added to the argument of a logarithm, and `(F, M)` logarithms of few rows."""
        lowest = self.few_values[0, 0]
        floors = tuple(floor for floor in FLOORS if lowest >= 0 and lowest + floor > 0)
        return floors, np.log10(self.few_values + np.array(floors)[:, None])

    @cached_property
    def logarithms(self) -> dict[float, F64]:
        """By what is added to the argument, where that leaves no pole; made when asked for."""
        return {}

    def logarithm(self, floor: float) -> F64:
        """log10(values + floor)."""
        if floor not in self.logarithms:
            self.logarithms[floor] = np.log10(self.values + floor)
        return self.logarithms[floor]

    @cached_property
    def largest(self) -> float:
        """Largest size of a value."""
        return float(np.abs(self.values).max())

    def grouped(self, group: I64) -> Grouped:
        """The column by groups."""
        if id(group) not in self._grouped:
            self._grouped[id(group)] = Grouped(self.values, group)
        return self._grouped[id(group)]

    @cached_property
    def _grouped(self) -> dict[int, Grouped]:
        return {}

    def taken(self, index: I64) -> "Column":
        """The column in another order of rows."""
        if id(index) not in self._taken:
            self._taken[id(index)] = (index, Column(self.values[index]))
        return self._taken[id(index)][1]

    @cached_property
    def _taken(self) -> dict[int, tuple[I64, "Column"]]:
        return {}
