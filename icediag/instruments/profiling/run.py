"""What `icediag profile` shows: counted, timed and projected in one go."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from icediag.devices import DeviceModel
from icediag.errors import IcediagError
from icediag.instruments.clock import record_clock
from icediag.instruments.examine import PACING, examine
from icediag.instruments.running.containment import contained
from icediag.instruments.running.pace import held, lengths, possible, readable, steppable
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.source import counted_places, read_texts
from icediag.instruments.work import record_lines, record_operations
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged
from icediag.records.source import SourceRecord

from .comparison import compare
from .projection import project

#: The whole batch is counted too, where no more is expected of it: some seconds. An estimate from
#: smaller ones is good for a loop, but not for what follows no axis, such as a number of buckets.
#: Where more is expected, nothing is run on the whole batch but its collate.
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
    where: dict[str, Any] = {"device": device, "seed": seed}
    missing: list[Unjudged] = []

    def tried(name: str, title: str, instrument: Callable[..., Any], n: int) -> Any:
        progress(title)
        try:
            with contained(timeout):
                return instrument(pipeline, batch_size=n, **where)
        except IcediagError as error:
            reason = str(error)
        except Exception as error:  # of the user's code
            reason = f"{title} failed: {reason_of(error, pipeline)}"
        missing.append(Unjudged(name=name, reason=reason))
        return None

    wanted = pipeline.batch_size if batch_size is None else batch_size
    progress(PACING)
    n = possible(readable, pipeline, wanted, timeout, **where)
    count = partial(record_operations, most_calls=MOST_CALLS, most_bytes=MOST_BYTES)
    operations = tried("operations", "counting operations", count, n)
    most = n
    # Where the whole batch was counted, a step of it is short enough for everything else.
    if (
        operations is None
        or not operations.runs
        or operations.runs[-1].samples < operations.batch_size
    ):
        progress(PACING)
        most = possible(steppable, pipeline, n, timeout, **where)
    recording = examine(
        pipeline,
        needs=(),
        batch_size=most,
        timeout=timeout,
        progress=progress,
        paced=False,
        **where,
    )
    if not recording.came_through:
        return recording
    timed = baseline.clock.batch_size if baseline is not None and baseline.clock else None
    time = partial(
        record_clock,
        repeats=repeats,
        budget_s=budget_s,
        rounds=ROUNDS,
        size=timed,
        most=most,
        workers=workers,
    )
    ragged, there = recording.ragged, held(pipeline)
    if most < n:
        ragged = tried("lengths", "collating the whole batch", lengths, n) or ragged
    recording = dataclasses.replace(
        recording,
        batch_size=recording.batch_size if most == n else int(min(n, there)),
        followed=None if most == n else most,
        ragged=ragged,
        operations=operations,
        lines=tried("lines", "counting lines", record_lines, n),
        clock=tried("clock", "timing training steps", time, n),
    )
    if most < n and there < wanted:
        reason = f"{wanted} samples asked for, {there} in the data set"
        missing.append(Unjudged(name="batch size", reason=reason))
    elif n < min(wanted, there):
        reason = f"{wanted} samples asked for, {n} taken: to read and collate more takes too long"
        missing.append(Unjudged(name="batch size", reason=reason))
    recording = dataclasses.replace(recording, not_judged=(*recording.not_judged, *missing))
    if recording.operations is not None:
        recording = dataclasses.replace(
            recording, projection=project(recording.operations, model, recording.lines)
        )
    texts = read_texts(counted_places(recording))
    recording = dataclasses.replace(recording, source=SourceRecord(texts=texts))
    if baseline is None:
        return recording
    return dataclasses.replace(recording, comparison=compare(baseline, recording))
