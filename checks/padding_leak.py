"""The output of an event depends on how far it is padded.

What it looks at:
    Each event alone, twice in a batch and beside the longest event, in evaluation.
    Where neighbours of other values move nothing (`batch-leak` is silent), a difference is of the
    padding. It is held against rounding, by a copy of the model in float64.
Why it hurts:
    An event's prediction changes with the length of its neighbours; what was trained in buckets by
    length scores otherwise in a batch of mixed lengths.
A bad run:
    A mean over the padded axis divided by the padded length, a maximum that sees the zeros of the
    padding, attention without a padding mask, a recurrent net read at the last padded step.
What to do:
    Mask the padding where rows are pooled or attended to, and divide by the true length.
Limits:
    As for `batch-leak`. A convolution over a padded axis sees the padding beside the last rows by
    design; it is named all the same, because the prediction does depend on it.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import PARTS, begins, broken, evidence_of, not_tried

CODE = "I02"
NAME = "padding-leak"
NEEDS = ("invariances",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the output, the worst event, and where it begins."""
    record = recording.invariances
    assert record is not None
    missing = not_tried(record, (*PARTS, "company"), NAME)
    if missing is not None:
        return missing
    found = broken(record, "padding")
    # A consequence of events that read each other.
    if not found or broken(record, "content", "gradient", "batch size"):
        return ()
    worst = found[0]
    assert worst.native is not None
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=worst.stage or "model",
            message=(
                f"{begins(worst.output)} of event {worst.event} is {worst.native:.3g} apart alone "
                f"and beside the longest one (its largest value is {worst.scale:.3g}); rounding "
                f"explains {worst.rounding:.2g}, and {worst.moved} of {worst.events} events move."
            ),
            evidence=evidence_of(worst),
            remedy="Mask the padding where this stage pools or attends; divide by true lengths.",
            location=worst.location,
        ),
    )
