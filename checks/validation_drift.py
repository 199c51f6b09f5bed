"""Validation and training samples are distributed differently.

What it looks at:
    The mean of each column of each sample, over 256 samples from all over each of the two sets.
Why it hurts:
    The score is of other events than those trained on; or one of the sets is prepared otherwise,
    with other units or another cut.
A bad run:
    Validation events from the last file, which is of another energy; targets in degrees there.
What to do:
    Draw both from the same events, and prepare them by the same code.
Limits:
    A note: another distribution may be meant. Means that differ by less than half a spread, or by
    less than six standard errors, are passed over.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.training import Drift

from .validation_overlap import unseen

CODE = "T09"
NAME = "validation-drift"
NEEDS = ("training_flow",)


def _size(drift: Drift) -> float:
    return (
        abs(drift.training - drift.validation) / drift.spread if drift.spread else drift.deviations
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the column that differs most."""
    record = recording.training_flow
    assert record is not None
    if not record.states_validation:
        return Unjudged(name=NAME, reason="the pipeline states no validation set")
    if not record.drift:
        return unseen(record, ("validation", "drift"), NAME) or ()
    worst = max(record.drift, key=_size)
    more = len(record.drift) - 1
    others = f"; {more} more differ" if more else ""
    column = f"{worst.path or 'the sample'}[{worst.column}]"
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage="dataset item",
            message=(
                f"The mean of {column} over a sample is {worst.training:.4g} in training and "
                f"{worst.validation:.4g} in validation, {_size(worst):.2g} spreads and "
                f"{worst.deviations:.3g} standard errors apart{others}."
            ),
            evidence={
                "column": column,
                "training": worst.training,
                "validation": worst.validation,
                "spread": worst.spread,
                "standard_errors": worst.deviations,
                "columns": len(record.drift),
            },
            remedy="Prepare both by the same code, and draw them from the same events.",
        ),
    )
