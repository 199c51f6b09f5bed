"""What `icediag profile` shows: counted, timed and projected in one go."""

import dataclasses
from collections.abc import Callable

from icediag.devices import DeviceModel
from icediag.errors import IcediagError
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged

from .clock import record_clock
from .containment import contained
from .examine import examine
from .projection import project
from .reasons import reason_of

#: What is counted beside the flow itself.
COUNTED = ("lines", "operations")
#: Seconds for the steps that are timed, about, and how many of them.
BUDGET_S, REPEATS = 20.0, 7


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
        timeout: Seconds that each instrument may take; None for any time.
        progress: Told what is done next.

    Raises:
        IcediagError: The data set is empty, or the pipeline names what does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    recording = examine(
        pipeline,
        needs=COUNTED,
        batch_size=batch_size,
        device=device,
        seed=seed,
        timeout=timeout,
        progress=progress,
    )
    if not recording.came_through:
        return recording
    if recording.operations is not None:
        recording = dataclasses.replace(recording, projection=project(recording.operations, model))
    progress("timing training steps")
    try:
        with contained(timeout):
            clock = record_clock(
                pipeline,
                batch_size=batch_size,
                device=device,
                seed=seed,
                repeats=repeats,
                budget_s=budget_s,
                workers=workers,
            )
    except IcediagError as error:
        reason = str(error)
    except Exception as error:  # of the user's code
        reason = f"timing failed: {reason_of(error, pipeline)}"
    else:
        return dataclasses.replace(recording, clock=clock)
    missing = Unjudged(name="clock", reason=reason)
    return dataclasses.replace(recording, not_judged=(*recording.not_judged, missing))
