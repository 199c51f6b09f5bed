"""The model predicts the same for every event.

What it looks at:
    The overfit test: the predictions for the events of a batch that it was trained on until the
    budget was spent. Where they are one constant, and the batch is not learnt, the causes are
    looked for as for a model that does not learn, and the first stage is named after which events
    can no longer be told apart.
Why it hurts:
    The best constant is the uninformed baseline: the loss stays there, however long it trains.
A bad run:
    A layer whose units are all dead; a norm over an axis of length 1; inputs multiplied by 0.
What to do:
    Look at the stage that is named: what goes in differs from event to event, what comes out does
    not.
Limits:
    A constant that is off by rounding counts as one: a spread below a hundredth of the size of the
    predictions.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .does_not_learn import failures

CODE = "L04"
NAME = "constant-prediction"
NEEDS = ("overfit",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say from which stage on all events are alike."""
    record = recording.overfit
    if record is None:
        return Unjudged(name=NAME, reason="no overfit test was made")
    if record.batch is None or not record.batch.constant:
        return ()
    return tuple(failures(record, CODE, NAME))
