"""Events of the table have no pulses, or pulses no event.

What it looks at:
    The event_ids of the table of events against those of the rows of each file, both ways, and
    the files that the table speaks of.
Why it hurts:
    An event without its pulses is an error or an empty input; pulses of no event are data that
    are paid for and never used.
A bad run:
    A file that was cut short and written again.
What to do:
    Write the table and the files from one list of events.
Limits:
    Events that are in neither cannot be missed.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D06"
NAME = "missing-event"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name events that are only in the table, or only in the files."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    table = of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={"event-missing": "events of the table have no pulses in their file"},
        remedy="Write the table and the files from one list of events.",
    )
    files = of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={"event-unknown": "events in the files of pulses are not in the table"},
        remedy="Write the table and the files from one list of events.",
        severity="warning",
    )
    absent = of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={"file-missing": "files that the table speaks of are not there"},
        remedy="Fetch them, or know that their events are left out.",
        severity="note",
    )
    return (*table, *files, *absent)
