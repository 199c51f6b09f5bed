"""Positions of events and rows of pulses, for reading many events at once."""

# N events of a data set, B events asked for, P pulses

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def positions(indices: Sequence[int], n: int) -> Int64s:
    """Positions 0..n-1 from positions that may count from the end.

    Args:
        indices: `(B,)` whole numbers.
        n: Number of events of the data set.

    Raises:
        IndexError: A position that there is not.
    """
    asked = np.asarray(indices, np.int64)
    wrong = (asked < -n) | (asked >= n)
    if wrong.any():
        raise IndexError(
            f"index {asked[wrong][0]}: expected -{n} <= index < {n}, the number of events"
        )
    return np.where(asked < 0, asked + n, asked)


def rows_of(first: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Int64s:
    """Rows of some events' pulses, event by event.

    Args:
        first: `(B,)` each event's first row.
        lengths: `(B,)` and how many it has.

    Returns:
        `(P,)` int64. Example: first [3, 9] and lengths [2, 3] give [3, 4, 9, 10, 11].
    """
    counts = np.asarray(lengths, np.int64)
    stops = np.cumsum(counts)
    rows = np.repeat(first - (stops - counts), counts)
    rows += np.arange(rows.size)
    return rows
