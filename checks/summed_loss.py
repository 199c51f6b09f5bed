"""The loss grows with the batch size.

What it looks at:
    The loss of a batch that holds each sample twice, over that of a batch that holds each once.
Why it hurts:
    The learning rate, a limit on the gradient's norm and the printed loss mean something else with
    each batch size, and the last, smaller batch of an epoch counts for less.
A bad run:
    cross_entropy(logits, labels, reduction="sum")
What to do:
    Take the mean over samples, or keep the sum and scale learning rate and clipping with it.
Limits:
    A note: a sum is no fault by itself. Optimizers like Adam divide a common factor out.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .loss_ignores_targets import missing

CODE = "L24"
NAME = "summed-loss"
NEEDS = ("loss_probe",)

#: How near to 2 the ratio is of a plain sum.
NEAR = 0.01


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Compare each sample twice with each once."""
    record = recording.loss_probe
    assert record is not None
    if record.doubled is None:
        return missing(record, ("loss", "batch of each sample twice", "dataset item"), NAME) or ()
    if abs(record.doubled - 2) > NEAR or (record.targets is not None and record.targets.coupled):
        return ()
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage="loss",
            message=(
                f"{record.subject} of {2 * record.samples} samples is {record.doubled:.4g} times "
                f"that of the same {record.samples} once: it is a sum over samples."
            ),
            evidence={"ratio": record.doubled, "samples": record.samples},
            remedy="Take the mean over samples.",
            location=record.location,
        ),
    )
