"""Random generators: seeded, saved and restored together."""

import random
import signal
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - a user's dataset may draw from the global one
    torch.manual_seed(seed)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of an epoch's own, 0..2**63 - 1, that does not depend on the epochs before."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def rng_state() -> dict[str, Any]:
    """State of all global generators, in types that `torch.load(weights_only=True)` takes."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - see above
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Undo everything drawn since `rng_state`; GPUs beyond those it saw are left alone."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, device)
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002 - see above
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached)
    )


def init_worker(worker: int) -> None:  # noqa: ARG001 - torch passes the worker's number
    """What a loading process does first.

    torch has seeded its own generator from the epoch's and the worker's number; NumPy's follows it.
    Ctrl-C goes to every process of the terminal: the main one answers, which ends the others.
    """
    np.random.seed(torch.initial_seed() % 2**32)  # noqa: NPY002 - see above
    signal.signal(signal.SIGINT, signal.SIG_IGN)
