"""Norms and biases decay.

What it looks at:
    The weight decay that the optimizer has for parameters of one axis: biases, scales and
    offsets of norms.
Why it hurts:
    They set a scale or an offset; pulling them to 0 does not make the function simpler, and a
    norm whose scale decays takes the signal with it.
A bad run:
    `AdamW(model.parameters(), weight_decay=0.3)`.
What to do:
    Two groups: matrices decay, parameters of one axis do not.
Limits:
    A habit more than a fault: a note, and only above 0.01, which is AdamW's own default.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "G12"
NAME = "decayed-norms"
NEEDS = ("gradients",)

#: The default of torch's AdamW.
USUAL = 0.01


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say how many decay, and how much."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    thin = [p for p in record.parameters if p.trained and p.axes < 2 and (p.decay or 0.0) > USUAL]
    if not thin:
        return ()
    decay = max(p.decay or 0.0 for p in thin)
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage="optimizer",
            message=(
                f"{len(thin)} biases and norm weights have a weight decay of {decay:g} in "
                f"{record.optimizer}."
            ),
            evidence={"parameters": len(thin), "weight_decay": decay},
            remedy="Give parameters of one axis a group without weight decay.",
        ),
    )
