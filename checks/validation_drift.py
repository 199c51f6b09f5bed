"""Validation and training samples are distributed differently.

What it looks at:
    The mean of each column of each sample, over 256 samples from all over each of the two sets:
    where it lies, and how widely it is spread.
Why it hurts:
    The score is of other events than those trained on; or one of the sets is prepared otherwise,
    with other units or another cut.
A bad run:
    Validation events from the last file, which is of another energy; targets in degrees there.
What to do:
    Draw both from the same events, and prepare them by the same code.
Limits:
    A note: another distribution may be meant. A warning where values are ten times as large in one
    of the sets, in mean and spread, or ten times as widely spread in validation: no choice of
    events does that. Means that differ by less than half a spread, or by less than six standard
    errors, are passed over, and spreads that differ by less than three times.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.training import Drift

from .validation_overlap import unseen

CODE = "T09"
NAME = "validation-drift"
NEEDS = ("training_flow",)


#: Times that a value is another one's where it is in another unit.
TIMES = 10.0
#: How far two such times may be apart.
ALIKE = 2.0


def _size(drift: Drift) -> float:
    """How far the two are apart, in spreads, or how many times one is as wide as the other."""
    if drift.moved:
        if not drift.spread:
            return drift.deviations
        return abs(drift.training - drift.validation) / drift.spread
    return max(_times(drift), 1 / max(_times(drift), 1e-30))


def _times(drift: Drift) -> float:
    """The spread in validation, in spreads of training; 1 where one of them is constant."""
    if not drift.spread or not drift.validation_spread:
        return 1.0
    return drift.validation_spread / drift.spread


def _rescaled(drift: Drift) -> bool:
    """Whether it looks as if the two were in different units."""
    times = _times(drift)
    if times >= TIMES or times <= TIMES**-3:
        return True
    if times > 1 / TIMES or not drift.training or not drift.validation:
        return False
    means = abs(drift.validation / drift.training)
    return 1 / ALIKE < means / times < ALIKE


def _message(drift: Drift, column: str, others: str) -> str:
    if not drift.moved or _rescaled(drift):
        by = f"{_times(drift):.3g} times as widely spread"
        return (
            f"{column} is {by} in validation: from sample to sample it is "
            f"{drift.training:.4g} +- {drift.spread:.3g} in training and {drift.validation:.4g} +- "
            f"{drift.validation_spread:.3g} in validation{others}."
        )
    return (
        f"The mean of {column} over a sample is {drift.training:.4g} in training and "
        f"{drift.validation:.4g} in validation, {_size(drift):.2g} spreads and "
        f"{drift.deviations:.3g} standard errors apart{others}."
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the column that differs most."""
    record = recording.training_flow
    assert record is not None
    if not record.states_validation:
        return Unjudged(name=NAME, reason="the pipeline states no validation set")
    if not record.drift:
        return unseen(record, ("validation", "drift"), NAME) or ()
    worst = max(record.drift, key=lambda drift: (_rescaled(drift), _size(drift)))
    more = len(record.drift) - 1
    others = f"; {more} more differ{'s' if more == 1 else ''}" if more else ""
    column = f"{worst.path or 'the sample'}[{worst.column}]"
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning" if _rescaled(worst) else "note",
            stage="dataset item",
            message=_message(worst, column, others),
            evidence={
                "column": column,
                "training": worst.training,
                "validation": worst.validation,
                "spread": worst.spread,
                "validation_spread": worst.validation_spread,
                "standard_errors": worst.deviations,
                "columns": len(record.drift),
            },
            remedy="Prepare both by the same code, and draw them from the same events.",
        ),
    )
