"""The learning rate is zero or absurd.

What it looks at:
    The learning rate of the optimizer over a few real steps, and, for optimizers that scale
    each value by its own history (Adam and its kin), what it makes of the weights: their update
    is the learning rate, whatever the loss is.
Why it hurts:
    At 0 nothing is learnt, at 1e-9 nothing that float32 can hold; at 10 the first step throws
    the weights away.
A bad run:
    Adam at a learning rate of 10; a scheduler that was stepped to 0 before the first epoch;
    1e-9 for 1e-3.
What to do:
    Take a learning rate at which a step is about 1e-3 of the weights: 1e-3 or 3e-4 for Adam.
Limits:
    Rates that rise from step to step are a warm-up and not judged from below.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.gradients import GradientsRecord

from .update_ratio import consequence, out_of_range, warms_up

CODE = "G08"
NAME = "learning-rate"
NEEDS = ("gradients",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say what the rate is and what it does."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    rates = [step.rate for step in record.steps if step.rate is not None]
    if not rates:
        return ()
    if all(rate == 0 for rate in rates):
        return (
            _finding(
                record,
                "error",
                f"The learning rate is 0 in all of {len(rates)} steps: nothing is learnt.",
                {"learning_rate": 0.0, "steps": len(rates)},
            ),
        )
    found = out_of_range(record)
    if found is None or not record.adaptive or (found[0] == "small" and warms_up(record)):
        return ()
    how, ratio, weights = found
    lost = max(p.lost for p in weights)
    return (
        _finding(
            record,
            "warning",
            f"{record.optimizer} at {rates[-1]} changes {len(weights)} weight matrices by "
            f"{ratio:.2g} of their size in one step (median){consequence(how, lost)}",
            {"learning_rate": rates[-1], "ratio": ratio, "weights": len(weights), "lost": lost},
        ),
    )


def _finding(
    record: GradientsRecord, severity: Severity, message: str, evidence: dict[str, float]
) -> Finding:
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage="optimizer",
        message=message,
        evidence=evidence | {"optimizer": record.optimizer},
        remedy="Take a learning rate at which a step is about 1e-3 of the weights.",
    )
