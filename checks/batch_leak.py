"""The output of one event depends on another event of its batch.

What it looks at:
    The model in evaluation, on batches put together otherwise. Neighbours get other values of the
    same shapes; each event is doubled, and put among others; and the slope of each event's output
    by the input of every other one is taken. None of it may move an output by more than rounding,
    which is told apart by a copy of the model in float64.
Why it hurts:
    What is learned depends on who stands beside whom. The score changes with the batch size, and a
    single event cannot be evaluated as it was trained.
A bad run:
    Attention over the rows of all events without a mask; a mean over the whole batch in place of
    one by event; values normalised by the statistics of the batch in evaluation too; indices of
    events that collide.
What to do:
    Mask or index by event where events are pooled, attended to or normalised.
Limits:
    Batch normalisation in training mixes events by design and is not looked at. Outputs whose parts
    cannot be assigned to events by their sizes are not judged, nor models whose evaluation or
    collate draws random numbers.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.invariances import InvariancesRecord, Trial

CODE = "I01"
NAME = "batch-leak"
NEEDS = ("invariances",)

#: What could not be tried, under these names, leaves this check without an answer.
PARTS = ("trials", "independence of events", "content of neighbours", "evaluation", "dataset item")


def not_tried(record: InvariancesRecord, parts: tuple[str, ...], name: str) -> Unjudged | None:
    """Why a check has no answer, where its trials could not be run."""
    reasons = [item.reason for item in record.not_tried if item.name in parts]
    return Unjudged(name=name, reason=reasons[0]) if reasons else None


def broken(record: InvariancesRecord, *changes: str) -> list[Trial]:
    """Trials of these kinds in which an output moved, that of the largest share first."""
    found = [trial for trial in record.trials if trial.broken and trial.change in changes]
    return sorted(found, key=lambda trial: -(trial.size / trial.scale if trial.scale else 0))


def named(output: str) -> str:
    """An output in a sentence."""
    if not output:
        return "the output"
    return f"output {output}" if output.isdigit() else output


def begins(output: str) -> str:
    """An output at the beginning of a sentence; one that has a name keeps it as it is."""
    text = named(output)
    return text if text == output else text.capitalize()


def evidence_of(trial: Trial) -> dict[str, object]:
    """The numbers of a trial."""
    return {
        "change": trial.change,
        "output": trial.output,
        "size": trial.size,
        "native_size": trial.native,
        "rounding": trial.rounding,
        "scale": trial.scale,
        "event": trial.event,
        "neighbour": trial.neighbour,
        "events": trial.events,
        "moved": trial.moved,
        "float64": trial.precise,
    }


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the output, the worst pair, and where it begins."""
    record = recording.invariances
    assert record is not None
    found = broken(record, "content", "gradient", "batch size")
    if not found and not broken(record, "padding"):
        # Neither the values nor the length of a neighbour, but something else of it.
        found = broken(record, "company")
    if not found:
        return not_tried(record, PARTS, NAME) or ()
    by_value = next((trial for trial in found if trial.change == "content"), None)
    by_slope = next((trial for trial in found if trial.change == "gradient"), None)
    worst = by_value or by_slope or found[0]
    assert worst.native is not None
    if worst.change == "content":
        by = "" if worst.neighbour is None else f", most by event {worst.neighbour}"
        what = (
            f"{named(worst.output)} of event {worst.event} moves by {worst.native:.3g} where its "
            f"neighbours have other values{by}; rounding explains {worst.rounding:.2g}, and "
            f"{worst.moved} of {worst.events} events move"
        )
    elif worst.change == "gradient":
        what = (
            f"the slope of {named(worst.output)} of event {worst.event} by the input of event "
            f"{worst.neighbour} is {worst.native:.3g} of that by its own, where it is to be 0"
        )
    else:
        where = "twice in a batch" if worst.change == "batch size" else "among others"
        what = (
            f"{named(worst.output)} of event {worst.event} is {worst.native:.3g} apart alone and "
            f"{where}; rounding explains {worst.rounding:.2g}, and {worst.moved} of "
            f"{worst.events} events move"
        )
    evidence = evidence_of(worst)
    if by_slope is not None:
        evidence["slope"] = by_slope.native
        evidence["slope_pair"] = (by_slope.event, by_slope.neighbour)
    placed = next((trial for trial in found if trial.stage is not None), None)
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="model" if placed is None or placed.stage is None else placed.stage,
            message=f"Events of a batch are not independent: {what}.",
            evidence=evidence,
            remedy="Mask or index by event where this stage pools, attends or normalises.",
            location=None if placed is None else placed.location,
        ),
    )
