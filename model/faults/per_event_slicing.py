"""Fault: each event is cut out of a file's Arrow table and converted by itself.

Four columns of one event at a time: the cost is in the number of calls, not in the bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from icediag.model.event import Event, FileDataset


class PerEventSlicing(Dataset[Event]):
    """A data set that reads event by event, over the same events as the one it replaces."""

    def __init__(self, dataset: FileDataset) -> None:
        self.dataset = dataset
        self._file = -1
        self._table: pa.Table | None = None

    def __getattr__(self, name: str) -> Any:
        # event_ids, lengths, targets, file_of, first: those of the data set that is replaced.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Event:
        index = range(len(self))[index]
        file = int(self.dataset.file_of[index])
        if self._table is None or file != self._file:
            self._table, self._file = self.dataset.read_table(file), file
        rows = self._table.slice(int(self.dataset.first[index]), int(self.dataset.lengths[index]))
        time = rows.column("time").to_numpy()
        charge = rows.column("charge").to_numpy()
        sensor_id = rows.column("sensor_id").to_numpy()
        auxiliary = rows.column("auxiliary").to_numpy()
        features = np.stack([time, charge, sensor_id, auxiliary], axis=1, dtype=np.float32)
        return Event(
            pulse_features=torch.from_numpy(features),
            event_id=int(self.dataset.event_ids[index]),
            target=torch.from_numpy(np.array(self.dataset.targets[index])),
        )

    def __getitems__(self, indices: Sequence[int]) -> list[Event]:
        return [self[index] for index in indices]

    def geometry(self) -> Float[Tensor, "sensors 3"]:
        """Positions of the DOMs, metres."""
        return self.dataset.geometry()
