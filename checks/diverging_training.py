"""Training on one batch diverges.

What it looks at:
    The overfit test: whether the loss climbs above where it began and above the baseline, or
    becomes NaN or infinite, within the steps that should have made it fall.
Why it hurts:
    Every step makes the model worse; a NaN in the loss puts NaN into every weight.
A bad run:
    Adam at a learning rate of 10; a loss whose slope is infinite where the prediction is right.
What to do:
    Take the learning rate that was found to work, clip the gradient, or bound the slope of the
    loss, whichever is named.
Limits:
    One batch, in the precision that the model is in; no loss scaling.
"""

import math

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "L02"
NAME = "diverging-training"
NEEDS = ("overfit",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say where the loss left, and what keeps it."""
    record = recording.overfit
    if record is None:
        return Unjudged(name=NAME, reason="no overfit test was made")
    batch = record.batch
    if batch is None or batch.failure is not None:
        return ()
    bad = next((trial for trial in record.trials if trial.verdict == "non-finite"), None)
    trial = bad or (batch if batch.verdict == "diverges" else None)
    if trial is None:
        return ()
    attempts = record.attempts
    works = [
        t
        for t in (attempts.rates if attempts is not None else ())
        if t.verdict in ("learns", "slow") and t.last is not None and t.last < trial.losses[0]
    ]
    works.sort(key=lambda t: (not t.name.startswith("own"), t.last))
    at = next((i for i, x in enumerate(trial.losses) if not math.isfinite(x)), None)
    how = (
        f"the loss is {trial.losses[at]} after {at} steps on {trial.name}"
        if at is not None
        else f"the loss went from {trial.losses[0]:.4g} to {trial.last:.4g} in {trial.steps} steps"
    )
    helps = f" With {works[0].name} it falls to {works[0].last:.4g}." if works else ""
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="optimizer" if works else "loss",
            message=f"With {trial.optimizer} at {trial.learning_rate} {how}.{helps}",
            evidence={
                "verdict": trial.verdict,
                "trial": trial.name,
                "step": at,
                "losses": list(trial.losses[:3]) + list(trial.losses[-3:]),
                "baseline": trial.baseline,
                "learning_rate": trial.learning_rate,
                "works": {t.name: t.last for t in works},
            },
            remedy=(
                f"Set the learning rate to about {works[0].learning_rate:g}."
                if works and works[0].learning_rate
                else "Look at the loss and its gradient at the step that is named."
            ),
        ),
    )
