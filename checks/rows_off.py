"""The table of events names other rows than the event's own.

What it looks at:
    First and last row of each event as the table states them, against where the file of pulses
    has its event_id; without such a column, against the rows of its neighbours.
Why it hurts:
    Each event gets pulses of the next one, or loses its own last; nothing fails, and the angles
    belong to other pulses.
A bad run:
    last_pulse_index written as one after the last row, where the layout's is the last row
    itself.
What to do:
    Write first and last row anew; the last row is inclusive.
Limits:
    Without a column event_id, rows that are shifted for a whole file by events of equal lengths
    look right.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D07"
NAME = "rows-off"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name rows that do not fit."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "rows-exclusive": "last rows are one too far, as if counted exclusively",
            "rows-disagree": "events have other rows in the table than in the file",
        },
        remedy="Write first_pulse_index and last_pulse_index anew; the last row is inclusive.",
    )
