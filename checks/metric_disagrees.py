"""A metric disagrees with the loss.

What it looks at:
    Loss and metric on the same predictions: those that the loss is smallest for, and the same with
    two rows exchanged, so that each of two events gets the prediction of the other. Where that
    makes the loss larger, the metric is to become larger too, or smaller, always the same.
Why it hurts:
    Models and checkpoints are chosen by the metric: it says that nothing is learned where much is,
    or keeps the wrong one.
A bad run:
    angle(p[:, 0], p[:, 1], y[:, 1], y[:, 0]): azimuth and zenith exchanged; the truth of the next
    event; degrees handed to a function that takes radians.
What to do:
    Compare the same columns as the loss does, in the same units, row by row.
Limits:
    Needs `Pipeline.metric`. Whether a metric is to be large or small nobody says, so one of the
    wrong sign is not seen, nor one in another unit. A metric that is the same whichever prediction
    stands in which row, such as a bias, may be meant so: it is a note. Where the metric goes by
    tensors that the loss does not go by, predictions are those of a brief training.
"""

import math

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.loss import LossRecord, MetricSeen

from .loss_ignores_targets import missing

CODE = "L27"
NAME = "metric-disagrees"
NEEDS = ("loss_probe",)

#: Share of the exchanges in which a metric that agrees goes the other way, at most: none did of
#: medians, maxima, accuracies and metrics of one column in ten; those of wrong columns, rows and
#: units went either way in a quarter to a half.
BOTH_WAYS = 0.2
#: Exchanges below which that says nothing.
FEWEST = 10
#: Share of the exchanges that make the loss smaller, at most, where predictions fit their events.
FIT = 0.25


def _finding(record: LossRecord, seen: MetricSeen, said: tuple[str, str, str]) -> Finding:
    severity, message, remedy = said
    return Finding(
        code=CODE,
        name=NAME,
        severity="note" if severity == "note" else "warning",
        stage="metric",
        message=message,
        evidence={
            "metric": seen.name,
            "at_best": seen.first,
            "exchanges": seen.worse,
            "larger": seen.larger,
            "smaller": seen.smaller,
        },
        remedy=remedy,
        location=record.metric_location,
    )


def _judged(record: LossRecord, seen: MetricSeen) -> tuple[str, str, str] | None:
    """Severity, message and remedy; None where the metric is in order."""
    name = "The metric" if seen.name == "metric" else f"The metric {seen.name}"
    if math.isnan(seen.first):
        message = f"{name} is NaN for predictions at which {record.name} is {seen.loss:.3g}."
        return "warning", message, "Keep arguments in their domain, as arccos(x.clamp(-1, 1))."
    if not seen.follows:
        message = f"{name} is {seen.first:.4g} whatever the predictions are."
        return "warning", message, "Compute it from the predictions."
    if seen.better > FIT * seen.exchanges or seen.worse < FEWEST:
        return None
    grew = f"of {seen.worse} exchanges of two predictions that make {record.name} larger"
    if not seen.paired:
        if not seen.by_targets:
            return None  # it says something of the predictions alone
        message = f"{name} changes in none {grew}: it does not pair predictions and truths."
        return (
            "note",
            message,
            "Compare each prediction with the truth of its own row, if meant so.",
        )
    moved = seen.larger + seen.smaller
    if moved < FEWEST or min(seen.larger, seen.smaller) <= BOTH_WAYS * moved:
        return None
    message = f"{name} disagrees with the loss: {grew}, {seen.larger} make it larger and "
    message += f"{seen.smaller} smaller."
    return (
        "warning",
        message,
        "Compare the columns that the loss compares, in its units, row by row.",
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Hold the way each metric goes against that of the loss."""
    record = recording.loss_probe
    assert record is not None
    if not record.states_metric:
        return Unjudged(name=NAME, reason="the pipeline states no metric")
    if not record.metrics:
        reason = f"{record.name} could not be probed"
        return missing(record, ("loss", "metric", "dataset item"), NAME) or Unjudged(
            name=NAME, reason=reason
        )
    said = [(seen, _judged(record, seen)) for seen in record.metrics]
    return tuple(_finding(record, seen, one) for seen, one in said if one is not None)
