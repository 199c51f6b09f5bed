"""Positions of events and rows of pulses, for reading many events at once."""

# N events of a data set, B events asked for, P pulses

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

# Events whose ids are looked up at a time: about 3 million rows, 75 MB.
_EVENTS_AT_A_TIME = 2**14


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Rows of a batch that lie in one row group.

    Attributes:
        source: `(n,)` rows, counted from the group's first.
        target: `(n,)` rows of the batch that they become.
    """

    source: Int64s
    target: Int64s


def pieces(
    bounds: Sequence[int], first: Int64s, lengths: Int64s, target: Int64s
) -> Iterator[tuple[int, Piece]]:
    """Cut the pulses of some events of a file into those of each row group.

    Args:
        bounds: First row of each group, and the number of rows last.
        first: `(B,)` first row of each event, all of this file.
        lengths: `(B,)` and how many it has, at least one.
        target: `(B,)` row of the batch that its first becomes.

    Yields:
        Number of a group, ascending, and its piece, where it holds any row.
    """
    if len(bounds) == 2:  # one group, as prepared files have: nothing to cut
        yield 0, Piece(source=rows_of(first, lengths), target=rows_of(target, lengths))
        return
    last = first + lengths
    ends = np.asarray(bounds)
    # The last group that starts at an event's first row or before, and that of its last row.
    low = np.searchsorted(ends, first, side="right") - 1
    high = np.searchsorted(ends, last - 1, side="right") - 1
    for group in np.unique(rows_of(low, high - low + 1)).tolist():
        here = np.flatnonzero((low <= group) & (group <= high))
        begin = first[here].clip(min=bounds[group])
        count = last[here].clip(max=bounds[group + 1]) - begin
        # Groups without rows may lie between those of a long event.
        filled = count > 0
        here, begin, count = here[filled], begin[filled], count[filled]
        source = rows_of(begin - bounds[group], count)
        if source.size:
            yield (
                group,
                Piece(source=source, target=rows_of(target[here] + begin - first[here], count)),
            )


def ends_beyond(
    first: Int64s, lengths: npt.NDArray[np.integer], n_rows: int
) -> tuple[int, int] | None:
    """The first event that ends beyond a file's rows: which, and where; None where all fit."""
    ends = first + lengths
    beyond = ends > n_rows
    if not beyond.any():
        return None
    at = int(np.argmax(beyond))
    return at, int(ends[at])


def expected_ids(
    first: Int64s, lengths: npt.NDArray[np.integer], event_ids: Int64s, n_rows: int
) -> Iterator[tuple[Int64s, Int64s]]:
    """Which event each row of a row group should belong to, some thousand events at a time.

    Args:
        first: `(events,)` each event's first row, counted from the group's first; may lie outside.
        lengths: `(events,)` and how many it has.
        event_ids: `(events,)` their numbers.
        n_rows: Rows of the group.

    Yields:
        Rows, and the event_id of each.
    """
    inside = np.flatnonzero((first < n_rows) & (first + lengths > 0))
    for block in range(0, len(inside), _EVENTS_AT_A_TIME):
        some = inside[block : block + _EVENTS_AT_A_TIME]
        begin = first[some].clip(min=0)
        count = (first[some] + lengths[some]).clip(max=n_rows) - begin
        yield rows_of(begin, count), np.repeat(event_ids[some], count)
