"""Prepared pulses: the columns of one batch file as an Arrow file that is mapped, not read.

What `prepare` writes: one record batch, so that each column is one stretch of memory. Rows of
events are then copied straight from the system's page cache; nothing is decoded or checked again.

    time        float32   ns, whole numbers, |time| <= 2**24
    charge      float32   p.e.
    sensor_id   int16
    auxiliary   uint8     0 or 1
    dom_rank    int16     see `grouping.dom_ranks`
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import DataError
from .parquet import PULSE_COLUMNS, PulseColumns, data_error

#: In the order of the file. Arrow packs bools into bits, which cannot be mapped as an array.
COLUMNS: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "time": np.dtype(np.float32),
        "charge": np.dtype(np.float32),
        "sensor_id": np.dtype(np.int16),
        "auxiliary": np.dtype(np.uint8),
        "dom_rank": np.dtype(np.int16),
    }
)
FORMAT: Final = "icediag prepared pulses 1"
_KEY: Final = b"icediag"


def stamp_of(source: Path) -> dict[str, Any]:
    """What tells a source file from another version of it, for the note in what is made of it."""
    state = source.stat()
    return {
        "format": FORMAT,
        "source": source.name,
        "bytes": state.st_size,
        "at": state.st_mtime_ns,
    }


class ArrowPulses:
    """One open, mapped `batch_N.arrow`.

    Attributes:
        path: Where it lies.
        columns: All its pulses, read-only.
        bounds: First row of each row group and the number of rows last; there is one group.
        stamp: From `stamp_of`, of the file that it was made from.

    Raises:
        DataError: No such file, or not a whole file of this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise data_error(path, "expected a file of prepared pulses, found none")
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                self._batch = file.get_batch(0)
            self.stamp = json.loads((self._batch.schema.metadata or {})[_KEY])
            columns = {name: self._column(name, dtype) for name, dtype in COLUMNS.items()}
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise data_error(
                path, f"expected a file that `icediag prepare` has finished, got: {error}"
            ) from error
        self.bounds = [0, self._batch.num_rows]
        self.columns = PulseColumns(
            time=columns["time"],
            charge=columns["charge"],
            sensor_id=columns["sensor_id"],
            auxiliary=columns["auxiliary"],
            dom_ranks=columns["dom_rank"],
        )

    def _column(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        column = self._batch.column(name)
        if column.type != pa.from_numpy_dtype(dtype):
            raise ValueError(f"column '{name}' of {column.type} where {dtype} belongs")
        return column.to_numpy(zero_copy_only=True)

    @property
    def n_rows(self) -> int:
        """Number of pulses in the file."""
        return self.bounds[-1]

    def read_table(self) -> pa.Table:
        """All rows of the pulse columns, as in the file that was prepared."""
        return pa.Table.from_batches([self._batch]).select(list(PULSE_COLUMNS))

    def close(self) -> None:
        """Nothing is held but memory, which goes with the last array."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_arrow(
    path: Path, columns: Mapping[str, npt.NDArray[Any]], stamp: Mapping[str, Any]
) -> None:
    """Write columns as one record batch; `path` holds the whole file or what it held before.

    Args:
        path: The file.
        columns: As `COLUMNS`, all of one length; may be mapped, as they are copied in pieces.
        stamp: From `stamp_of`.

    Raises:
        DataError: It cannot be written.
    """
    scratch = path.with_name(f".{path.name}.part")
    arrays = [_wrapped(columns[name].view(np.ndarray)) for name in COLUMNS]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(COLUMNS))
    batch = batch.replace_schema_metadata({_KEY: json.dumps(dict(stamp)).encode()})
    try:
        try:
            with scratch.open("wb") as file:
                with pa.ipc.new_file(file, batch.schema) as writer:
                    writer.write_batch(batch)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written ({reason})") from error


def _wrapped(values: npt.NDArray[Any]) -> "pa.Array[Any]":
    """The array as Arrow's, without a copy."""
    kind = pa.from_numpy_dtype(values.dtype)
    buffer: Any = values
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(buffer)])
