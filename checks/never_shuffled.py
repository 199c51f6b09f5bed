"""Samples come in the same order in every epoch.

What it looks at:
    The indices that the loader's sampler gives over four epochs, without reading a sample; of a
    loader that shows no indices, the content of its first batches in two epochs.
Why it hurts:
    Batches are always the same: their noise does not average out, batch statistics and the last
    steps before each validation are those of the same events, and a data set that is sorted by file
    or energy is unlearned and learned anew in each epoch.
A bad run:
    DataLoader without shuffle=True; a permutation drawn once, when the sampler was made.
What to do:
    shuffle=True, or a sampler that draws its order anew in `__iter__`. An iterable data set has to
    do so itself.
Limits:
    Of iterable data sets only the first two dozen batches are compared. A single batch an epoch has
    no order.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .validation_overlap import unseen

CODE = "T03"
NAME = "never-shuffled"
NEEDS = ("training_flow",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Compare the order of epochs."""
    record = recording.training_flow
    assert record is not None
    if not record.states_loader:
        return Unjudged(name=NAME, reason="the pipeline states no loader")
    order = record.order
    if order is None:
        return unseen(record, ("loader", "order"), NAME) or ()
    if not order.same or order.batches < 2 or order.distinct < 2:
        return ()
    if order.kind == "content":
        what = f"the first {order.batches} batches hold the same samples in the same order"
    elif order.ascending:
        what = f"all {order.taken:,} samples come in the order of the data set"
    else:
        what = f"all {order.taken:,} samples come in one order: they were shuffled once"
    # Torch's loader takes no shuffle=True for a data set without indices.
    remedy = (
        "Draw a new order where the samples come from, in each epoch: of files, and within a "
        "buffer of a stream; shuffle=True is for data sets that are read by index."
        if order.kind == "content"
        else "shuffle=True, or a sampler that draws a new order in each epoch."
    )
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage="loader",
            message=f"In each of {order.epochs} epochs of {order.sampler}, {what}.",
            evidence={
                "sampler": order.sampler,
                "epochs": order.epochs,
                "batches": order.batches,
                "samples": order.taken,
                "ascending": order.ascending,
            },
            remedy=remedy,
        ),
    )
