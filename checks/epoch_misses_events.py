"""An epoch misses events, or repeats them.

What it looks at:
    The indices that the loader's sampler gives over four epochs, against the size of its data set.
    Of an iterable data set, whether its workers give the same batches.
Why it hurts:
    Events that never come are not learned from, while others count twice.
A bad run:
    A sampler made from a list of indices with mistakes in it, such as i // 2; a stream that each
    of the loader's workers reads from beginning to end.
What to do:
    Give every index once an epoch; make the sampler from the data set that the loader reads.
    Have each worker read its own share of a stream.
Limits:
    A warning where the same samples are repeated in every epoch while others never come. Drawing
    with replacement, a part of the data set that is held out by its sampler, and a last batch that
    is dropped may be meant: these are notes, or pass if nothing is missed in the long run.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.training import Order

from .validation_overlap import unseen

CODE = "T04"
NAME = "epoch-misses-events"
NEEDS = ("training_flow",)

#: Share of the repeated samples that are repeated in every epoch, from which on it is no chance.
ALWAYS = 0.9


def _judged(order: Order) -> tuple[Severity, str, str] | None:
    """Severity, message and remedy."""
    missed = f"{order.never:,} of {order.samples:,} samples come in none of {order.epochs} epochs"
    if order.repeated:
        repeated = f"{order.repeated:,} come more than once in an epoch"
        fixed = order.same_repeated >= ALWAYS * order.repeated
        if fixed and order.never:
            also = "the same in each"
            return "warning", f"{missed}, and {repeated}, {also}", "Give every index once an epoch."
        if order.missed:
            share = order.missed / order.samples
            text = f"an epoch misses {share:.0%} of {order.samples:,} samples, and {repeated}"
            return "note", text, "Draw without replacement, unless weights are meant."
        if fixed:
            return "note", f"{repeated}, the same in each", "Give every index once an epoch."
        return None
    if order.never and order.never < order.samples:
        where = (
            "The rest is to be what validation takes; a last batch that is dropped wants shuffle."
        )
        return "note", missed, where
    return None


def _alike(order: Order) -> Finding:
    """Of workers that each read all of a stream."""
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage="loader",
        message=(
            f"Of the first {order.batches} batches of {order.sampler}, {order.doubled} hold the "
            f"same samples as another of its {order.workers} workers gave just before: an epoch "
            f"repeats each sample {order.workers} times."
        ),
        evidence={
            "sampler": order.sampler,
            "workers": order.workers,
            "batches": order.batches,
            "distinct": order.distinct,
            "doubled": order.doubled,
        },
        remedy=(
            "Have each worker read its own share: torch.utils.data.get_worker_info() tells which "
            "it is, and of how many."
        ),
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Count what comes, and how often."""
    record = recording.training_flow
    assert record is not None
    if not record.states_loader:
        return Unjudged(name=NAME, reason="the pipeline states no loader")
    order = record.order
    if order is None:
        return unseen(record, ("loader", "order"), NAME) or ()
    if order.kind == "content" and order.distinct > 1 and 2 * order.doubled >= order.batches:
        return (_alike(order),)
    if order.kind == "content":
        return Unjudged(name=NAME, reason="the loader does not show which samples it takes")
    if order.replicas > 1:
        return Unjudged(name=NAME, reason=f"{order.replicas} processes share the data set")
    judged = _judged(order)
    if judged is None:
        return ()
    severity, text, remedy = judged
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity=severity,
            stage="loader",
            message=f"By {order.sampler}, {text}.",
            evidence={
                "sampler": order.sampler,
                "samples": order.samples,
                "taken": order.taken,
                "distinct": order.distinct,
                "never": order.never,
                "repeated": order.repeated,
                "epochs": order.epochs,
            },
            remedy=remedy,
        ),
    )
