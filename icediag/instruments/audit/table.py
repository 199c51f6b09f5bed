"""The table of events, streamed in the order of its rows."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from icediag.errors import IcediagError
from icediag.model.parquet import open_parquet
from icediag.model.tables import META_COLUMNS

from .blocks import values_of

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

#: Rows decoded at a time, 6 MB.
BLOCK = 2**17


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaRows:
    """Rows of the table, N in all.

    Attributes:
        row: `(N,)` their numbers, counted from 0.
        event_id: `(N,)`.
        first: `(N,)` first row of the event's pulses.
        last: `(N,)` last row, itself included.
        azimuth: `(N,)` as they stand there.
        zenith: `(N,)`.
    """

    row: I64
    event_id: I64
    first: I64
    last: I64
    azimuth: F64
    zenith: F64

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: Any) -> "MetaRows":
        """Some of them."""
        return MetaRows(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def _join(parts: list[MetaRows]) -> MetaRows:
    if len(parts) == 1:
        return parts[0]
    return MetaRows(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(MetaRows)}
    )


_EMPTY = MetaRows(
    row=np.empty(0, np.int64),
    event_id=np.empty(0, np.int64),
    first=np.empty(0, np.int64),
    last=np.empty(0, np.int64),
    azimuth=np.empty(0),
    zenith=np.empty(0),
)


class MetaReader:
    """`train_meta.parquet`, read forwards: the rows of a batch, one batch after the other.

    What is held at a time is one block and the rows of one batch. A table in the order of its
    batches is decoded once; in any other order it is read again for each step backwards.

    Attributes:
        n_rows: Rows of the table.
        batches: Batch -> stretches of rows, (first, one after the last).

    Raises:
        DataError: The file or a column is missing, or of another type.
        IcediagError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetFile = open_parquet(path, META_COLUMNS)
        self.n_rows: int = self._file.metadata.num_rows
        self.batches: dict[int, list[tuple[int, int]]] = {}
        for start, columns in self._stream(["batch_id"], 0):
            batch = _integers(columns[0])
            cuts = np.flatnonzero(batch[1:] != batch[:-1]) + 1
            for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), len(batch)], strict=True):
                self._add(int(batch[low]), start + low, start + high)
        self._blocks: Iterator[MetaRows] = iter(())
        self._held = _EMPTY
        self._at = -1

    def _add(self, batch: int, low: int, high: int) -> None:
        stretches = self.batches.setdefault(batch, [])
        if stretches and stretches[-1][1] == low:
            stretches[-1] = (stretches[-1][0], high)
        else:
            stretches.append((low, high))

    def rows_of(self, batch: int) -> MetaRows:
        """The rows of a batch, in the order of the table; none where it has none."""
        parts = [self._rows(low, high) for low, high in self.batches.get(batch, [])]
        return _join(parts) if parts else _EMPTY

    def _rows(self, low: int, high: int) -> MetaRows:
        if self._at < 0 or low < self._at:
            self._at, self._held = low - low % BLOCK, _EMPTY
            self._blocks = self._decoded(self._at)
        parts = []
        while self._at < high:
            if not len(self._held):
                self._held = next(self._blocks)
            start = int(self._held.row[0])
            inside = slice(max(low - start, 0), max(high - start, 0))
            if len(self._held.row[inside]):
                parts.append(self._held.take(inside))
            self._at = min(high, start + len(self._held))
            if self._at < start + len(self._held):
                self._held = self._held.take(slice(self._at - start, None))
                break
            self._held = _EMPTY
        return _join(parts)

    def _decoded(self, start: int) -> Iterator[MetaRows]:
        names = ["event_id", "first_pulse_index", "last_pulse_index", "azimuth", "zenith"]
        for row, columns in self._stream(names, start):
            event_id, first, last = (_integers(column) for column in columns[:3])
            azimuth, zenith = (_floats(column) for column in columns[3:])
            yield MetaRows(
                row=np.arange(row, row + len(event_id)),
                event_id=event_id,
                first=first,
                last=last,
                azimuth=azimuth,
                zenith=zenith,
            )

    def _stream(self, names: list[str], start: int) -> "Iterator[tuple[int, list[pa.Array[Any]]]]":
        """Blocks from a row on: the first row of each, and its columns."""
        row = 0
        groups = []
        for group in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if row + rows > start:
                groups.append((group, row))
            row += rows
        try:
            for group, first in groups:
                row = first
                for block in self._file.iter_batches(BLOCK, row_groups=[group], columns=names):
                    if row + block.num_rows > start:
                        skip = max(start - row, 0)
                        yield row + skip, [block.column(n).slice(skip) for n in names]
                    row += block.num_rows
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise IcediagError(f"{self._path}: from row {row} on not readable: {reason}") from error

    def close(self) -> None:
        """Gives the file handle back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _integers(column: "pa.Array[Any]") -> I64:
    """As int64; a missing value as -1, which is no valid id and no valid row."""
    if column.null_count:  # else left alone: what fills imports pandas, for a second
        column = column.fill_null(-1)
    return values_of(column).astype(np.int64, copy=False)


def _floats(column: "pa.Array[Any]") -> F64:
    """As float64; a missing value as NaN."""
    return values_of(column).astype(np.float64, copy=False)
