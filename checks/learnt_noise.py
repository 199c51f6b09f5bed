"""What was learnt by heart is random numbers, not events.

What it looks at:
    The overfit test, where the model or the loss draws random numbers: every step draws the same,
    so that steps differ by the weights alone. In the end the loss is taken with others, a few
    times, and held against what the best constant prediction scores.
Why it hurts:
    Noise that stays the same tells events apart as well as their inputs do. A decoder that never
    hears of the events can learn a batch by it, and nothing else.
A bad run:
    A variational autoencoder whose code is detached, or whose divergence outweighs all else.
What to do:
    Look at what the noise is added to: does its mean follow the events, and is it larger?
Limits:
    A note: where predicting the noise is the task, as in diffusion, it is so by design.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.overfit import SOME

CODE = "L05"
NAME = "learnt-noise"
NEEDS = ("overfit",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Hold the loss with other random numbers against the baseline."""
    record = recording.overfit
    batch = record.batch if record is not None else None
    if batch is None:
        return Unjudged(name=NAME, reason="no batch was trained on")
    progress, baseline, floor = batch.progress, batch.baseline, batch.floor
    if not batch.redrawn or progress is None or baseline is None or floor is None:
        return ()
    least = min(batch.redrawn)
    if progress < SOME or least < baseline + SOME * (baseline - floor):
        return ()
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage="model",
            message=(
                f"After {batch.steps} steps on {batch.events} events the loss is {batch.last:.4g} "
                f"with the random numbers that every step drew, and {least:.4g} or more with "
                f"{len(batch.redrawn)} others, above the {baseline:.4g} of a constant prediction: "
                "what was learnt is those numbers."
            ),
            evidence={
                "loss": batch.last,
                "with_others": batch.redrawn,
                "baseline": baseline,
                "events": batch.events,
            },
            remedy="Look at what noise is added to: whether it follows the events, and is larger.",
        ),
    )
