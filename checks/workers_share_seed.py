"""Workers of the loader draw the same random numbers.

What it looks at:
    The same samples read as each of up to four workers would read them, in two epochs: generators
    are seeded as torch does at the beginning of a worker, `worker_init_fn` is called, and
    generators that the data set holds are those that a forked process inherits.
Why it hurts:
    Augmentation is repeated in every worker, or in every epoch: there is a fraction of the variety
    that is paid for.
A bad run:
    worker_init_fn = lambda _: np.random.seed(42); a data set with self.rng = default_rng(0), of
    which each worker gets a copy.
What to do:
    Draw from torch's generator, or seed by `torch.utils.data.get_worker_info().seed`.
Limits:
    Only samples that differ when read again can be judged, of data sets that are indexed. No
    process is started: a start method that pickles the data set may behave otherwise.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .validation_overlap import unseen

CODE = "T05"
NAME = "workers-share-seed"
NEEDS = ("training_flow",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Count samples that all workers draw alike."""
    record = recording.training_flow
    assert record is not None
    if not record.states_loader:
        return Unjudged(name=NAME, reason="the pipeline states no loader")
    workers = record.workers
    if workers is None:
        return unseen(record, ("loader", "workers"), NAME) or ()
    if not workers.alike and not workers.again:
        return ()
    init = f" after {workers.init_name}" if workers.init_name else ""
    parts = []
    if workers.alike:
        parts.append(f"{workers.alike} are the same in every one of {workers.workers} workers")
    if workers.again:
        parts.append(f"{workers.again} are the same in the next epoch")
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage="loader",
            message=(
                f"Of {workers.random} samples that are random when read, "
                f"{' and '.join(parts)}{init}."
            ),
            evidence={
                "workers": workers.workers,
                "read": workers.read,
                "random": workers.random,
                "alike_in_workers": workers.alike,
                "alike_in_epochs": workers.again,
            },
            remedy="Seed each worker by torch.utils.data.get_worker_info().seed, in each epoch.",
            location=workers.init,
        ),
    )
