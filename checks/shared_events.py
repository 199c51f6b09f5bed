"""Training and validation share events.

What it looks at:
    The event ids of two data sets; where an id is in both, also its number of pulses and its
    truth.
Why it hurts:
    The validation then measures what was learnt by heart.
A bad run:
    A validation folder that was copied out of the training folder.
What to do:
    Remove the shared events from one of the two.
Limits:
    An id with another number of pulses is taken for another event. The same event under another
    id is not found.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "D11"
NAME = "shared-events"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name events that are in both."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    findings = []
    for overlap in recording.data.overlaps:
        if not overlap.shared:
            continue
        certain = overlap.same_truth > 0
        count = overlap.same_truth if certain else overlap.shared
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="error" if certain else "note",
                stage="data",
                message=(
                    f"{count:,} of the {overlap.events:,} events of {overlap.against} are in "
                    f"{recording.data.name} too, with the same id, number of pulses and "
                    f"{'truth' if certain else 'another truth'}; the first is event "
                    f"{overlap.example}."
                ),
                evidence={
                    "same_id_and_length": overlap.shared,
                    "same_truth": overlap.same_truth,
                    "events": overlap.events,
                    "example": overlap.example,
                },
                remedy="Remove the shared events from one of the two.",
            )
        )
    return tuple(findings)
