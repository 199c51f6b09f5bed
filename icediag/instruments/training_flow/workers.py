"""Workers: whether each worker of a loader draws random numbers of its own.

No process is started: what torch does at the beginning of a worker is done here, one worker after
the other, each from the state that a forked process would inherit.
"""

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import _utils as parts

from icediag.instruments.running.random_state import generators, kept, put_state, state_of
from icediag.instruments.running.stages import location_of
from icediag.instruments.trees.walk import leaves
from icediag.records.training import Workers

from .content import key_of, sized, spread

#: Workers that are looked at, and samples that each reads.
MOST_WORKERS, SAMPLES = 4, 8
#: Seeds that a loader might draw for two epochs: any two numbers.
BASES = (3_141_592, 2_718_281)


def workers_of(loader: Any) -> Workers | None:
    """Read the same samples as each of some workers would, in two epochs.

    Returns:
        None where the loader has fewer than two workers, or samples are not taken by index.

    Raises:
        Exception: Whatever the user's code raises.
    """
    count = int(getattr(loader, "num_workers", 0) or 0)
    dataset = getattr(loader, "dataset", None)
    if count < 2 or not isinstance(loader, torch.utils.data.DataLoader) or not sized(dataset):
        return None
    chosen = spread(len(dataset), min(SAMPLES, len(dataset)))  # type: ignore[arg-type]
    number = min(count, MOST_WORKERS)
    inherited = [(g, state_of(g)) for g in generators(dataset)]
    epochs: list[list[list[bytes]]] = []
    random_ones: set[int] = set()
    for base in BASES:
        readings = []
        for worker in range(number):
            with kept(dataset), as_worker(loader, worker, count, base):
                for generator, state in inherited:
                    put_state(generator, state)
                readings.append(_keys(dataset, chosen))
                again = _keys(dataset, chosen)
            random_ones |= {k for k in range(len(chosen)) if again[k] != readings[-1][k]}
        epochs.append(readings)
    alike = {k for k in random_ones if len({reading[k] for reading in epochs[0]}) == 1}
    same = {
        k for k in random_ones if all(epochs[0][w][k] == epochs[1][w][k] for w in range(number))
    }
    init = loader.worker_init_fn
    return Workers(
        workers=count,
        random=len(random_ones),
        read=len(chosen),
        alike=len(alike),
        again=len(same),
        init=None if init is None else location_of(init),
        init_name="" if init is None else str(getattr(init, "__name__", type(init).__name__)),
    )


def _keys(dataset: Any, chosen: list[int]) -> list[bytes]:
    return [key_of(tensor for _, tensor in leaves(dataset[i])) for i in chosen]


class as_worker:  # noqa: N801 - a context, named as it reads
    """Within, random numbers and `get_worker_info` are those of one worker of a loader.

    The global generators are not put back: whoever uses this does that.

    Args:
        loader: The loader.
        worker: Which worker.
        count: Of how many.
        base: The seed that the loader drew for the epoch.
    """

    def __init__(self, loader: Any, worker: int, count: int, base: int) -> None:
        self._loader, self._worker, self._count, self._base = loader, worker, count, base

    def __enter__(self) -> None:
        seed = self._base + self._worker
        self._before = parts.worker._worker_info  # noqa: SLF001 - what get_worker_info() reads
        random.seed(seed)
        torch.manual_seed(seed)
        # torch seeds numpy's global generator by the same two numbers, mixed.
        np.random.seed(np.random.SeedSequence([self._base, self._worker]).generate_state(4))  # noqa: NPY002
        parts.worker._worker_info = parts.worker.WorkerInfo(  # noqa: SLF001
            id=self._worker,
            num_workers=self._count,
            seed=seed,
            dataset=self._loader.dataset,
        )
        try:
            if self._loader.worker_init_fn is not None:
                self._loader.worker_init_fn(self._worker)
        except BaseException:
            parts.worker._worker_info = self._before  # noqa: SLF001
            raise

    def __exit__(self, *_: object) -> None:
        parts.worker._worker_info = self._before  # noqa: SLF001
