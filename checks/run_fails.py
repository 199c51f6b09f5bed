"""One batch does not come through.

What it looks at:
    Whether reading samples, collate, the model, the loss and the backward pass run to their end on
    one batch of the data set, in the order of the data set.
Why it hurts:
    Training stops there; if not now, then when this batch comes up.
A bad run:
    A model that takes the maximum over the pulses of an event that has none.
What to do:
    Mend the line that is named; `icediag --traceback` with the same command shows how it was
    reached.
Limits:
    One batch is tried. What comes after the part that failed was not looked at, and other checks
    may have nothing to judge. A failure that comes from running outside of the user's own loop (a
    model that wants to be prepared first) is a failure here, too: prepare it in the factory.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "V02"
NAME = "run-fails"
NEEDS: tuple[str, ...] = ()
#: Parts of the flow, and what each is called in a sentence.
PARTS = {
    "dataset item": "Reading samples",
    "collate": "Collate",
    "model": "The model",
    "loss": "The loss",
    "backward": "The backward pass",
    "optimizer": "The optimizer",
}
#: How each is called, for one who wires a pipeline for the first time.
CALLS = {
    "dataset item": "samples are read by len() and [i], or by iterating",
    "collate": "it is called as collate(list of samples)",
    "model": "it is called as model(batch), or as forward(model, batch) where that is given",
    "loss": "it is called as loss(predictions, batch) and is to return a tensor of one value",
    "optimizer": "it is called as optimizer(parameters) and is to return one optimizer of torch's",
    "backward": "the loss must come from the parameters by torch's operations",
}


def _remedy(item: Unjudged) -> str:
    return "Mend that line" if item.location is not None else f"See that {CALLS[item.name]}"


def check(recording: Recording) -> tuple[Finding, ...]:
    """Name the part that raised."""
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage=item.name,
            message=f"{PARTS[item.name]} fails: {item.reason}",
            evidence={"samples": recording.batch_size, "reason": item.reason},
            remedy=(f"{_remedy(item)}; until it runs, nothing after it can be judged."),
            location=item.location,
        )
        for item in recording.not_judged
        if item.raised and item.name in PARTS
    )
