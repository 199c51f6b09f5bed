"""Files of the data set differ in their columns.

What it looks at:
    Names, types and order of the columns of every file of pulses, against those that most files
    have.
Why it hurts:
    Code that reads columns by position takes one for another; types that differ round
    differently, and concatenation fails late.
A bad run:
    One file written by another version of a script, with charge as float32 and an index that
    the others lack.
What to do:
    Write all files by one script.
Limits:
    Which of the schemas is the right one cannot be told: the rarer ones are named.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D09"
NAME = "mixed-schema"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name files whose columns differ."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "schema-differs": "files have other columns than most",
        },
        remedy="Write all files with the same columns and types.",
        severity="warning",
    )
