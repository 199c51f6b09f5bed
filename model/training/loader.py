"""Batches of events, in an order that depends on seed and epoch alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from icediag.model.collate import Batch
from icediag.model.event import Event, EventDataset
from icediag.model.sampling import FileShuffleSampler

from .config import TrainConfig
from .seeds import epoch_seed, init_worker

Collate = Callable[[Sequence[Event]], Batch]


def _loader(
    dataset: EventDataset,
    batches: BatchSampler | list[list[int]],
    collate: Collate,
    config: TrainConfig,
    device: torch.device,
    *,
    persistent: bool,
) -> DataLoader[Event]:
    return DataLoader(
        cast("Dataset[Event]", dataset),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=init_worker,
        persistent_workers=persistent and config.workers > 0,
        # Its own: else each epoch would draw the workers' seed from the global generator, and a
        # run that was resumed would not be where the straight one is.
        generator=torch.Generator(),
    )


class TrainLoader:
    """Training batches: each event once an epoch, nothing dropped.

    A dataset that draws random numbers of its own in worker processes gives others after a resume;
    with no workers it gives the same.
    """

    def __init__(
        self,
        dataset: EventDataset,
        indices: npt.NDArray[np.integer],
        collate: Collate,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self._config = config
        self._sampler = FileShuffleSampler(indices, dataset.file_of, seed=config.seed)
        batches = BatchSampler(self._sampler, config.batch_size, drop_last=False)
        self._loader = _loader(dataset, batches, collate, config, device, persistent=True)
        #: Batches of a whole epoch.
        self.steps_per_epoch = -(-len(indices) // config.batch_size)

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, but the first `skip` ones, on the host."""
        generator = self._loader.generator
        assert generator is not None
        generator.manual_seed(epoch_seed(self._config.seed, epoch))
        self._sampler.set_epoch(epoch, skip=skip * self._config.batch_size)
        return cast("Iterator[Batch]", iter(self._loader))


def in_order(
    dataset: EventDataset,
    indices: npt.NDArray[np.integer],
    collate: Collate,
    config: TrainConfig,
    device: torch.device,
) -> Iterator[Batch]:
    """Batches of the given events in the given order, on the host."""
    size = config.batch_size
    chosen = [indices[start : start + size].tolist() for start in range(0, len(indices), size)]
    loader = _loader(dataset, chosen, collate, config, device, persistent=False)
    return cast("Iterator[Batch]", iter(loader))
