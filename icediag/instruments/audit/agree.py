"""Whether the table of events and the files of pulses agree, and whether its angles can be true."""

import numpy as np
import numpy.typing as npt

from icediag.records.data import DataFault

from .table import MetaRows
from .tally import ANGLE_BINS, FileTally, Tally

I64 = npt.NDArray[np.int64]

META = "train_meta.parquet"
#: Angles may pass their ends by this much, rad: 2 pi as float32 is 1.7e-7 above 2 pi.
_TOLERANCE = 1e-6
#: Above this share of zenith angles beyond pi, all within 180, they are degrees: of directions all
#: over the sky 98 % are.
_DEGREES = 0.5
#: Above this share of events whose last row is one too far, the table counts it exclusively.
_EXCLUSIVE = 0.9


def angles(rows: MetaRows, tally: Tally, of_file: FileTally) -> list[DataFault]:
    """Count the truth of some events, and find what is no direction."""
    found = []
    degrees = _in_degrees(rows)
    for column, end, word in (("azimuth", 2 * np.pi, "2 pi"), ("zenith", np.pi, "pi")):
        value = getattr(rows, column)
        good = (value >= -_TOLERANCE) & (value <= end + _TOLERANCE)  # of NaN neither is true
        inside = value[good]
        getattr(tally, column).add(
            np.clip(inside / end * ANGLE_BINS, 0, ANGLE_BINS - 1).astype(int)
        )
        getattr(tally, f"{column}_moments").add(inside)
        of_file.compare(column, inside)
        bad = int((~good).sum())
        if bad:
            at = int(np.argmin(good))
            found.append(
                DataFault(
                    fault="truth-in-degrees" if degrees else "truth-out-of-domain",
                    file=META,
                    column=column,
                    count=bad,
                    of=len(rows),
                    row=int(rows.row[at]),
                    example=f"{value[at]:.6g}",
                    expected=f"an angle in [0, {word}] rad",
                )
            )
    return found


def _in_degrees(rows: MetaRows) -> bool:
    zenith, azimuth = rows.zenith, rows.azimuth
    known = np.isfinite(zenith) & np.isfinite(azimuth)
    if not known.any():
        return False
    zenith, azimuth = zenith[known], azimuth[known]
    within = zenith.min() >= 0 and zenith.max() <= 180 and azimuth.min() >= -180
    return bool(within and azimuth.max() <= 360 and (zenith > np.pi).mean() > _DEGREES)


def agree(
    name: str, of_file: FileTally, rows: MetaRows, n_rows: int, *, own: bool
) -> list[DataFault]:
    """Compare the events of a file with its rows in the table.

    Args:
        name: Of the file.
        of_file: What was seen of it.
        rows: Of the table.
        n_rows: Of the file.
        own: Whether the file has a column event_id.
    """
    if not of_file.runs:
        ids = start = length = np.empty(0, np.int64)
    else:
        ids, start, length = (
            np.concatenate([getattr(run, part) for run in of_file.runs])
            for part in ("event_id", "start", "length")
        )
    if not own:
        return _by_rows(name, rows, n_rows)
    order = np.argsort(ids, kind="stable")
    ids, start, length = ids[order], start[order], length[order]
    found = []
    twice = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    if len(twice):
        again = int(twice[0])
        found.append(
            DataFault(
                fault="event-twice",
                file=name,
                column="event_id",
                count=len(twice),
                of=len(ids),
                row=int(start[again]),
                example=f"event {ids[again]} from row {start[again - 1]:,} and again",
                expected="the rows of an event one after the other",
            )
        )
    at = np.searchsorted(ids, rows.event_id).clip(max=max(len(ids) - 1, 0))
    known = ids[at] == rows.event_id if len(ids) else np.zeros(len(rows), bool)
    missing = ~known & (rows.last >= rows.first)
    if missing.any():
        which = int(np.argmax(missing))
        found.append(
            DataFault(
                fault="event-missing",
                file=name,
                column="event_id",
                count=int(missing.sum()),
                of=len(rows),
                row=int(rows.row[which]),
                example=f"event {rows.event_id[which]} of the table has no row here",
                expected=f"rows {rows.first[which]:,} to {rows.last[which]:,}",
            )
        )
    unknown = ~np.isin(ids, rows.event_id)
    if unknown.any():
        which = int(np.argmax(unknown))
        found.append(
            DataFault(
                fault="event-unknown",
                file=name,
                column="event_id",
                count=int(np.unique(ids[unknown]).size),
                of=len(ids),
                row=int(start[which]),
                example=f"event {ids[which]} is not in the table",
                expected="a row of the table for each event",
            )
        )
    # Rows of events that are there once, and of none that starts where another is.
    once = np.ones(len(ids), bool)
    once[twice] = once[twice - 1] = False
    use = np.flatnonzero(known & once[at]) if len(ids) else np.empty(0, np.int64)
    at = at[use]
    found.extend(_rows_fault(name, rows.take(use), start[at], start[at] + length[at] - 1))
    return found


def _rows_fault(name: str, rows: MetaRows, first: I64, last: I64) -> list[DataFault]:
    """Where the table says other rows than the file."""
    off = (rows.first != first) | (rows.last != last)
    if not off.any():
        return []
    exclusive = (rows.first == first) & (rows.last == last + 1)
    which = int(np.argmax(off))
    kind = "rows-exclusive" if exclusive.mean() > _EXCLUSIVE else "rows-disagree"
    return [
        DataFault(
            fault="rows-exclusive" if kind == "rows-exclusive" else "rows-disagree",
            file=META,
            column="last_pulse_index" if rows.first[which] == first[which] else "first_pulse_index",
            count=int(off.sum()),
            of=len(rows),
            row=int(rows.row[which]),
            example=f"rows {rows.first[which]:,} to {rows.last[which]:,}",
            expected=f"rows {first[which]:,} to {last[which]:,}, where {name} has event "
            f"{rows.event_id[which]}",
        )
    ]


def _by_rows(name: str, rows: MetaRows, n_rows: int) -> list[DataFault]:
    """The same where the file has no column event_id: rows must follow each other."""
    order = np.argsort(rows.first, kind="stable")
    rows = rows.take(order)
    rows = rows.take(rows.last >= rows.first)
    if not len(rows):
        return []
    upto = np.append(rows.first[1:], n_rows) - 1
    off, exclusive = rows.last != upto, rows.last == upto + 1
    if not off.any():
        return []
    gap = rows.last < upto
    if (off == gap).all() and (upto - rows.last == 1).mean() <= _EXCLUSIVE:
        # A table of some of the events is none the worse; but these rows are never seen.
        which = int(np.argmax(gap))
        return [
            DataFault(
                fault="event-unknown",
                file=name,
                count=int(gap.sum()),
                of=len(rows),
                row=int(rows.last[which]) + 1,
                example=f"rows {rows.last[which] + 1:,} to {upto[which]:,} are of no event",
                expected="a row of the table for each event",
            )
        ]
    which = int(np.argmax(off))
    kind = "rows-exclusive" if exclusive.mean() > _EXCLUSIVE else "rows-disagree"
    return [
        DataFault(
            fault="rows-exclusive" if kind == "rows-exclusive" else "rows-disagree",
            file=META,
            column="last_pulse_index",
            count=int(off.sum()),
            of=len(rows),
            row=int(rows.row[which]),
            example=f"rows {rows.first[which]:,} to {rows.last[which]:,}",
            expected=f"row {upto[which]:,} last: the next event of {name}, or its end, follows",
        )
    ]
