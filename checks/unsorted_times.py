"""Pulses of an event are not in the order of their times.

What it looks at:
    Neighbouring rows of each event.
Why it hurts:
    Where code takes the first row for the first pulse, truncates an event to its first rows, or
    takes differences of neighbours, it is silently wrong.
A bad run:
    Files that were merged from two detectors' streams.
What to do:
    Sort each event by time once, where the data are made, or do not rely on it.
Limits:
    Whether your code relies on it cannot be seen here: it is a note.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D04"
NAME = "unsorted-times"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name events whose times fall."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "times-unsorted": "events have times that fall",
        },
        remedy="Sort pulses by time within each event, where code relies on it.",
        severity="note",
    )
