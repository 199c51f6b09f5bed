"""The pulses of a file, streamed in blocks that hold whole events where that is possible."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from icediag.model.parquet import EVENT_ID, PULSE_COLUMNS, in_memory, open_parquet

Values = npt.NDArray[Any]

#: Rows decoded at a time, about 2 MB a column: what is made of them stays near the processor, and
#: what decoding costs by block, half a millisecond, is little.
BLOCK = 2**18
#: Blocks that are decoded before they are asked for.
_AHEAD = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class PulseBlock:
    """P rows of a file, as they stand there; a missing value is NaN.

    Attributes:
        start: Number of the first row, counted from 0.
        time: `(P,)` ns.
        charge: `(P,)` p.e.
        sensor_id: `(P,)`.
        auxiliary: `(P,)` bool, or integers.
        event_id: `(P,)` int64; None where the file has none.
    """

    start: int
    time: Values
    charge: Values
    sensor_id: Values
    auxiliary: Values
    event_id: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.time)


class PulseStream:
    """A file of pulses, opened.

    Attributes:
        n_rows: Its rows.
        columns: Column -> type, as the file has them.

    Raises:
        DataError: As `open_parquet`.
    """

    def __init__(self, path: Path) -> None:
        self._file: pq.ParquetFile = open_parquet(path, PULSE_COLUMNS, EVENT_ID)
        self.n_rows: int = self._file.metadata.num_rows
        schema = self._file.schema_arrow
        self.columns = {field.name: str(field.type) for field in schema}
        self._names = [*PULSE_COLUMNS, *(n for n in EVENT_ID if n in schema.names)]

    def blocks(self, *, ahead: bool = True) -> Iterator[PulseBlock]:
        """The rows in order.

        Args:
            ahead: Decode some blocks ahead of their use, in a thread of its own.

        Raises:
            ArrowException: The file is damaged, or `OSError`.
        """
        decoded = self._decoded()
        if not ahead:
            yield from decoded
            return
        with ThreadPoolExecutor(1) as beside:
            coming = deque(beside.submit(next, decoded, None) for _ in range(_AHEAD))
            while (block := coming.popleft().result()) is not None:
                coming.append(beside.submit(next, decoded, None))
                yield block

    def _decoded(self) -> Iterator[PulseBlock]:
        start = 0
        for batch in self._file.iter_batches(BLOCK, columns=self._names, use_threads=False):
            yield _block(batch, start)
            start += batch.num_rows

    def close(self) -> None:
        """Gives the file handle back."""
        self._file.close()


def _block(batch: pa.RecordBatch, start: int) -> PulseBlock:
    columns = {name: values_of(batch.column(name)) for name in batch.schema.names}
    event_id = columns.get("event_id")
    return PulseBlock(
        start=start,
        time=columns["time"],
        charge=columns["charge"],
        sensor_id=columns["sensor_id"],
        auxiliary=columns["auxiliary"],
        event_id=None if event_id is None else event_id.astype(np.int64, copy=False),
    )


def values_of(column: "pa.Array[Any]") -> Values:
    """A column of numbers or flags; with missing values, as float64 with NaN."""
    if column.null_count:
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return in_memory(column)
