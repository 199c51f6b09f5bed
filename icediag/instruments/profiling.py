"""What `icediag profile` shows: counted, timed and projected in one go."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from icediag.devices import DeviceModel
from icediag.errors import IcediagError
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged
from icediag.source_record import SourceRecord

from .clock import record_clock
from .comparison import compare
from .containment import contained
from .examine import examine
from .projection import project
from .reasons import reason_of
from .source import counted_places, read_texts
from .work import record_operations

#: The whole batch is counted too, where no more is expected of it: some seconds. An estimate from
#: smaller ones is good for a loop, but not for what follows no axis, such as a number of buckets.
MOST_CALLS, MOST_BYTES = 40_000, 4 * 10**10
#: Seconds for the steps that are timed, about, how many of them, and in how many rounds.
BUDGET_S, REPEATS, ROUNDS = 20.0, 10, 2


def record_profile(
    pipeline: Pipeline,
    *,
    model: DeviceModel,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    workers: tuple[int, ...] = (),
    repeats: int = REPEATS,
    budget_s: float = BUDGET_S,
    baseline: Recording | None = None,
    timeout: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Recording:
    """Record a training step by what it counts and what it takes.

    Args:
        pipeline: What to profile; everything is left as it was found.
        model: The device to project to.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.
        workers: Numbers of worker processes to try a DataLoader with.
        repeats: Steps to time.
        budget_s: Seconds for these, about.
        baseline: An older recording to compare with; steps of as many samples are timed.
        timeout: Seconds that each instrument may take; None for any time.
        progress: Told what is done next.

    Raises:
        IcediagError: The data set is empty, or the pipeline names what does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    recording = examine(
        pipeline,
        needs=("lines",),
        batch_size=batch_size,
        device=device,
        seed=seed,
        timeout=timeout,
        progress=progress,
    )
    if not recording.came_through:
        return recording
    timed = baseline.clock.batch_size if baseline is not None and baseline.clock else None
    count = partial(record_operations, most_calls=MOST_CALLS, most_bytes=MOST_BYTES)
    time = partial(
        record_clock,
        repeats=repeats,
        budget_s=budget_s,
        rounds=ROUNDS,
        size=timed,
        workers=workers,
    )
    instruments: tuple[tuple[str, str, Callable[..., Any]], ...] = (
        ("operations", "counting operations", count),
        ("clock", "timing training steps", time),
    )
    for field, title, instrument in instruments:
        progress(title)
        try:
            with contained(timeout):
                seen = instrument(pipeline, batch_size=batch_size, device=device, seed=seed)
        except IcediagError as error:
            reason = str(error)
        except Exception as error:  # of the user's code
            reason = f"{title} failed: {reason_of(error, pipeline)}"
        else:
            recording = dataclasses.replace(recording, **{field: seen})
            continue
        missing = Unjudged(name=field, reason=reason)
        recording = dataclasses.replace(recording, not_judged=(*recording.not_judged, missing))
    if recording.operations is not None:
        recording = dataclasses.replace(recording, projection=project(recording.operations, model))
    texts = read_texts(counted_places(recording))
    recording = dataclasses.replace(recording, source=SourceRecord(texts=texts))
    if baseline is None:
        return recording
    return dataclasses.replace(recording, comparison=compare(baseline, recording))
