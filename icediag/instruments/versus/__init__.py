"""Parts of the training implementation side by side with other ways to do the same, in one run."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from icediag.model.simulate import default_dataset
from icediag.records.versus import VersusRecord, VersusRow

from .loading import loading_ways
from .parts import Setting, attention_ways, collate_ways, packing_ways, pooling_ways, setting_of
from .peers import versions
from .step import DYNEDGE_EVENTS, DYNEDGE_EVENTS_PER_SECOND, step_ways
from .timing import Timer, Way

PARTS: dict[str, Callable[[Setting], list[Way]]] = {
    "collate": collate_ways,
    "packing": packing_ways,
    "pooling": pooling_ways,
    "attention": attention_ways,
}
#: In the order of the table.
NAMES = (*PARTS, "step", "loading")
SIZES = (32, 128, 256, 2048)

#: Events on disk for loading: some seconds to simulate, 160 batches to read.
ON_DISK = 20_000


def measure_versus(
    names: Sequence[str] = NAMES,
    *,
    sizes: Sequence[int] = SIZES,
    repeats: int = 30,
    on_disk: int = ON_DISK,
    seed: int = 0,
    processor: bool = False,
    timer: Timer | None = None,
    told: Callable[[str], None] = lambda text: None,  # noqa: ARG005 - nobody listens
) -> VersusRecord:
    """Time parts beside other ways to do the same.

    Args:
        names: Which of `NAMES`.
        sizes: Events a batch.
        repeats: Rounds, at most; slow ways get fewer.
        on_disk: Events that are written for loading.
        seed: Of events and weights.
        processor: Whether to read the processor's time: on a busy machine, with one thread, that is
            what a quiet one would take.
        timer: Passed in by tests.
        told: Told what is measured next.

    Raises:
        ValueError: A name is unknown, or a size is below 1.
    """
    for name in names:
        if name not in NAMES:
            raise ValueError(f"versus: expected all, {', '.join(NAMES)}; got {name!r}")
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes: expected one or more of 1 and up, got {list(sizes)}")
    clock = time.process_time if processor else time.perf_counter
    timer = timer or Timer(repeats=repeats, clock=clock)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    # Peers complain of one another, of what is new in them, and torch's of its own parts: torch.fx,
    # by its logger, each time torch.nested asks it something. What matters is their time.
    with warnings.catch_warnings(), _quiet("torch.fx._symbolic_trace"):
        warnings.simplefilter("ignore")
        rows = _rows(names, sorted(set(sizes)), on_disk, seed, timer, told)
    return VersusRecord(
        rows=tuple(rows),
        threads=torch.get_num_threads(),
        load=load,
        cores=os.cpu_count() or 1,
        versions=versions(),
        processor=processor,
    )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A logger says no more than errors for a while."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _rows(
    names: Sequence[str],
    sizes: list[int],
    on_disk: int,
    seed: int,
    timer: Timer,
    told: Callable[[str], None],
) -> list[VersusRow]:
    dataset = default_dataset(max(sizes), seed)
    rows: list[VersusRow] = []
    for name in (name for name in NAMES if name in names):
        if name == "loading":
            told(f"loading, {on_disk:,} events")
            with tempfile.TemporaryDirectory() as folder:
                ways = loading_ways(Path(folder), n_events=on_disk, batch_size=256, seed=seed)
                rows += timer.table(name, on_disk, ways)
            continue
        for n in sizes:
            told(f"{name}, {n:,} events")
            if name == "step":
                ways = step_ways(n, n_simulated=max(sizes), seed=seed)
                rows += timer.table(name, n, ways)
                if n == (DYNEDGE_EVENTS if DYNEDGE_EVENTS in sizes else max(sizes)):
                    rows.append(_dynedge(rows[-len(ways)]))
            else:
                rows += timer.table(name, n, PARTS[name](setting_of(dataset, n, seed)))
    return rows


def _dynedge(ours: VersusRow) -> VersusRow:
    """The published yardstick, as a row beside ours."""
    speed = ours.events_per_second
    return VersusRow(
        what="step",
        way="GraphNeT's DynEdge",
        n_events=DYNEDGE_EVENTS,
        ms=1e3 * DYNEDGE_EVENTS / DYNEDGE_EVENTS_PER_SECOND,
        times=None if speed is None else speed / DYNEDGE_EVENTS_PER_SECOND,
        note="1.38 M parameters; as published for 2 cores, not run here",
    )
