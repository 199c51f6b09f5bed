"""Threads: what torch's threads do while they wait for each other, on a machine that is busy."""

import os
import sys
from collections.abc import Callable, MutableMapping

#: What says how threads wait, to one OpenMP or another; where the user has set one, it stands.
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
#: Others are at work where so many processes wait for each core, or run on it.
BUSY = 0.75


def wait_politely(
    environment: MutableMapping[str, str] | None = None,
    load: Callable[[], tuple[float, float, float]] | None = None,
) -> None:
    """Have threads sleep while they wait, where other programs want the cores.

    Without that they wait by spinning, which on a quiet machine is the quickest. On one that is
    shared each keeps from its core the very thread that it waits for: a step then takes ten times
    as long. It is read once, as torch is loaded, so it is set before.

    Args:
        environment: Where it is set; without, this process's.
        load: Mean numbers of processes that want a core, of the last minute first.
    """
    environment = os.environ if environment is None else environment
    load = getattr(os, "getloadavg", None) if load is None else load
    if load is None or "torch" in sys.modules or any(name in environment for name in SETTINGS):
        return
    try:
        wanting = load()[0]
    except OSError:  # it is not known here
        return
    if wanting >= BUSY * (os.cpu_count() or 1):
        environment["OMP_WAIT_POLICY"] = "passive"
