"""A prediction reads the very value that it is to predict.

What it looks at:
    Sequences that model and loss both read, the loss some places later than the prediction, so that
    what is predicted is what comes next. One value at a time is replaced by another: in the loss
    alone, which shows the prediction that is held against it, and in the model alone, whose
    prediction at that place must not move.
Why it hurts:
    The loss falls to next to nothing, since the answer only has to be copied. Where the model is
    used, what comes next is not there, and it has learnt nothing.
A bad run:
    A causal mask that is forgotten, inverted, or begins one place late (`triu(diagonal=2)`); a
    bidirectional recurrent net; a normalisation over the whole sequence; inputs of a decoder that
    are not moved by one place.
What to do:
    Mask what comes later, with a True or -inf at every place after a query's own.
Limits:
    Sequences along the second axis of a tensor, and predictions of as many places or a few less.
    Autoencoders, which are to give what they are given, are not judged; nor is a loss that the
    model computes itself.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import named
from .loss_ignores_targets import missing

CODE = "L29"
NAME = "target-in-sight"
NEEDS = ("loss_probe",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say how many places read ahead."""
    record = recording.loss_probe
    assert record is not None
    seen = record.foresight
    if seen is None:
        return missing(record, ("loss", "predictions of what comes next"), NAME) or ()
    if not seen.leaking:
        return ()
    places = "place" if seen.lag == 1 else "places"
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="model",
            message=(
                f"{record.name} holds each prediction against what stands {seen.lag} {places} "
                f"later in {seen.tensor or 'the batch'}, and the model reads it: in "
                f"{seen.leaking} of {seen.tried} places tried, {named(seen.output)} moves with the "
                f"value that it is to predict, by up to {seen.size:.2g} of its size."
            ),
            evidence={
                "tensor": seen.tensor,
                "output": seen.output,
                "lag": seen.lag,
                "tried": seen.tried,
                "leaking": seen.leaking,
                "size": seen.size,
            },
            remedy="Mask everything later than a prediction's own place, and move inputs by one.",
        ),
    )
