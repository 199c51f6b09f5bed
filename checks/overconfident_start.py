"""The loss begins far above what knowing nothing scores.

What it looks at:
    What `cross_entropy`, `nll_loss` and `binary_cross_entropy_with_logits` make of the scores that
    the model gives as it is found: the cross entropy, without weights, beside that of scores that
    are all alike, and how sure the scores are of the class that they hold for the likeliest.
Why it hurts:
    A softmax that is sure of one class passes hardly a gradient to the others, and where it is
    wrong the first steps do nothing but bring the scores down again.
A bad run:
    Similarities divided by the square of a temperature of 0.01, or by a temperature after it was
    inverted twice; an output layer tied to embeddings drawn with a spread of 1; features a hundred
    times too large.
What to do:
    Draw the last layer smaller, divide by the root of the width, normalise what is compared.
Limits:
    A loss written out by hand is not looked at. Only scores that are sure, to 99 % in half of the
    rows, and wrong at a loss of three times that of knowing nothing; a warning from ten times on.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.squashing import Start

CODE = "L28"
NAME = "overconfident-start"
NEEDS = ("squashing",)

#: Fewer rows may be wrong by chance.
ROWS = 8
#: Probability of the likeliest class in half of the rows.
SURE = 0.99
#: Times the loss of knowing nothing: what is said, and what hurts.
TIMES, MANY = 3.0, 10.0


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the loss, and how sure the scores are."""
    record = recording.squashing
    if record is None:
        return Unjudged(name=NAME, reason="what the loss is handed was not recorded")
    return tuple(
        _finding(start)
        for start in record.starts
        if start.rows >= ROWS and start.sure >= SURE and start.loss >= TIMES * start.uninformed
    )


def _finding(start: Start) -> Finding:
    times = start.loss / start.uninformed
    what = (
        f"the scores of a row spread by {start.spread:.3g}"
        if start.classes > 1
        else f"scores are as large as {start.spread:.3g}"
    )
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning" if times >= MANY else "note",
        stage=start.stage,
        message=(
            f"Before training the cross entropy is {start.loss:.3g}, {times:.2g} times the "
            f"{start.uninformed:.3g} of knowing nothing: {what}, and half of {start.rows:,} rows "
            f"are sure of a class to {100 * start.sure:.4g} % and more."
        ),
        evidence={
            "operation": start.op,
            "loss": start.loss,
            "uninformed": start.uninformed,
            "sure": start.sure,
            "spread": start.spread,
            "rows": start.rows,
            "classes": start.classes,
        },
        remedy="Make scores smaller: draw the last layer smaller, or divide by a larger number.",
        location=Location(file=start.file, line=start.line) if start.file and start.line else None,
    )
