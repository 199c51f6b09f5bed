"""Events or rows get lost or doubled between data set and batch.

What it looks at:
    How many targets go from a batch where one event is left out, for two dozen events, the shortest
    and the longest among them. And how many rows of each event the batch of it alone begins with.
Why it hurts:
    Events that are dropped are never learned from, and the score says nothing of them. Rows that
    are cut are information that is gone.
A bad run:
    Collate leaves out events with few rows without a word; a slice `[:128]` cuts the bright events.
What to do:
    Keep short events, or leave them out of the data set in the open; say how many rows are cut.
Limits:
    Events are counted by the targets, rows where the batch holds them unchanged, in any order. That
    some rows are cut may be meant: it is a note.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.invariances import Conservation

from .batch_leak import not_tried

CODE = "I04"
NAME = "events-lost"
NEEDS = ("invariances",)


def _of_events(kept: Conservation) -> Finding:
    lost, doubled = len(kept.lost), len(kept.doubled)
    parts = []
    if lost:
        parts.append(f"{lost} of {kept.events} events give no target, such as event {kept.lost[0]}")
    if doubled:
        which = f"such as event {kept.doubled[0]}"
        parts.append(f"{doubled} of {kept.events} events give more than one target, {which}")
    sizes = f" (of {max(kept.lost_rows):,} values or fewer)" if lost else ""
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage="collate",
        message=f"Between data set and batch, {'; '.join(parts)}{sizes}.",
        evidence={
            "tensor": kept.path,
            "events": kept.events,
            "arrived": kept.arrived,
            "lost": kept.lost,
            "doubled": kept.doubled,
        },
        remedy="Keep every event once in collate; what is not wanted belongs out of the data set.",
    )


def _of_rows(kept: Conservation) -> Finding:
    share = 1 - kept.arrived / kept.rows
    worst = max(range(len(kept.lost)), key=lambda k: kept.lost_rows[k] - kept.kept_rows[k])
    return Finding(
        code=CODE,
        name=NAME,
        severity="note",
        stage="collate",
        message=(
            f"{kept.path} of a batch holds {100 * (1 - share):.3g} % of the {kept.rows:,} rows of "
            f"{kept.events} events: {len(kept.lost)} of them are cut, event {kept.lost[worst]} "
            f"from {kept.lost_rows[worst]:,} to {kept.kept_rows[worst]:,}."
        ),
        evidence={
            "tensor": kept.path,
            "events": kept.events,
            "rows": kept.rows,
            "arrived": kept.arrived,
            "cut": kept.lost,
        },
        remedy="Choose the rows to keep by what they tell, if all are too many.",
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Count what arrives."""
    record = recording.invariances
    assert record is not None
    findings = [
        _of_events(kept) if kept.kind == "events" else _of_rows(kept)
        for kept in record.conservation
        if kept.lost or kept.doubled
    ]
    if findings or record.conservation:
        return tuple(findings)
    return not_tried(record, ("dataset item", "events", "rows"), NAME) or ()
