"""Writes small data sets in the competition's layout, and says what is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from icediag.model.event import Event

#: Lengths of events, by batch: a data set small enough to be read in full.
LENGTHS = {1: [3, 0, 5, 1, 40, 2], 7: [0, 4, 4], 30: [9, 1]}

Columns = dict[str, npt.NDArray[Any]]


@dataclass
class Written:
    """What was written: `pulses[batch_id]` and `meta`, column by column, as it is in the files."""

    root: Path
    pulses: dict[int, Columns]
    meta: Columns

    def expected(self, row: int) -> npt.NDArray[np.float64]:
        """The (n, 4) pulses of the event in a meta row, in float64, by the slow and obvious way."""
        pulses = self.pulses[int(self.meta["batch_id"][row])]
        first, last = (int(self.meta[f"{end}_pulse_index"][row]) for end in ("first", "last"))
        return np.array(
            [
                [pulses[name][k] for name in ("time", "charge", "sensor_id", "auxiliary")]
                for k in range(first, last + 1)
            ],
            np.float64,
        ).reshape(-1, 4)


def make(
    lengths: Mapping[int, Sequence[int]], *, seed: int = 0
) -> tuple[dict[int, Columns], Columns]:
    """Pulses and meta of batches whose events have the lengths given, batch by batch."""
    rng = np.random.default_rng(seed)
    pulses: dict[int, Columns] = {}
    meta: dict[str, list[Any]] = {
        name: [] for name in ("batch_id", "event_id", "first_pulse_index", "last_pulse_index")
    }
    event_id = 2**24 + 1  # odd and above 2**24: float32 would not hold it
    for batch_id, counts in lengths.items():
        row = 0
        ids: list[int] = []
        for count in counts:
            meta["batch_id"].append(batch_id)
            meta["event_id"].append(event_id)
            meta["first_pulse_index"].append(row)
            meta["last_pulse_index"].append(row + count - 1)
            ids += [event_id] * count
            row += count
            event_id += 2 * int(rng.integers(1, 9))
        pulses[batch_id] = {
            "sensor_id": rng.integers(0, 5160, row).astype(np.int16),
            "time": rng.integers(5_712, 84_578, row),
            "charge": 0.025 + 0.05 * rng.integers(0, 1_000, row),
            "auxiliary": rng.random(row) < 0.3,
            "event_id": np.array(ids, np.int64),
        }
    columns: Columns = {name: np.array(values, np.int64) for name, values in meta.items()}
    n = len(columns["event_id"])
    columns["azimuth"] = rng.uniform(0, 2 * np.pi, n)
    columns["zenith"] = rng.uniform(0, np.pi, n)
    return pulses, columns


def _table(columns: Columns) -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def write(
    root: Path,
    pulses: dict[int, Columns],
    meta: Columns,
    *,
    row_group_size: int = 1_000,
    meta_row_group_size: int = 1_000,
) -> Written:
    """Writes them to `root`, over what is there."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    for batch_id, columns in pulses.items():
        path = root / "train" / f"batch_{batch_id}.parquet"
        pq.write_table(_table(columns), path, row_group_size=row_group_size)
    pq.write_table(_table(meta), root / "train_meta.parquet", row_group_size=meta_row_group_size)
    return Written(root, pulses, meta)


def write_lengths(
    root: Path,
    lengths: Mapping[int, Sequence[int]],
    *,
    seed: int = 0,
    row_group_size: int = 1_000,
    meta_row_group_size: int = 1_000,
) -> Written:
    """Writes a good data set with events of the lengths given."""
    pulses, meta = make(lengths, seed=seed)
    return write(
        root, pulses, meta, row_group_size=row_group_size, meta_row_group_size=meta_row_group_size
    )


def assert_event(event: Event, written: Written, row: int) -> None:
    """All that the files say of an event, exactly: nothing within a tolerance."""
    expected = written.expected(row)
    got = event.pulse_features
    assert got.dtype == torch.float32
    assert got.shape == (len(expected), 4)
    for column in (0, 2, 3):  # integers: equal as float64 too
        np.testing.assert_array_equal(got[:, column].double().numpy(), expected[:, column])
    np.testing.assert_array_equal(got[:, 1].numpy(), expected[:, 1].astype(np.float32))
    assert event.event_id == written.meta["event_id"][row]
    target = np.array([written.meta["azimuth"][row], written.meta["zenith"][row]])
    assert event.target.dtype == torch.float32
    np.testing.assert_array_equal(event.target.numpy(), target.astype(np.float32))
