"""An event is in the data set twice.

What it looks at:
    The event_id of every row of the table of events, and of every stretch of rows in the files
    of pulses.
Why it hurts:
    It counts double in training; and if one copy is held out, the validation knows it already.
A bad run:
    A file that was copied under a second name.
What to do:
    Remove the copies.
Limits:
    The same pulses under two ids are not found. Ids that lie very far apart do not fit the
    memory allowed; that is said.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D05"
NAME = "repeated-event"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name events that are there twice."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "event-twice": "events are there more than once",
        },
        remedy="Remove the copies.",
    )
