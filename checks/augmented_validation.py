"""The validation set draws random numbers.

What it looks at:
    A dozen samples of the validation set, each read twice from other random numbers.
Why it hurts:
    The score moves by chance from one epoch to the next, and is of other events than those that the
    network will meet.
A bad run:
    One data set class with its augmentation always on; a random crop or subsample of pulses.
What to do:
    Switch augmentation off for validation, or draw from the index of the sample.
Limits:
    What collate or the model draws is not seen here. A sampling of points that is part of the
    method is augmentation too.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .validation_overlap import unseen

CODE = "T02"
NAME = "augmented-validation"
NEEDS = ("training_flow",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name a tensor that differs."""
    record = recording.training_flow
    assert record is not None
    if not record.states_validation:
        return Unjudged(name=NAME, reason="the pipeline states no validation set")
    again = record.validation_again
    if again is None:
        return unseen(record, ("validation", "validation, read twice"), NAME) or ()
    if not again.differ:
        return ()
    apart = f", by up to {again.size:.2g} of its size" if again.size < float("inf") else ""
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage="dataset item",
            message=(
                f"{again.differ} of {again.read} validation samples differ when they are read "
                f"again: {again.path or 'the sample'}{apart}."
            ),
            evidence={
                "read": again.read,
                "differ": again.differ,
                "tensor": again.path,
                "size": again.size,
            },
            remedy="Switch augmentation off for validation.",
        ),
    )
