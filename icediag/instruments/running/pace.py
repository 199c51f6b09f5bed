"""Pace: how large a batch can be read here, and a step be taken on, in the time there is.

What is counted goes beyond what can be run: counts of small batches are extended along the axes of
the whole one, which only has to be read and collated.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from icediag.instruments.clock.step import Stepper, one_shot
from icediag.instruments.shapes.naming import name_axes, small_size
from icediag.instruments.work.sizes import weight_of
from icediag.instruments.work.step import collated, prepared
from icediag.pipeline import Pipeline
from icediag.recording import RaggedRecord

from .affordable import Clock, most_affordable
from .companions import companions_kept, generators_kept
from .containment import contained
from .kept import Kept
from .modes import eager, seed_all, train_mode
from .preserve import preserved, unchanged
from .samples import few_of

#: Seconds that reading and collating a batch may take, and a step on it.
READ_S, STEP_S = 5.0, 5.0
#: Reading takes about twice as long for twice the samples.
READ_GROWTH = 2.5


def readable(
    pipeline: Pipeline,
    wanted: int,
    *,
    device: str = "cpu",
    seed: int = 0,
    longest_s: float = READ_S,
    clock: Clock = time.perf_counter,
) -> int:
    """How many of the samples that are wanted can be read and collated; all is left as it was.

    Raises:
        Exception: What the user's code raises.
    """
    with _stepping(pipeline, device, seed) as stepper:

        def read(n: int) -> None:
            samples = _fetch(stepper, n)
            with unchanged(samples):
                pipeline.collate(samples)

        return most_affordable(read, wanted, longest_s=longest_s, clock=clock, growth=READ_GROWTH)


def steppable(
    pipeline: Pipeline,
    wanted: int,
    *,
    device: str = "cpu",
    seed: int = 0,
    longest_s: float = STEP_S,
    clock: Clock = time.perf_counter,
) -> int:
    """How many of the samples that are wanted a step can be taken on; all is left as it was.

    Raises:
        Exception: What the user's code raises.
    """
    with _stepping(pipeline, device, seed) as stepper:
        samples = _fetch(stepper, wanted)
        weights = [weight_of(sample) for sample in samples]
        functions = (pipeline.train_step, pipeline.optimizer, pipeline.forward, pipeline.loss)
        with unchanged(samples), companions_kept(functions, pipeline.model):
            return most_affordable(
                stepper.step, len(samples), longest_s=longest_s, clock=clock, weights=weights
            )


def possible(
    find: Callable[..., int], pipeline: Pipeline, wanted: int, timeout: float | None, **where: Any
) -> int:
    """How many samples there is time for; where that cannot be found out, all that are wanted.

    Args:
        find: `readable` or `steppable`.
        pipeline: What is to be run.
        wanted: Samples.
        timeout: Seconds that finding out may take; None for any time.
        **where: `device` and `seed`.
    """
    try:
        with contained(timeout):
            return find(pipeline, wanted, **where)
    except Exception:  # whatever records what fails says so, with the line
        return wanted


def held(pipeline: Pipeline) -> float:
    """Samples of the data set, infinite where it does not say how many there are."""
    try:
        return len(pipeline.dataset)
    except Exception:  # of the user's code: it has no length
        return float("inf")


def lengths(
    pipeline: Pipeline, batch_size: int, *, device: str = "cpu", seed: int = 0
) -> tuple[RaggedRecord, ...]:
    """Lengths in a batch that is collated, and goes no further."""
    with prepared(pipeline, batch_size=batch_size, device=device, seed=seed) as study:
        n = len(study.samples)
        whole = collated(study, list(range(n)))
        whole.few = few_of(study.samples, whole, small_size(n))
        small = collated(study, whole.few)
    _, ragged = name_axes(whole, small, n)
    return tuple(axis.record() for axis in ragged)


@contextmanager
def _stepping(pipeline: Pipeline, device: str, seed: int) -> Iterator[Stepper]:
    with generators_kept(pipeline), preserved(pipeline.model), eager(pipeline.model):
        seed_all(seed)
        train_mode(pipeline.model)
        yield Stepper(pipeline, [], [], torch.device(device))


def _fetch(stepper: Stepper, n: int) -> list[Any]:
    """The first samples; of what gives them only once, if it was not kept, none."""
    dataset = stepper.pipeline.dataset
    if not one_shot(dataset):
        return stepper.fetch(n)
    if isinstance(dataset, Kept):
        stepper.samples = list(itertools.islice(dataset, n))
    return stepper.samples
