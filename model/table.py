"""Events as columns in memory, the data set over them, and the competition's files made of them."""

# N events, P pulses

import contextlib
import csv
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .array import icecube86
from .block import EventBlock
from .errors import DataError
from .event import AUXILIARY, CHARGE, N_SENSORS, SENSOR_ID, TIME, Event
from .gather import positions, rows_of
from .grouping import dom_ranks

if TYPE_CHECKING:  # it is made of what the simulator knows, which makes tables
    from .truth import EventTruth

_DTYPES = {
    "event_id": np.int64,
    "first": np.int64,
    "sensor_id": np.int16,
    "time": np.int64,
    "charge": np.float64,
    "auxiliary": np.bool_,
    "azimuth": np.float64,
    "zenith": np.float64,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTable:
    """N events with P pulses in all, checked when made.

    Attributes:
        event_id: `(N,)` int64, each once.
        first: `(N + 1,)` int64 row offsets: event i has the pulses `first[i]:first[i + 1]`, none if
            the two are equal. From 0 to P, never falling.
        sensor_id: `(P,)` int16, 0..5159.
        time: `(P,)` int64, ns.
        charge: `(P,)` float64, p.e., finite and >= 0.
        auxiliary: `(P,)` bool, True for not fully digitised, more likely noise.
        azimuth: `(N,)` float64 in [0, 2 pi], rad, of the direction the neutrino came from.
        zenith: `(N,)` float64 in [0, pi], rad, of the same.

    Raises:
        ValueError: A column has another dtype, shape or range; the message names it.
    """

    event_id: NDArray[np.int64]
    first: NDArray[np.int64]
    sensor_id: NDArray[np.int16]
    time: NDArray[np.int64]
    charge: NDArray[np.float64]
    auxiliary: NDArray[np.bool_]
    azimuth: NDArray[np.float64]
    zenith: NDArray[np.float64]

    def __post_init__(self) -> None:
        n, p = len(self.event_id), len(self.sensor_id)
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            if not isinstance(column, np.ndarray) or column.dtype != dtype:
                got = getattr(column, "dtype", type(column).__name__)
                raise ValueError(
                    f"EventTable.{name}: expected a numpy array of {np.dtype(dtype)}, got {got}"
                )
            length = {"first": n + 1, "event_id": n, "azimuth": n, "zenith": n}.get(name, p)
            if column.shape != (length,):
                raise ValueError(
                    f"EventTable.{name}: expected shape ({length},), got {column.shape}"
                )
        if self.first[0] != 0 or self.first[-1] != p or (np.diff(self.first) < 0).any():
            raise ValueError(f"EventTable.first: expected offsets rising from 0 to {p}")
        if len(np.unique(self.event_id)) != n:
            raise ValueError("EventTable.event_id: expected each event_id once, got duplicates")
        _require_within("sensor_id", self.sensor_id, 0, N_SENSORS - 1)
        _require_within("charge", self.charge, 0.0, np.finfo(np.float64).max)
        _require_within("azimuth", self.azimuth, 0.0, 2 * np.pi)
        _require_within("zenith", self.zenith, 0.0, np.pi)

    @property
    def n_events(self) -> int:
        """N, the number of events."""
        return len(self.event_id)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`(N,)` pulses of each event."""
        return np.diff(self.first)


def _require_within(
    name: str, column: NDArray[np.float64] | NDArray[np.int16], low: float, high: float
) -> None:
    # Written so that NaN, of which no comparison is true, is refused too.
    if not np.all((column >= low) & (column <= high)):
        raise ValueError(f"EventTable.{name}: expected values in [{low:.6g}, {high:.6g}]")


class TableDataset(Dataset[Event]):
    """A map-style data set over an `EventTable`.

    The float32 features of all pulses are made once, so that an event is a slice: `[i]` copies
    nothing (do not write to it). Times, sensor_id and auxiliary are exact in float32 (times up to
    2**24 ns), charges are rounded to it.

    Attributes:
        table: The events.
        event_ids: `(N,)` int64.
        lengths: `(N,)` int64, pulses of each event.
        first: `(N,)` int64, row of each event's first pulse.
        targets: `(N, 2)` float32, azimuth and zenith, rad.
        file_of: `(N,)` int64, number of the file an event lies in: 0, as all are in memory.
        truth: Kind and energy of each event, where they are known.
    """

    def __init__(self, table: EventTable, *, truth: "EventTruth | None" = None) -> None:
        self.table = table
        self.truth = truth
        self.event_ids = table.event_id
        self.lengths = table.lengths
        self.targets = np.stack([table.azimuth, table.zenith], axis=1).astype(np.float32)
        self.first = table.first[:-1]
        self.file_of = np.zeros(table.n_events, dtype=np.int64)
        features = np.empty((len(table.time), 4), dtype=np.float32)
        features[:, TIME] = table.time
        features[:, CHARGE] = table.charge
        features[:, SENSOR_ID] = table.sensor_id
        features[:, AUXILIARY] = table.auxiliary
        self._features = torch.from_numpy(features)
        self._targets = torch.from_numpy(self.targets)
        # Python integers: slicing a tensor by them is several times faster than by numpy's.
        self._first = table.first.tolist()
        self._ids = table.event_id.tolist()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Event:
        """Event number `index`, 0..N - 1, or from the end if negative.

        Raises:
            IndexError: No such event.
        """
        n = len(self._ids)
        if not -n <= index < n:
            raise IndexError(f"index: expected {-n}..{n - 1}, got {index}")
        i = index % n
        return Event(
            pulse_features=self._features[self._first[i] : self._first[i + 1]],
            event_id=self._ids[i],
            target=self._targets[i],
        )

    def __getitems__(self, indices: Sequence[int]) -> EventBlock:
        """The events of a batch, in the order asked for (torch's DataLoader calls this).

        Raises:
            IndexError: No such event.
        """
        at = positions(indices, len(self))
        rows = torch.from_numpy(rows_of(self.first[at], self.lengths[at]))
        return EventBlock(
            pulse_features=self._features.index_select(0, rows),
            lengths=self.lengths[at],
            event_ids=self.event_ids[at],
            targets=self._targets.index_select(0, torch.from_numpy(at)),
            dom_ranks=self._dom_ranks.take(rows.numpy()),
        )

    @functools.cached_property
    def _dom_ranks(self) -> NDArray[np.int16]:
        return dom_ranks(self.table.sensor_id, self.lengths)

    def read_table(self, file: int) -> pa.Table:
        """All pulses as one Arrow table; the columns are not copied.

        Args:
            file: 0, the only one.

        Raises:
            IndexError: Another number.
        """
        if file != 0:
            raise IndexError(f"file: expected 0, got {file}")
        columns = ("time", "charge", "sensor_id", "auxiliary")
        return pa.table({name: getattr(self.table, name) for name in columns})

    def geometry(self) -> Tensor:
        """`(5160, 3)` float32: x, y, z of each DOM in metres, row = sensor_id."""
        return torch.from_numpy(icecube86().astype(np.float32))


def write_dataset(
    table: EventTable,
    out: Path,
    *,
    events_per_file: int = 200_000,
    overwrite: bool = False,
    extra: Mapping[str, pa.Table] = MappingProxyType({}),
) -> None:
    """Write events in the layout of the competition "IceCube - Neutrinos in Deep Ice".

    `out/train/batch_1.parquet`, `batch_2` and so on hold the pulses, indexed by event_id;
    `out/train_meta.parquet` the truth and each event's rows in its file, the last one included (an
    event without pulses has `last_pulse_index` = `first_pulse_index` - 1);
    `out/sensor_geometry.csv` the array. The folder is there completely or not at all: it is written
    beside its place and then renamed.

    Args:
        table: The events, in the order in which they are written.
        out: The folder. May exist if it is empty.
        events_per_file: Events of a batch file, at least 1.
        overwrite: Replace a folder that is not empty.
        extra: Further tables, by file name, e.g. the truth beyond direction.

    Raises:
        ValueError: `events_per_file` is below 1.
        DataError: `out` exists with content, is a file, or cannot be written.
    """
    if events_per_file < 1:
        raise ValueError(f"events_per_file: expected at least 1, got {events_per_file}")
    out = Path(out)
    try:
        if out.exists() and not out.is_dir():
            raise DataError(f"{out}: expected a folder to write to, found a file")
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise DataError(f"{out}: expected an empty or new folder, found files in it")
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        made = scratch / "made"
        made.mkdir()  # under mkdtemp's private folder, yet with the user's own permissions
        _write(table, made, events_per_file)
        for name, columns in extra.items():
            pq.write_table(columns, made / name)
        _put_in_place(made, out, scratch / "replaced")
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        # Nothing is left behind, also after Ctrl-C; what cannot be removed must not hide the error.
        # Only the user's own old folder, if it could not be put back, is never thrown away.
        if out.exists() or not (scratch / "replaced").exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(made: Path, out: Path, replaced: Path) -> None:
    if not out.exists():
        made.rename(out)
        return
    out.rename(replaced)
    try:
        made.rename(out)
    except BaseException:
        with contextlib.suppress(OSError):
            replaced.rename(out)
        raise


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(f"{out}: cannot be written ({error.strerror or error})")


def _write(table: EventTable, folder: Path, events_per_file: int) -> None:
    (folder / "train").mkdir()
    batch = np.arange(table.n_events) // events_per_file + 1
    begin = np.zeros(table.n_events, dtype=np.int64)
    # An empty table still gets one file, so that the layout is complete.
    for number in range(1, max(int(batch.max(initial=0)), 1) + 1):
        low = (number - 1) * events_per_file
        high = min(low + events_per_file, table.n_events)
        first = table.first[low : high + 1]
        begin[low:high] = first[:-1] - first[0]
        rows = slice(int(first[0]), int(first[-1]))
        pulses = pa.table(
            {
                "sensor_id": pa.array(table.sensor_id[rows]),
                "time": pa.array(table.time[rows]),
                "charge": pa.array(table.charge[rows]),
                "auxiliary": pa.array(table.auxiliary[rows]),
                "event_id": pa.array(np.repeat(table.event_id[low:high], np.diff(first))),
            }
        )
        _write_parquet(pulses, folder / "train" / f"batch_{number}.parquet", index="event_id")
    meta = pa.table(
        {
            "batch_id": pa.array(batch.astype(np.int64)),
            "event_id": pa.array(table.event_id),
            "first_pulse_index": pa.array(begin),
            "last_pulse_index": pa.array(begin + table.lengths - 1),
            "azimuth": pa.array(table.azimuth),
            "zenith": pa.array(table.zenith),
        }
    )
    _write_parquet(meta, folder / "train_meta.parquet", index=None)
    with (folder / "sensor_geometry.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sensor_id", "x", "y", "z"])
        for sensor, (x, y, z) in enumerate(icecube86().tolist()):
            writer.writerow([sensor, f"{x:.2f}", f"{y:.2f}", f"{z:.2f}"])


def _write_parquet(table: pa.Table, path: Path, *, index: str | None) -> None:
    """Write with the note by which pandas knows the index, without making a data frame for it."""
    names = {"int16": "int16", "int64": "int64", "double": "float64", "bool": "bool"}
    columns = [
        {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": names[str(field.type)],
            "numpy_type": names[str(field.type)],
            "metadata": None,
        }
        for field in table.schema
    ]
    rows = {"kind": "range", "name": None, "start": 0, "stop": table.num_rows, "step": 1}
    note = {
        "index_columns": [rows if index is None else index],
        "column_indexes": [],
        "columns": columns,
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), path)
