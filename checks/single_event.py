"""A batch of one event fails, or its outputs lose their axis of events.

What it looks at:
    One event in a batch of its own, in evaluation, through collate, model and loss.
Why it hurts:
    The last batch of an epoch may hold one event, and a prediction is mostly wanted of one. An
    output of shape () beside targets of shape (1,) is broadcast, not compared.
A bad run:
    `output.squeeze()` takes away the axis of events with the one of columns.
What to do:
    Say which axis: `squeeze(-1)`.
Limits:
    Training a batch of one with batch normalisation fails by design and is not looked at.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import named, not_tried

CODE = "I06"
NAME = "single-event"
NEEDS = ("invariances",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the output, or what is raised."""
    record = recording.invariances
    assert record is not None
    seen = next((case for case in record.small if case.case == "one event"), None)
    if seen is None:
        return not_tried(record, ("trials", "evaluation", "small events"), NAME) or ()
    if seen.lacks_axis is None and seen.failed is None:
        return ()
    if seen.lacks_axis is not None:
        message = (
            f"Of one event alone, {named(seen.lacks_axis)} has shape {seen.shape} where "
            f"{seen.expected} is expected"
        )
        message += f", and the {seen.at} fails: {seen.failed}." if seen.failed else "."
        remedy = "Keep the axis of events: squeeze(-1) instead of squeeze()."
    else:
        message = f"A batch of one event does not come through the {seen.at}: {seen.failed}."
        remedy = f"Have the {seen.at} take a batch of one."
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage="model" if seen.lacks_axis is not None or seen.at is None else seen.at,
            message=message,
            evidence={
                "output": seen.lacks_axis,
                "shape": seen.shape,
                "expected": seen.expected,
                "failed": seen.failed,
            },
            remedy=remedy,
            location=seen.location,
        ),
    )
