"""Gradients are always clipped.

What it looks at:
    Real training steps: the gradient that the optimizer gets, held against what came back since
    its last step; and the clipping functions of torch, called by the step.
Why it hurts:
    Clipping is for outliers. Where it cuts every step to a hundredth, it sets the step size and
    throws away what the loss says about it.
A bad run:
    `clip_grad_norm_(parameters, 1e-3)` where the norm is 10.
What to do:
    Clip a little above the usual norm, or lower the scale of the loss.
Limits:
    A few steps from the weights as they are; a gradient is large at the beginning. Clipped to
    between a thousandth and all of it is a note.
"""

import statistics

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "G09"
NAME = "clipping-always-on"
NEEDS = ("gradients",)

#: Of the gradient, what is left by clipping that hurts; and where each value is scaled by its own
#: history, so that a factor is of no consequence until it meets rounding and epsilon.
LITTLE = 1e-3
LITTLE_ADAPTIVE = 1e-4


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say what is left of the gradient."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    left = []
    for step in record.steps:
        if step.norm is not None and step.limit is not None and step.norm > 0:
            left.append(min(1.0, step.limit / step.norm))
        elif step.scale is not None and step.since is not None and step.since < 1e-3:
            left.append(step.scale)
    # A loop may add up gradients over several calls, and clip when its optimizer steps.
    stepping = sum(bool(step.steps) for step in record.steps) or len(record.steps)
    if len(left) < 2 or len(left) < stepping or max(left) >= 0.999:
        return ()
    middle = statistics.median(left)
    little = LITTLE_ADAPTIVE if record.adaptive else LITTLE
    norms = [step.norm for step in record.steps if step.norm is not None]
    limits = [step.limit for step in record.steps if step.limit is not None]
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning" if middle < little else "note",
            stage="train step",
            message=(
                f"Each of {len(left)} steps is clipped: {middle:.2g} of the gradient is left "
                "(median)"
                + (f", its norm {statistics.median(norms):.3g}" if norms else "")
                + (f" and the limit {limits[-1]:.3g}." if limits else ".")
            ),
            evidence={"left": left, "norms": norms, "limit": limits[-1] if limits else None},
            remedy="Clip above the usual norm of the gradient.",
        ),
    )
