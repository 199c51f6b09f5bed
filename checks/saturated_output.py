"""A bounded output is saturated.

What it looks at:
    Columns of `Pipeline.outputs` that a squashing or clamping operation bounds: the share of the
    batch's values within a thousandth of an end of the range, where its slope is next to nothing.
    Where targets are found, only values that are also far from theirs count.
Why it hurts:
    No gradient comes through: a wrong output stays wrong.
A bad run:
    tanh after a linear layer whose outputs have a spread of 20; a clamp that most values hit.
What to do:
    Scale what goes into the bounding function: a normalisation or smaller weights before it. Or
    predict a vector, whose direction does not saturate.
Limits:
    One batch, in evaluation mode. Shares such as a softmax's are not looked at, and without targets
    neither are domains from 0 to 1, whose ends are what a sure classifier gives.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.bounds import OutputBounds

CODE = "B02"
NEEDS = ("bounds",)
NAME = "saturated-output"

#: Above this share of values that are saturated and wrong.
WRONG = 0.05
#: Above this share of saturated values where targets are unknown.
UNKNOWN = 0.5


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the outputs that are stuck at an end of their range."""
    if recording.bounds is None:
        return Unjudged(name=NAME, reason="bounds were not recorded")
    return tuple(_finding(output) for output in recording.bounds.outputs if _stuck(output))


def _stuck(output: OutputBounds) -> bool:
    if output.saturated is None:
        return False
    if output.saturated_wrong is not None:
        return output.saturated_wrong > WRONG
    probability = (output.domain_low, output.domain_high) == (0, 1)
    return output.saturated > UNKNOWN and not probability


def _finding(output: OutputBounds) -> Finding:
    assert output.saturated is not None and output.last is not None
    place = output.last.place
    wrong = ""
    if output.saturated_wrong is not None:
        wrong = f", {output.saturated_wrong:.0%} of all while far from their targets"
    located = place.file is not None and place.line is not None
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=place.stage,
        message=(
            f"{output.saturated:.0%} of the values of {output.column} are within a thousandth of "
            f"an end of [{output.reach_low:.4g}, {output.reach_high:.4g}]{wrong}: "
            f"{place.op.removeprefix('aten::')} passes no gradient there."
        ),
        evidence={
            "column": output.column,
            "saturated": output.saturated,
            "saturated_wrong": output.saturated_wrong,
            "attained": [output.attained_low, output.attained_high],
        },
        remedy="Scale down what goes into the bounding function, or predict a vector.",
        location=Location(file=str(place.file), line=int(place.line or 0)) if located else None,
    )
