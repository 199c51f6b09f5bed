"""Reading Parquet columns, and the batch files of pulses: all checked, every failure one line.

Each function names the file, column and row of what it rejects. Rows are counted from 0, over the
whole file, so `table.iloc[row]` or `pandas.read_parquet(path).iloc[row]` shows the offender.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import DataError
from .event import FLOAT32_EXACT, N_SENSORS

Rows = range | npt.NDArray[np.int64]
Values = npt.NDArray[Any]

FLOAT32_MAX = float(np.finfo(np.float32).max)

#: What a column may be: the words of the message, and the test of its Arrow type.
_KINDS: Mapping[str, Callable[[pa.DataType], bool]] = MappingProxyType(
    {
        "an integer type": pa.types.is_integer,
        "a floating-point type": pa.types.is_floating,
        "a floating-point or integer type": lambda t: (
            pa.types.is_floating(t) or pa.types.is_integer(t)
        ),
        "bool (or integers 0 and 1)": lambda t: pa.types.is_boolean(t) or pa.types.is_integer(t),
    }
)
INTEGER, FLOAT, NUMBER, FLAG = _KINDS

PULSE_COLUMNS: Mapping[str, str] = MappingProxyType(
    {"time": INTEGER, "charge": NUMBER, "sensor_id": INTEGER, "auxiliary": FLAG}
)
#: The pandas index of a batch file: where it was stored it is compared with the meta table.
EVENT_ID: Mapping[str, str] = MappingProxyType({"event_id": INTEGER})


def data_error(path: Path, text: str) -> DataError:
    """The error for `path`, forced onto one line: a path or a library's message may hold breaks."""
    return DataError(" ".join(f"{path}: {text}".splitlines()))


def open_parquet(
    path: Path, columns: Mapping[str, str], optional: Mapping[str, str] = MappingProxyType({})
) -> pq.ParquetFile:
    """Opens a Parquet file after a look at its footer.

    Args:
        path: The file.
        columns: Names that must be there, with the kind (a key of `_KINDS`) each must be of.
        optional: Names that may be there, with their kinds.

    Returns:
        The open file; the caller closes it.

    Raises:
        DataError: No such file, no readable footer, a column missing, double or of another type.
    """
    if not path.is_file():
        raise data_error(path, "expected a Parquet file, found none")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    try:
        _check_schema(path, file.schema_arrow, columns, optional)
    except (pa.ArrowException, OSError) as error:
        file.close()
        raise _unreadable(path, error) from error
    except DataError:
        file.close()
        raise
    return file


def _unreadable(path: Path, error: Exception) -> DataError:
    return data_error(path, f"expected a complete, readable Parquet file, got: {error}")


def _check_schema(
    path: Path, schema: pa.Schema, columns: Mapping[str, str], optional: Mapping[str, str]
) -> None:
    for name, kind in {**columns, **optional}.items():
        found = schema.names.count(name)
        if found == 0 and name in optional:
            continue
        if found != 1:
            came = "none" if found == 0 else str(found)
            raise data_error(
                path,
                f"column '{name}': expected one such column, got {came} "
                f"(columns: {', '.join(schema.names)})",
            )
        if not _KINDS[kind](schema.field(name).type):
            raise data_error(
                path, f"column '{name}': expected {kind}, got {schema.field(name).type}"
            )


def reject(path: Path, column: str, bad: Values, values: Values, rows: Rows, expected: str) -> None:
    """Raises for the first row that `bad` marks; `rows` says which row of the file each one is.

    Raises:
        DataError: Some row is bad. The message names file, column, row, expectation and value.
    """
    if bad.any():
        at = int(np.argmax(bad))
        raise data_error(
            path,
            f"column '{column}', row {int(rows[at])} (counted from 0): "
            f"expected {expected}, got {values[at]}",
        )


def to_numpy(
    path: Path, name: str, column: "pa.ChunkedArray[Any]", rows: Rows, expected: str
) -> Values:
    """The column as a numpy array of its own type, without a copy where Arrow allows.

    Raises:
        DataError: A value is null, which is also how pandas writes NaN.
    """
    if column.null_count:
        bad = column.is_null().to_numpy()
        reject(path, name, bad, np.full(len(column), "null"), rows, expected)
    if column.num_chunks == 1:
        only: Any = column.chunk(0)  # pyarrow's types say it is chunked, as the whole is
        return in_memory(only)
    return column.to_numpy()


def in_memory(column: "pa.Array[Any]") -> Values:
    """A column of numbers or flags without nulls, as it lies in memory; flags are copied.

    Not by `to_numpy`, which imports pandas, for a second, and takes flags out one by one.
    """
    n, offset = len(column), column.offset
    memory: Any = column.buffers()[1]
    if memory is None or not n:
        return np.empty(0, _dtype(column.type))
    if pa.types.is_boolean(column.type):
        bits = np.frombuffer(memory, np.uint8)
        return np.unpackbits(bits, count=offset + n, bitorder="little")[offset:].view(np.bool_)
    kind: Any = column.type
    values: Values = np.frombuffer(memory, _dtype(kind), n, offset * kind.bit_width // 8)
    return values


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_boolean(kind):
        return np.dtype(np.bool_)
    letter = "f" if pa.types.is_floating(kind) else "i" if pa.types.is_signed_integer(kind) else "u"
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def to_int64(
    path: Path, name: str, column: "pa.ChunkedArray[Any]", rows: Rows
) -> npt.NDArray[np.int64]:
    """The integer column as int64; an unsigned value that would wrap round is an error."""
    expected = "an integer of 64 bits, signed"
    values = to_numpy(path, name, column, rows, expected)
    if values.dtype == np.uint64:
        reject(path, name, values > np.uint64(np.iinfo(np.int64).max), values, rows, expected)
    return values.astype(np.int64, copy=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class PulseColumns:
    """The checked pulses of one row group, each column in the type of the file.

    Attributes:
        time: `(rows,)` integer, ns; |time| <= 2**24, so that float32 holds it exactly.
        charge: `(rows,)` float or integer, p.e., finite, >= 0.
        sensor_id: `(rows,)` integer, 0..5159.
        auxiliary: `(rows,)` bool, or uint8 0 and 1.
        dom_ranks: `(rows,)` int16, see `grouping.dom_ranks`; None where the file has none.
    """

    time: Values
    charge: Values
    sensor_id: Values
    auxiliary: npt.NDArray[np.bool_ | np.uint8]
    dom_ranks: npt.NDArray[np.int16] | None = None

    @property
    def nbytes(self) -> int:
        """Memory that the four columns take, bytes."""
        return sum(
            column.nbytes for column in (self.time, self.charge, self.sensor_id, self.auxiliary)
        )


class PulseFile:
    """One open `batch_N.parquet`: schema checked on opening, values when a row group is decoded.

    Attributes:
        path: Where it lies.
        bounds: First row of each row group, and the number of rows last: group g holds the rows
            `bounds[g] <= row < bounds[g + 1]`.

    Raises:
        DataError: As `open_parquet`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_parquet(path, PULSE_COLUMNS, EVENT_ID)
        footer = self._file.metadata
        self.bounds = [0]
        for group in range(footer.num_row_groups):
            self.bounds.append(self.bounds[-1] + footer.row_group(group).num_rows)
        schema = self._file.schema_arrow
        self._has_event_id = "event_id" in schema.names
        # Arrow packs bools into bits, numpy gives each a byte.
        self._row_bytes: int = sum(
            max(8, schema.field(c).type.bit_width) // 8 for c in PULSE_COLUMNS
        )

    @property
    def n_rows(self) -> int:
        """Number of pulses in the file."""
        return self.bounds[-1]

    def group_bytes(self, group: int) -> int:
        """Memory that `read_group(group)` will take, bytes, known without reading it."""
        return (self.bounds[group + 1] - self.bounds[group]) * self._row_bytes

    def read_group(self, group: int) -> tuple[PulseColumns, npt.NDArray[np.int64] | None]:
        """Decodes and checks one row group.

        Args:
            group: Which one, from 0.

        Returns:
            Its pulses, and the event_id of each row, `None` where the file stores none.

        Raises:
            DataError: Damaged data, a null, or a value out of range.
        """
        rows = range(self.bounds[group], self.bounds[group + 1])
        time = self._column(group, "time", rows, "a time in ns")
        check_range(
            self.path, "time", time, rows, -FLOAT32_EXACT, FLOAT32_EXACT,
            "a time within +-2**24 ns, up to which float32 is exact",
        )  # fmt: skip
        expected = "a finite charge >= 0 p.e. that float32 can hold"
        charge = self._column(group, "charge", rows, expected)
        check_range(self.path, "charge", charge, rows, 0, FLOAT32_MAX, expected)
        expected = f"a sensor_id in 0..{N_SENSORS - 1}"
        sensor_id = self._column(group, "sensor_id", rows, expected)
        check_range(self.path, "sensor_id", sensor_id, rows, 0, N_SENSORS - 1, expected)
        auxiliary = self._column(group, "auxiliary", rows, "true or false")
        if auxiliary.dtype != np.bool_:
            check_range(self.path, "auxiliary", auxiliary, rows, 0, 1, "0 or 1")
            auxiliary = auxiliary.astype(np.bool_)
        event_id = None
        if self._has_event_id:
            event_id = to_int64(self.path, "event_id", self._read(group, "event_id", rows), rows)
        columns = PulseColumns(time=time, charge=charge, sensor_id=sensor_id, auxiliary=auxiliary)
        return columns, event_id

    def read_table(self) -> pa.Table:
        """All rows of the pulse columns, unchecked.

        Raises:
            DataError: A page of the file is damaged.
        """
        try:
            return self._file.read(columns=list(PULSE_COLUMNS))
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from error

    def close(self) -> None:
        """Gives the file handle back."""
        self._file.close()

    def _column(self, group: int, name: str, rows: range, expected: str) -> Values:
        return to_numpy(self.path, name, self._read(group, name, rows), rows, expected)

    def _read(self, group: int, name: str, rows: range) -> "pa.ChunkedArray[Any]":
        # One column at a time, so that at most one is held twice. No threads: the data loader's
        # workers are the parallelism, and a forked worker must not inherit a thread pool.
        try:
            table = self._file.read_row_group(group, columns=[name], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise data_error(
                self.path,
                f"column '{name}', row group {group} (rows {rows.start}..{rows.stop - 1}, counted "
                f"from 0): expected readable data, got: {error}",
            ) from error
        if table.num_rows != len(rows):
            raise data_error(
                self.path,
                f"column '{name}', row group {group}: expected {len(rows)} rows as the footer "
                f"says, got {table.num_rows}",
            )
        return table.column(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_range(
    path: Path, name: str, values: Values, rows: Rows, low: float, high: float, expected: str
) -> None:
    """Rejects the first value outside [low, high]; NaN is outside.

    Raises:
        DataError: As `reject`.
    """
    if not values.size:
        return
    # Two reductions make no temporary; the mask, three times as dear, is made only to find the row.
    # `.item()`: Python numbers compare without overflow whatever the column's type is.
    if low <= values.min().item() and values.max().item() <= high:
        return
    # In float64, as above: numpy would round the bounds to the column's own type.
    wide = values.astype(np.float64) if values.dtype.kind == "f" else values
    reject(path, name, ~((wide >= low) & (wide <= high)), values, rows, expected)
