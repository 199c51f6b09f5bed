"""Samples cannot be read and collated as fast as the device works.

What it looks at:
    Seconds of reading and collating a batch in one process, by the fastest repeat and less what
    other programs took, against the seconds that the training step on it is projected to take on a
    GPU: that many worker processes it takes to keep the device busy.
Why it hurts:
    A device that waits for data is paid for all the same. Workers help as long as there are cores
    for them; a node has some 8 to 16 a GPU.
A bad run:
    A data set that decodes a file for every sample, at 490 events a second, before a network that
    does 20,000.
What to do:
    Read the samples of a batch together (`__getitems__`), keep columns as arrays that are mapped
    into memory, move work from reading into the model, store what is computed the same each time.
Limits:
    The step is projected, so the number of workers is good to a factor of two. What comes over a
    network, or from a disk whose cache is warm here and cold there, is not foreseen.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged

CODE = "P20"
NAME = "loader-bound"
NEEDS = ("clock", "projection")

#: Workers that a node has for a GPU, and those that are worth knowing.
MANY, SOME = 16, 4
#: More than these no node has.
MOST = 64
#: Seconds of a sample from which on so many workers are a warning: 2,000 samples a second. A quick
#: data set before a network that is quicker still is only worth knowing.
SLOW = 5e-4
#: Seconds of a batch below which nothing is said: such a step is too small to be waited for.
SHORTEST = 5e-3


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Compare the time to make a batch with the projected step on it."""
    clock, projection = recording.clock, recording.projection
    assert clock is not None and projection is not None
    if not clock.stages or clock.batch_size < 1 or projection.step_s <= 0:
        why = clock.missing.get("steps", "no step could be timed")
        return Unjudged(name=NAME, reason=why)
    fetch = clock.fetch_s / clock.crowding * projection.batch_size / clock.batch_size
    workers = fetch / projection.step_s
    if workers <= SOME or fetch < SHORTEST:
        return ()
    hurts = workers > MANY and fetch / projection.batch_size >= SLOW
    severity: Severity = "warning" if hurts else "note"
    parts = {
        kind: min(stage.total_s) / clock.crowding
        for stage in clock.stages
        for kind in (stage.kind,)
        if kind in ("item", "collate") and stage.depth == 0 and stage.total_s
    }
    slow = max(parts, key=lambda kind: parts[kind])
    stage = "dataset item" if slow == "item" else "collate"
    place = next((s.location for s in clock.stages if s.kind == slow and s.depth == 0), None)
    share = parts[slow] / max(1e-12, sum(parts.values()))
    rate = projection.batch_size / fetch
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity=severity,
            stage=stage,
            message=(
                f"Reading and collating {projection.batch_size:,} samples takes {fetch:.2g} s in "
                f"one process ({rate:,.0f} samples/s, {100 * share:.0f} % of it in {stage}); the "
                f"step on them is projected to take {projection.step_s:.2g} s on "
                f"{projection.title}: it takes {workers:.0f} workers to keep up."
            ),
            evidence={
                "fetch_s": fetch,
                "projected_step_s": projection.step_s,
                "device": projection.title,
                "workers": workers,
                "samples": projection.batch_size,
                "timed_samples": clock.batch_size,
                "crowding": clock.crowding,
                **{f"{kind}_s": seconds for kind, seconds in parts.items()},
            },
            remedy=(
                "Read the samples of a batch together, from arrays that are open already"
                if slow == "item"
                else "Join whole tensors in collate, instead of one sample or row at a time"
            )
            + (
                f"; else give the DataLoader {workers:.0f} workers, if there are cores for them."
                if workers <= MOST
                else "."
            ),
            location=place,
        ),
    )
