"""Waiting for a DataLoader, with the training step in between, as training does it."""

import warnings
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from icediag.instruments.running.containment import time_limit
from icediag.instruments.running.random_state import kept
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.trees.walk import move
from icediag.records.clock import LoaderClock

from .step import Stepper

#: Batches that are timed, and those before that fill what workers prepare ahead.
BATCHES, FIRST = 6, 2
#: Seconds after which a loader is given up.
MOST_S = 30.0


def measure_loaders(
    stepper: Stepper,
    n: int,
    workers: tuple[int, ...],
    clock: Callable[[], float],
    missing: dict[str, str],
    enough_s: float,
) -> tuple[LoaderClock, ...]:
    """The pipeline's own loader as it is, then a plain one with each number of workers.

    Args:
        stepper: Whose step and data set.
        n: Samples in a batch of the plain ones.
        workers: Numbers of worker processes.
        clock: Seconds.
        missing: Where to say why one could not be run.
        enough_s: Seconds after which no further batch is taken from one.
    """
    found: list[LoaderClock] = []
    makers: list[tuple[str, Callable[[], Any], bool]] = []
    if stepper.pipeline.loader is not None:
        makers.append(("own loader", stepper.pipeline.loader, True))
    makers += [(f"loader with {k} workers", _plain(stepper, n, k), False) for k in workers]
    for name, make, own in makers:
        try:
            loader = make()
            # One that the user holds is to go on where it was.
            with kept(loader), time_limit(max(MOST_S, 3 * enough_s)):
                found.append(_measure(loader, stepper, own, clock, enough_s))
        except Exception as error:  # of the user's data set, in a worker or here
            missing[name] = reason_of(error, stepper.pipeline)
    return tuple(found)


def _plain(stepper: Stepper, n: int, workers: int) -> Callable[[], Any]:
    pipeline = stepper.pipeline
    return lambda: DataLoader(
        pipeline.dataset, batch_size=n, collate_fn=pipeline.collate, num_workers=workers
    )


def _measure(
    loader: Any,
    stepper: Stepper,
    own: bool,
    clock: Callable[[], float],
    enough_s: float,
) -> LoaderClock:
    waits: list[float] = []
    steps: list[float] = []
    with warnings.catch_warnings():
        # More workers than cores: that is for the record to show.
        warnings.simplefilter("ignore", UserWarning)
        batches = iter(loader)
        began = clock()
        while len(waits) < FIRST + BATCHES:
            start = clock()
            if len(waits) > 1 and start - began > enough_s:
                break
            try:
                batch = next(batches)
            except StopIteration:
                break
            arrived = clock()
            stepper.on_batch(move(batch, stepper.device))
            waits.append(arrived - start)
            steps.append(clock() - arrived)
        del batches
    # A short epoch has nothing but first batches.
    skip = min(FIRST, max(0, len(waits) - 1))
    return LoaderClock(
        workers=int(getattr(loader, "num_workers", 0) or 0),
        own=own,
        wait_s=tuple(waits[skip:]),
        step_s=tuple(steps[skip:]),
    )
