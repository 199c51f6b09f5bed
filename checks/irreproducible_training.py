"""A step of training from the same random numbers does not repeat.

What it looks at:
    Loss and gradients of one batch, twice, in training, from the same seeds of Python, numpy and
    torch, bit for bit.
Why it hurts:
    A run cannot be repeated or resumed exactly, and a fault that shows once does not show again.
A bad run:
    A generator of the model's own that is never seeded; sums by atomic additions on a GPU.
What to do:
    Seed every generator; `torch.use_deterministic_algorithms(True)` while searching for a fault.
Limits:
    A note: many good runs are not reproducible to the last bit.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import not_tried

CODE = "I09"
NAME = "irreproducible-training"
NEEDS = ("invariances",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say by how much two steps differ."""
    record = recording.invariances
    assert record is not None
    seen = record.training
    if seen is None:
        return not_tried(record, ("training",), NAME) or ()
    if not seen.loss and not seen.gradient:
        return ()
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage="model",
            message=(
                f"Two runs of one batch from the same seeds differ by {seen.loss:.3g} in the loss "
                f"and by up to {seen.gradient:.3g} in a gradient of size {seen.scale:.3g}."
            ),
            evidence={"loss": seen.loss, "gradient": seen.gradient, "scale": seen.scale},
            remedy="Seed every generator, and ask for deterministic algorithms while searching.",
        ),
    )
