"""A file of the data set cannot be read.

What it looks at:
    Every file of pulses, to its last row, and the table of DOM positions: footer, columns,
    types, and whether its pages decode.
Why it hurts:
    A training run meets it hours later, at the first event that lies there.
A bad run:
    A download that broke off.
What to do:
    Fetch or write the file again.
Limits:
    Whether what can be read is right is for the other checks.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D02"
NAME = "unreadable-file"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name files that cannot be read."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "file-unreadable": "files cannot be read",
        },
        remedy="Fetch or write the file again.",
    )
