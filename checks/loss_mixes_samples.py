"""The loss holds predictions against the truth of other samples.

What it looks at:
    One row of the targets at a time is replaced by another's, predictions held still. The slope of
    the same row of predictions is to follow, and that of no other, but for a factor that all rows
    share, such as one over a sum of weights. Whether the loss changes at all where targets change
    places. And whether a tensor of one column meets one of no columns, and the table of all their
    pairs is reduced as a whole.
Why it hurts:
    What is learned is the mean of all truths, or the truth of a neighbour; the loss stays above
    what a predictor that knows nothing scores.
A bad run:
    (B, 1) less (B,) is (B, B): every prediction against every target. targets[:1] in place of
    targets.
What to do:
    Give predictions and targets the same shape: squeeze one or index the other.
Limits:
    Losses in which predictions of different rows meet (contrastive, correlation, batch statistics)
    do this by design and are passed over, and so are tables of pairs that meet another table, or
    are reduced along one axis. Rows are samples, or entries of one length; a shift
    within a sample is not seen.
"""

from dataclasses import replace

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.loss import Crossed, LossRecord, Rows

from .loss_ignores_targets import missing

CODE = "L23"
NAME = "loss-mixes-samples"
NEEDS = ("loss_probe",)

#: Fewer rows tell nothing.
FEWEST = 4
#: A relative change of the loss below this is rounding.
ROUNDING = 1e-5


def _finding(
    record: LossRecord, rows: Rows, severity: Severity, message: str, remedy: str
) -> tuple[Finding, ...]:
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity=severity,
            stage="loss",
            message=message,
            evidence={
                "rows": rows.rows,
                "tried": rows.tried,
                "own": rows.own,
                "others": rows.others,
                "pair": rows.pair,
                "size": rows.size,
                "change_when_permuted": rows.permuted,
            },
            remedy=remedy,
            location=record.location,
        ),
    )


def _crossed(record: LossRecord, crossed: Crossed) -> Finding:
    n = crossed.rows
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage="loss",
        message=(
            f"In {crossed.operation} a tensor of ({n}, 1) meets one of ({n},) and gives "
            f"({n}, {n}), which {record.name} reduces as a whole: every row meets every other."
        ),
        evidence={"operation": crossed.operation, "rows": n},
        remedy="Give both one shape, (B,) or (B, 1): together they are (B, B).",
        location=crossed.location or record.location,
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Count rows that follow their own target, and rows that follow another's."""
    record = recording.loss_probe
    assert record is not None
    found = _of_slopes(record)
    if record.crossed is None:
        return found
    if not isinstance(found, Unjudged) and any(finding.severity == "error" for finding in found):
        return tuple(
            replace(finding, location=record.crossed.location or finding.location)
            for finding in found
        )
    return (_crossed(record, record.crossed),)


def _of_slopes(record: LossRecord) -> tuple[Finding, ...] | Unjudged:
    """Judge by whose target moves whose slope."""
    rows, targets = record.rows, record.targets
    if rows is None or targets is None:
        parts = ("loss", "targets", "rows", "dataset item")
        reason = f"nothing that {record.name} reads has a row for each row of the predictions"
        return missing(record, parts, NAME) or Unjudged(name=NAME, reason=reason)
    if rows.tried < FEWEST or targets.coupled is not False:
        return ()
    if rows.by_samples and not rows.own and not rows.others and rows.permuted <= ROUNDING:
        return _finding(
            record,
            rows,
            "note",
            f"{record.subject} is the same, to {rows.permuted:.1g}, whichever target stands in "
            f"which row, and in none of {rows.tried} rows does another target move the slope of "
            "its own row more than that of all.",
            "Give predictions and targets one shape, unless only their sums are to be compared: "
            "(B, 1) times (B,) is (B, B).",
        )
    if not rows.pair:
        return ()
    changed, moved = rows.pair
    moves = (
        f"another target in row {changed} moves the slope of row {moved} by {rows.size:.2g} of its "
        "size"
    )
    if 2 * rows.others >= rows.tried and rows.permuted <= ROUNDING:
        return _finding(
            record,
            rows,
            "error",
            f"{record.subject} is the same, to {rows.permuted:.1g}, whichever target stands in "
            f"which row, and {moves}: every prediction is held against every target.",
            "Give predictions and targets one shape: (B, 1) less (B,) is (B, B).",
        )
    if rows.by_samples and 2 * rows.own <= rows.tried:
        return _finding(
            record,
            rows,
            "error",
            f"In {rows.tried - rows.own} of {rows.tried} rows {record.name} does not follow the "
            f"row's own target, and {moves}.",
            "Index the targets as the predictions are.",
        )
    if 2 * rows.others >= rows.tried:
        return _finding(
            record,
            rows,
            "note",
            f"{record.subject} holds rows against the targets of others as well: {moves}.",
            "Make sure that this is meant.",
        )
    return ()
