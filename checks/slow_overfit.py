"""One batch is learnt slowly.

What it looks at:
    The overfit test: the loss gets below the best constant prediction, or is still falling, but the
    batch is not known by heart when the budget is spent. Other learning rates are tried.
Why it hurts:
    Most models learn a handful of events within a hundred steps; one that does not pays for it in
    every epoch.
A bad run:
    A learning rate of 1e-6; targets of mean 1000 and spread 1 that are not normalised.
What to do:
    Where another learning rate was quicker, take it. Where the loss begins far above the baseline,
    normalise the targets or set the bias of the last layer to their mean.
Limits:
    A note, but for a training that comes nowhere while another learning rate learns the batch: one
    batch tells little about the best learning rate for all.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.overfit import SOME

CODE = "L03"
NAME = "slow-overfit"
NEEDS = ("overfit",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say how far it came, and what was quicker."""
    record = recording.overfit
    if record is None:
        return Unjudged(name=NAME, reason="no overfit test was made")
    batch = record.batch
    if batch is None or batch.verdict != "slow":
        return ()
    attempts = record.attempts
    rates = attempts.rates if attempts is not None else ()
    own = [t for t in rates if t.verdict == "learns" and t.name.startswith("own")]
    plain = attempts.plain if attempts is not None else None
    nowhere = batch.progress is not None and batch.progress < SOME
    better = own[0] if own else None
    if plain is not None and plain.verdict == "learns" and nowhere:
        better = plain
    off = batch.baseline is not None and batch.losses[0] > 3 * abs(batch.baseline)
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning" if nowhere and better is not None else "note",
            stage="train step" if better is plain and plain is not None else "optimizer",
            message=(
                f"After {batch.steps} steps on {batch.events} events the loss is {batch.last:.4g}; "
                f"it began at {batch.losses[0]:.4g}, a constant prediction scores "
                f"{batch.baseline:.4g}."
                + (
                    f" With {better.name} it is {better.last:.4g} after {better.steps} steps."
                    if better is not None
                    else ""
                )
            ),
            evidence={
                "progress": batch.progress,
                "steps": batch.steps,
                "last_loss": batch.last,
                "baseline": batch.baseline,
                "floor": batch.floor,
                "tried": {t.name: t.last for t in rates},
            },
            remedy=(
                f"Try a learning rate of {better.learning_rate:g}."
                if better is not None and better.learning_rate
                else "Bring the targets to mean 0 and spread 1, or start at their mean."
                if off
                else "Train longer, or try other learning rates."
            ),
        ),
    )
