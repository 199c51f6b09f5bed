"""Loading: one epoch from disk to collated batches, in the order that training reads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from icediag.model.collate import collate
from icediag.model.dataset import IceCubeDataset
from icediag.model.event import EventDataset
from icediag.model.faults.per_event_slicing import PerEventSlicing
from icediag.model.prepare import prepare
from icediag.model.simulate import simulate
from icediag.model.table import write_dataset
from icediag.model.training.config import TrainConfig
from icediag.model.training.loader import TrainLoader

from .timing import Way

#: Events that the slow way reads.
FEW = 2_000


def loading_ways(folder: Path, *, n_events: int, batch_size: int, seed: int) -> list[Way]:
    """Write simulated events, prepare them, and read both in one process.

    Each epoch opens the data set anew, so that Parquet is decoded in each; the system's page cache
    is warm, as the files were just written.

    Args:
        folder: An empty folder.
        n_events: Events to simulate.
        batch_size: Events a batch.
        seed: Of events and order.
    """
    parquet, arrow = folder / "parquet", folder / "prepared"
    table = simulate(n_events, seed=seed)
    write_dataset(table, parquet, events_per_file=max(1, n_events // 4))
    prepare(parquet, arrow)
    pulses = f"{table.time.size / n_events:.0f} pulses an event"
    few = min(FEW, n_events)

    def epoch(open_: Callable[[], EventDataset], n: int) -> Callable[[], None]:
        def run() -> None:
            dataset = open_()
            config = TrainConfig(batch_size=batch_size, seed=seed, workers=0)
            loader = TrainLoader(dataset, np.arange(n), collate, config, torch.device("cpu"))
            done = sum(batch.batch_size for batch in loader.epoch(0))
            assert done == n

        return run

    return [
        Way(
            name="ours, prepared",
            run=epoch(lambda: IceCubeDataset(arrow), n_events),
            note=f"mapped Arrow columns, {pulses}",
        ),
        Way(
            name="ours, Parquet",
            run=epoch(lambda: IceCubeDataset(parquet), n_events),
            note="decoded each time",
        ),
        Way(
            name="the case's, event by event",
            run=epoch(lambda: PerEventSlicing(IceCubeDataset(parquet)), few),
            note="an Arrow slice and four conversions an event",
            n_events=few,
        ),
    ]
