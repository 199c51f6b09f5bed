"""A tiny data set and network for the tests of training, and a run of them."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icediag.model.collate import collate
from icediag.model.event import Event
from icediag.model.losses import Loss, mean_angular_error
from icediag.model.network import DirectionNetwork, NetworkConfig
from icediag.model.training.config import TrainConfig
from icediag.model.training.loop import train
from icediag.model.training.metrics import WALL_CLOCK
from icediag.model.training.progress import OnEvent, Summary


class SmallDataset:
    """Events of 0 to 11 pulses, in two files; event_id is 1000 + the position."""

    def __init__(self, n_events: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.lengths: npt.NDArray[np.int64] = rng.integers(0, 12, n_events)
        self.event_ids = 1000 + np.arange(n_events)
        self.file_of: npt.NDArray[np.int64] = (2 * np.arange(n_events)) // max(n_events, 1)
        angles = rng.uniform(0, 1, (n_events, 2)) * [2 * np.pi, np.pi]
        self.targets = angles.astype(np.float32)
        self.asked: list[int] = []
        self._pulses = [
            np.stack(
                [
                    rng.integers(9000, 12000, n),
                    rng.exponential(1.0, n),
                    rng.integers(0, 5160, n),
                    rng.integers(0, 2, n),
                ],
                axis=1,
            ).astype(np.float32)
            for n in self.lengths
        ]

    def __len__(self) -> int:
        return len(self.event_ids)

    def __getitem__(self, index: int, /) -> Event:
        self.asked.append(index)
        return Event(
            pulse_features=torch.from_numpy(self._pulses[index]),
            event_id=int(self.event_ids[index]),
            target=torch.from_numpy(self.targets[index]),
        )

    def __getitems__(self, indices: list[int], /) -> list[Event]:
        return [self[index] for index in indices]

    def geometry(self) -> Tensor:
        return torch.zeros(5160, 3)


def small_network(seed: int = 0, **changes: Any) -> DirectionNetwork:
    """One layer of width 16, with dropout, so that random numbers are drawn in every step."""
    settings: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_layers": 1, "dropout": 0.1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DirectionNetwork(NetworkConfig(**{**settings, **changes}))


def ticks() -> Iterator[float]:
    """A clock of its own: a second later every time it is asked."""
    return (float(second) for second in itertools.count())


def run(
    out: Path,
    *,
    n_events: int = 22,
    held_out: int = 6,
    network: torch.nn.Module | None = None,
    dataset: SmallDataset | None = None,
    loss: Loss = mean_angular_error,
    on_event: OnEvent = lambda event: None,
    resume: bool = False,
    about: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Summary, torch.nn.Module]:
    """Train on the first events, hold out the last; gives the summary and the trained network."""
    dataset = dataset or SmallDataset(n_events)
    network = network or small_network()
    order = np.arange(len(dataset))
    cut = len(dataset) - held_out
    config = TrainConfig(**{"epochs": 2, "batch_size": 5, "log_every": 2, "lr": 0.01, **settings})
    seconds = ticks()
    # On tensors this small a second thread only waits, and on a busy machine for long.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        summary = train(
            network,
            dataset,
            order[:cut],
            order[cut:],
            collate,
            loss,
            config,
            out=out,
            on_event=on_event,
            resume=resume,
            clock=lambda: next(seconds),
            about=about,
        )
    finally:
        torch.set_num_threads(threads)
    return summary, network


def metric_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics, without what depends on the clock."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]
