"""Training steps change nothing.

What it looks at:
    Whether a few training steps, as the user takes them, change any parameter that gets a
    gradient.
Why it hurts:
    The loss then goes up and down with the batches, and looks like one that does not fall.
A bad run:
    A step without `optimizer.step()` or without `backward()`; an optimizer of another copy of
    the model.
What to do:
    Look at the training step, in this order: zero_grad, backward, step.
Limits:
    A learning rate of 0 is a finding of its own. A few steps; a loop that steps once in more
    batches than that is not judged.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "G11"
NAME = "no-optimizer-step"
NEEDS = ("gradients",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say what the steps do not do."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    able = [p for p in record.parameters if p.trained and p.gradient]
    if not record.steps or not able or not all(p.unmoved for p in able):
        return ()
    rates = [step.rate for step in record.steps if step.rate is not None]
    if rates and all(rate == 0 for rate in rates):
        return ()
    backward = any(step.backward for step in record.steps)
    stepped = sum(step.steps for step in record.steps)
    if backward and not stepped and record.own_step is False:
        return ()
    what = (
        "no gradient comes back in it"
        if not backward
        else "its optimizer never steps"
        if not stepped
        else "its optimizer steps, and the weights stay"
    )
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="train step" if record.own_step else "optimizer",
            message=(
                f"{len(record.steps)} training steps left all {len(able)} parameters with a "
                f"gradient bit for bit: {what}."
            ),
            evidence={
                "steps": len(record.steps),
                "optimizer_steps": stepped,
                "backward": backward,
                "parameters": len(able),
                "held": sum(p.held for p in able),
            },
            remedy="Look at the training step: zero_grad, backward, step, on this very model.",
        ),
    )
