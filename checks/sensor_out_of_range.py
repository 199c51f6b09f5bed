"""A sensor_id names no DOM.

What it looks at:
    Every sensor_id: 0 to 5,159, 86 strings of 60 DOMs.
Why it hurts:
    It indexes a table of positions: past the end it is an error in the middle of a run, below 0
    it silently takes a DOM from the end.
A bad run:
    Ids that count from 1: 5,160 appears and 0 never does.
What to do:
    Map ids to 0 to 5,159 where the data are made.
Limits:
    An id in range that names another DOM than it should is not found.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D03"
NAME = "sensor-out-of-range"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name sensor ids that are no DOM's."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "sensor-out-of-range": "sensor ids name no DOM",
        },
        remedy="Map ids to 0..5159 where the data are made.",
    )
