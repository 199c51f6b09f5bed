"""Targets belong to other events than the predictions in their row.

What it looks at:
    Batches of the same events in several orders. Each row of the predictions is recognised by what
    its event gives alone, and the target in the same row is held against the target that this event
    has alone.
Why it hurts:
    The loss compares a prediction with the truth of another event: there is nothing to learn.
A bad run:
    Collate sorts the events by length and leaves the targets as they were; a packed sequence is
    unsorted for the outputs and not for the targets.
What to do:
    Bring inputs and targets into the same order, in collate or in the model.
Limits:
    Only targets that the loss reads and the model does not, with one row an event. Events that
    cannot be told apart by their outputs are left out. Inputs and targets that are shuffled inside
    the data set belong together as far as anyone can see.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import named, not_tried

CODE = "I03"
NAME = "targets-shuffled"
NEEDS = ("invariances",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name a row, and whose prediction and whose target it holds."""
    record = recording.invariances
    assert record is not None
    findings = [
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="collate",
            message=(
                f"In {pair.astray} of {pair.rows} rows {named(pair.output)} is of one event and "
                f"the target of another: row {pair.row} is predicted from event {pair.event} and "
                f"has the target of event {pair.owner}."
            ),
            evidence={
                "output": pair.output,
                "targets": pair.targets,
                "rows": pair.rows,
                "astray": pair.astray,
                "batches": pair.batches,
                "row": pair.row,
                "event": pair.event,
                "owner": pair.owner,
            },
            remedy="Bring inputs and targets into the same order.",
        )
        for pair in record.pairings
        if pair.astray
    ]
    if findings or record.pairings:
        return tuple(findings)
    parts = ("trials", "independence of events", "evaluation", "targets", "pairing", "dataset item")
    return not_tried(record, parts, NAME) or ()
