"""An event without rows, or of one row, fails or spoils its batch.

What it looks at:
    A batch in which one event is cut to no rows, and one in which it is cut to one, in evaluation:
    whether it comes through, whether outputs, loss and gradients are finite, and whether the other
    events are.
Why it hurts:
    One such event in millions stops the run, or turns every weight to NaN.
A bad run:
    A mean over no rows is 0 / 0; the standard deviation of one row, divided by n - 1, as well; a
    softmax over nothing but -inf.
What to do:
    Divide by max(n, 1), give empty events a token of their own, or leave them out of the data set.
Limits:
    Events are cut along the axes whose sizes differ between them. Where no event of the batch
    is that short it is a note; events whose rows are pointed at are only cut to none.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.invariances import SmallCase

from .batch_leak import not_tried

CODE = "I07"
NAME = "small-event"
NEEDS = ("invariances",)


def _what(seen: SmallCase) -> str | None:
    """What goes wrong, in the rest of a sentence; None where nothing does."""
    if seen.failed is not None:
        return f"does not come through the {seen.at}: {seen.failed}"
    if seen.others_nonfinite:
        n = seen.others_nonfinite
        return f"makes {n:,} output{'' if n == 1 else 's'} of the other events NaN or infinite"
    if seen.nonfinite:
        n = seen.nonfinite
        return f"has {n:,} output{' that is' if n == 1 else 's that are'} NaN or infinite" + (
            "" if seen.gradient_finite else ", and with it every step of its batch is lost"
        )
    if not seen.loss_finite or not seen.gradient_finite:
        which = "loss" if not seen.loss_finite else "gradient"
        return f"has finite outputs, and a {which} of its batch that is not finite"
    return None


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say what a small event does."""
    record = recording.invariances
    assert record is not None
    findings = []
    for seen in record.small:
        what = _what(seen)
        if seen.case == "one event" or what is None:
            continue
        hurts = seen.occurs > 0 or (seen.case == "one row" and seen.failed is None)
        severity: Severity = "warning" if hurts or seen.others_nonfinite else "note"
        rows = "without rows" if seen.case == "no rows" else "of one row"
        met = f"{seen.occurs} in the batch at hand" if seen.occurs else "none in the batch at hand"
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity=severity,
                stage=seen.at or "model",
                message=f"An event {rows} {what} ({met}).",
                evidence={
                    "case": seen.case,
                    "occurs": seen.occurs,
                    "failed": seen.failed,
                    "nonfinite": seen.nonfinite,
                    "others_nonfinite": seen.others_nonfinite,
                    "loss_finite": seen.loss_finite,
                    "gradient_finite": seen.gradient_finite,
                },
                remedy=(
                    "Divide by max(n, 1) and give empty events a token, or leave them out."
                    if seen.case == "no rows"
                    else "Divide by n or max(n - 1, 1); a spread of one row is 0."
                ),
                location=seen.location,
            )
        )
    if findings or record.small:
        return tuple(findings)
    return not_tried(record, ("trials", "evaluation", "small events"), NAME) or ()
