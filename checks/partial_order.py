"""The order of rows matters in long events and not in short ones.

What it looks at:
    The rows of each event in another order, in evaluation. A model that takes rows as a set moves
    in no event, one that takes them as a sequence in all. Where all events above a length move and
    none below, rows beyond that length are cut or treated otherwise.
Why it hurts:
    Which rows of a long event are seen depends on their order, which may mean nothing.
A bad run:
    A set model that keeps the first 128 rows of each event.
What to do:
    Choose the rows to keep by what they tell (the earliest, the brightest), and say so.
Limits:
    At least two events on each side of the length. Whether order ought to matter is not judged:
    sequences and images are meant to depend on it.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import begins, not_tried

CODE = "I08"
NAME = "partial-order"
NEEDS = ("invariances",)

#: Events on each side of the length.
SIDE = 2


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the length above which the order matters."""
    record = recording.invariances
    assert record is not None
    trials = [trial for trial in record.trials if trial.change == "order of rows"]
    for trial in trials:
        if min(len(trial.moved_rows), len(trial.still_rows)) < SIDE:
            continue
        if not trial.broken or max(trial.still_rows) >= min(trial.moved_rows):
            continue
        return (
            Finding(
                code=CODE,
                name=NAME,
                severity="note",
                stage="model",
                message=(
                    f"{begins(trial.output)} follows the order of rows in all "
                    f"{len(trial.moved_rows)} events of {min(trial.moved_rows):,} rows or more, "
                    f"by up to {trial.native:.3g}, and in none of {len(trial.still_rows)} of "
                    f"{max(trial.still_rows):,} or fewer."
                ),
                evidence={
                    "output": trial.output,
                    "moves_from": min(trial.moved_rows),
                    "still_to": max(trial.still_rows),
                    "size": trial.native,
                    "rounding": trial.rounding,
                },
                remedy="Choose the rows to keep by what they tell, not by where they stand.",
            ),
        )
    return () if trials else not_tried(record, ("trials", "order of rows"), NAME) or ()
