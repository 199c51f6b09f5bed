"""The loss does not depend on the targets.

What it looks at:
    The loss away from the model: predictions are held still while each tensor of the batch has its
    values put in another order; of targets with several columns, each column by itself, and with
    values far outside of its range too. And which outputs that the pipeline declares the loss has
    no slope by. All of it at three sets of predictions.
Why it hurts:
    Whatever the truth is, the loss and its gradient are the same: nothing about it can be learned,
    while the loss may well fall.
A bad run:
    cross_entropy(logits, logits.argmax(1)); a loss that takes the zenith for the azimuth twice;
    targets[:, :1] in place of targets[:, :2].
What to do:
    Hand the targets of the batch to the loss, all their columns.
Limits:
    Training without targets, where the batch holds nothing beside what the model reads, is not
    judged; where the loss compares two predictions, or rows with each other, it is a note. A column
    of the targets that is left out is named where it is the truth of a declared output, or stands
    beside a column of predictions; what else stands in the targets may be meant for the eye. A loss
    that the model computes itself is not seen.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.loss import IdleColumn, LossRecord

from .batch_leak import named

CODE = "L20"
NAME = "loss-ignores-targets"
NEEDS = ("loss_probe",)


def missing(record: LossRecord, parts: tuple[str, ...], name: str) -> Unjudged | None:
    """Why a check of the loss has no answer, where its probes could not be run."""
    reasons = [item.reason for item in record.not_tried if item.name in parts]
    return Unjudged(name=name, reason=reasons[0]) if reasons else None


def _unused(record: LossRecord) -> Finding:
    names = " and ".join(record.unused)
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage="loss",
        message=(
            f"{record.subject} has no slope by {names}, declared as output: it is never trained."
        ),
        evidence={"unused": record.unused, "declared": record.declared},
        remedy=f"Compare {names} with the truth in the loss.",
        location=record.location,
    )


def _idle(record: LossRecord, idle: IdleColumn) -> Finding | None:
    place = named(idle.path)
    if idle.column is not None:
        place = f"column {idle.column} of {place}"
    if idle.output is not None:
        of, beside = f", the truth of {idle.output},", ""
        remedy = f"Compare {idle.output} with {place} of the batch."
    elif idle.beside is not None:
        has = "it has a slope" if idle.beside else "it has no slope"
        of, beside = "", f"; {has} by the column of predictions beside it"
        remedy = f"Compare the predictions with {place} of the batch, if it is a truth."
    else:
        return None  # what else stands in the targets
    return Finding(
        code=CODE,
        name=NAME,
        severity="note" if idle.beside and idle.output is None else "warning",
        stage="loss",
        message=(
            f"With the predictions held still, {record.name} is the same bit for bit whatever "
            f"{place}{of} holds{beside}."
        ),
        evidence={
            "tensor": idle.path,
            "column": idle.column,
            "columns": idle.width,
            "output": idle.output,
        },
        remedy=remedy,
        location=record.location,
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Hold what moves the loss against what is in the batch."""
    record = recording.loss_probe
    assert record is not None
    targets = record.targets
    if targets is None:
        return missing(record, ("loss", "targets", "dataset item"), NAME) or ()
    if set(targets.moving) - set(targets.flags):
        found = [_unused(record)] if record.unused else []
        # Of an output without a slope it is no news that its truth is not looked at.
        idle = [one for one in record.idle if one.output not in record.unused]
        found += [finding for one in idle if (finding := _idle(record, one)) is not None]
        return tuple(found)
    if not targets.unread:
        return Unjudged(
            name=NAME,
            reason=f"{record.name} goes by the predictions alone, and the batch holds nothing that "
            "the model does not read: what the targets are is not known",
        )
    by_itself = targets.views > 1 or targets.coupled is not False
    target = targets.unread[0]
    why = (
        "; it compares predictions with each other, as training without targets does"
        if by_itself
        else ""
    )
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note" if by_itself else "error",
            stage="loss",
            message=(
                f"With the predictions held still, {record.name} is the same bit for bit whatever "
                f"the batch holds; {named(target)} of the batch is read by neither model nor "
                f"loss{why}."
            ),
            evidence={
                "unread": targets.unread,
                "read": targets.read,
                "samples": record.samples,
                "coupled": targets.coupled,
            },
            remedy=f"Compare the predictions with {named(target)} of the batch.",
            location=record.location,
        ),
    )
