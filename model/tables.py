"""The two tables beside the batch files: `train_meta.parquet` and `sensor_geometry.csv`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from .event import N_SENSORS
from .parquet import (
    FLOAT,
    INTEGER,
    Rows,
    check_range,
    data_error,
    open_parquet,
    reject,
    to_int64,
    to_numpy,
)

_T = TypeVar("_T", bound=np.generic)

META_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "batch_id": INTEGER,
        "event_id": INTEGER,
        "first_pulse_index": INTEGER,
        "last_pulse_index": INTEGER,
        "azimuth": FLOAT,
        "zenith": FLOAT,
    }
)

# Rows decoded at a time: the 132 million rows may lie in two row groups, 3 GB each when decoded.
_BLOCK_ROWS = 2**20

# Angles may pass their ends by this much, radians: 2 pi stored as float32 is 1.7e-7 above 2 pi.
_ANGLE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaIndex:
    """What is kept of `train_meta.parquet`: 30 bytes an event, 4 GB for all 132 million.

    Attributes:
        event_ids: `(events,)` int64, each once.
        file_of: `(events,)` int16 (int32 beyond 32,768 files), position in the batches asked for.
        first: `(events,)` int64, first row of the event in its file, >= 0.
        lengths: `(events,)` int32, number of pulses, >= 0.
        targets: `(events, 2)` float32, azimuth in [0, 2 pi] and zenith in [0, pi], radians.
        n_unused: Rows of the table that belong to no file asked for.
    """

    event_ids: npt.NDArray[np.int64]
    file_of: npt.NDArray[np.integer[Any]]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    targets: npt.NDArray[np.float32]
    n_unused: int


def read_meta(path: Path, batch_ids: npt.NDArray[np.int64]) -> MetaIndex:
    """Reads the rows of the meta table that belong to some batch files, in the order of the table.

    Row groups whose statistics show none of the batches are skipped, the others are streamed.

    Args:
        path: `train_meta.parquet`.
        batch_ids: `(files,)` ascending, the batches wanted.

    Returns:
        The rows wanted. `last_pulse_index` is inclusive: an event without pulses has
        last = first - 1.

    Raises:
        DataError: The file or a column is missing or damaged, a value is out of range, an event id
            comes twice.
    """
    with open_parquet(path, META_COLUMNS) as file:
        groups = _groups_with(file, batch_ids)
        # The upper bound is free: memory that is never written is never taken from the system.
        capacity = sum(file.metadata.row_group(group).num_rows for group in groups)
        event_ids = np.empty(capacity, np.int64)
        small = len(batch_ids) <= 2**15
        file_of: npt.NDArray[np.integer[Any]] = np.empty(capacity, np.int16 if small else np.int32)
        first = np.empty(capacity, np.int64)
        lengths = np.empty(capacity, np.int32)
        targets = np.empty((capacity, 2), np.float32)
        n = 0
        for rows, files, table in _wanted(path, file, groups, list(META_COLUMNS), batch_ids):
            here = slice(n, n + len(rows))
            n = here.stop
            file_of[here] = files
            event_ids[here] = to_int64(path, "event_id", table.column("event_id"), rows)
            first[here], lengths[here] = _pulse_ranges(path, table, rows)
            for axis, name, end in ((0, "azimuth", 2 * np.pi), (1, "zenith", np.pi)):
                expected = f"an angle in [0, {'2 pi' if axis == 0 else 'pi'}] rad"
                angle = to_numpy(path, name, table.column(name), rows, expected)
                low, high = -_ANGLE_TOLERANCE, end + _ANGLE_TOLERANCE
                check_range(path, name, angle, rows, low, high, expected)
                targets[here, axis] = angle
        n_unused = file.metadata.num_rows - n
    index = MetaIndex(
        event_ids=_trimmed(event_ids, n),
        file_of=_trimmed(file_of, n),
        first=_trimmed(first, n),
        lengths=_trimmed(lengths, n),
        targets=_trimmed(targets, n),
        n_unused=n_unused,
    )
    _check_unique(path, index.event_ids, batch_ids)
    return index


def meta_rows_of(path: Path, event_id: int, batch_ids: npt.NDArray[np.int64]) -> list[int]:
    """Rows of the meta table, counted from 0, that name an event; a second pass, for messages.

    Args:
        path: `train_meta.parquet`.
        event_id: The event.
        batch_ids: `(files,)` ascending, the batches to look at.

    Returns:
        The rows, ascending.
    """
    names = ["batch_id", "event_id"]
    found: list[int] = []
    with open_parquet(path, {name: META_COLUMNS[name] for name in names}) as file:
        groups = _groups_with(file, batch_ids)
        for rows, _, table in _wanted(path, file, groups, names, batch_ids):
            ids = to_int64(path, "event_id", table.column("event_id"), rows)
            found.extend(rows[ids == event_id].tolist())
    return found


def _groups_with(file: pq.ParquetFile, batch_ids: npt.NDArray[np.int64]) -> list[int]:
    """The row groups that may hold one of the batches, by their statistics."""
    footer = file.metadata
    groups = []
    for group in range(footer.num_row_groups):
        chunks = footer.row_group(group)
        for c in range(chunks.num_columns):
            if chunks.column(c).path_in_schema != "batch_id":
                continue
            if _may_hold(chunks.column(c).statistics, batch_ids):
                groups.append(group)
    return groups


def _may_hold(span: pq.Statistics | None, batch_ids: npt.NDArray[np.int64]) -> bool:
    if span is None or span.min is None or span.max is None:
        return True
    # Some id lies in [min, max] where more ids are <= max than are < min.
    return bool(batch_ids.searchsorted(span.min) < batch_ids.searchsorted(span.max, side="right"))


def _wanted(
    path: Path,
    file: pq.ParquetFile,
    groups: list[int],
    columns: list[str],
    batch_ids: npt.NDArray[np.int64],
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], pa.Table]]:
    """Streams the wanted rows: their row numbers, their positions in `batch_ids`, their columns."""
    for start, table in _blocks(path, file, groups, columns):
        rows = np.arange(start, start + table.num_rows)
        batch = to_int64(path, "batch_id", table.column("batch_id"), rows)
        files = np.searchsorted(batch_ids, batch).clip(max=len(batch_ids) - 1)
        wanted = batch_ids[files] == batch
        if wanted.all():
            yield rows, files, table
        elif wanted.any():
            yield rows[wanted], files[wanted], table.filter(pa.array(wanted))


def _blocks(
    path: Path, file: pq.ParquetFile, groups: list[int], columns: list[str]
) -> Iterator[tuple[int, pa.Table]]:
    """Streams row groups in blocks: the first row of each block in the file, and the block."""
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    for group in groups:
        row = start = sum(sizes[:group])
        try:
            for batch in file.iter_batches(_BLOCK_ROWS, row_groups=[group], columns=columns):
                yield row, pa.Table.from_batches([batch])
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise data_error(
                path,
                f"row group {group}, from row {row} (counted from 0): expected readable data, "
                f"got: {error}",
            ) from error
        if row - start != sizes[group]:
            raise data_error(
                path,
                f"row group {group}: expected {sizes[group]} rows as the footer says, "
                f"got {row - start}",
            )


def _pulse_ranges(
    path: Path, table: pa.Table, rows: Rows
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First row and number of pulses of each event: 61 and 51 for first 61, last 111."""
    names = ("first_pulse_index", "last_pulse_index")
    first, last = (to_int64(path, name, table.column(name), rows) for name in names)
    reject(path, names[0], first < 0, first, rows, "a pulse row >= 0")
    # `first` is >= 0 here, so neither difference below can overflow.
    expected = "first_pulse_index - 1 (an event without pulses) or more"
    reject(path, names[1], last < first - 1, last, rows, expected)
    too_long = last - first >= np.iinfo(np.int32).max
    reject(path, names[1], too_long, last, rows, "an event of fewer than 2**31 - 1 pulses")
    return first, last - first + 1


def _trimmed(array: npt.NDArray[_T], n: int) -> npt.NDArray[_T]:
    return array if n == len(array) else array[:n].copy()


def _check_unique(
    path: Path, event_ids: npt.NDArray[np.int64], batch_ids: npt.NDArray[np.int64]
) -> None:
    if (event_ids[1:] > event_ids[:-1]).all():  # ascending, the usual case: no sort needed
        return
    ids = np.sort(event_ids)
    twice = ids[1:] == ids[:-1]
    if twice.any():
        event_id = int(ids[np.argmax(twice)])
        rows = meta_rows_of(path, event_id, batch_ids)
        raise data_error(
            path,
            f"column 'event_id', rows {rows[0]} and {rows[1]} (counted from 0): expected every "
            f"event_id once, got {event_id} twice",
        )


def read_geometry(path: Path) -> npt.NDArray[np.float32]:
    """Reads `sensor_geometry.csv`.

    Args:
        path: A CSV file with the columns sensor_id, x, y, z.

    Returns:
        `(5160, 3)` float32, metres: row `s` is the position of the DOM with sensor_id `s`.

    Raises:
        DataError: No such file or column, a field that is no number, a DOM missing or named twice.
    """
    if not path.is_file():
        raise data_error(path, "expected a CSV file of sensor_id,x,y,z, found none")
    names = ("sensor_id", "x", "y", "z")
    types = {"sensor_id": pa.int64(), **{axis: pa.float64() for axis in names[1:]}}
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(use_threads=False),  # else errors name no row
            convert_options=pa.csv.ConvertOptions(column_types=types),
        )
    except (pa.ArrowException, OSError) as error:
        raise data_error(path, f"expected a CSV file of sensor_id,x,y,z, got: {error}") from error
    for name in names:
        if table.column_names.count(name) != 1:
            raise data_error(
                path,
                f"column '{name}': expected one such column, got {', '.join(table.column_names)}",
            )
    rows = range(table.num_rows)
    sensor_id = to_numpy(path, names[0], table.column(names[0]), rows, "a sensor_id")
    expected = f"a sensor_id in 0..{N_SENSORS - 1}"
    check_range(path, "sensor_id", sensor_id, rows, 0, N_SENSORS - 1, expected)
    times_named = np.bincount(sensor_id, minlength=N_SENSORS)
    if (times_named != 1).any():
        sensor = int(np.argmax(times_named != 1))
        raise data_error(
            path,
            f"column 'sensor_id': expected each of 0..{N_SENSORS - 1} once, got {sensor} "
            f"{times_named[sensor]} times",
        )
    positions = np.empty((N_SENSORS, 3), np.float32)
    for axis, name in enumerate(names[1:]):
        metres = to_numpy(path, name, table.column(name), rows, "a finite position in m")
        reject(path, name, ~np.isfinite(metres), metres, rows, "a finite position in m")
        positions[sensor_id, axis] = metres
    return positions
