"""The competition's layout as a map-style dataset: `dataset[i]` is one `Event`, files read lazily.

    DIR/train/batch_N.parquet     pulses: event_id, sensor_id, time (ns), charge (p.e.), auxiliary
    DIR/train_meta.parquet        events: batch_id, event_id, first and last row, azimuth, zenith
    DIR/sensor_geometry.csv       DOMs: sensor_id, x, y, z (m)

What is kept in memory for every event is 30 bytes in numpy arrays, not a Python object: the whole
competition, 132 million events, takes 4 GB, which forked workers share. Pulses are decoded one row
group at a time and the last ones used are kept, so reading is fast where neighbours in the order of
reading are neighbours in the file, as `sampling.FileShuffleSampler` arranges.
"""

import operator
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from .arrow import ArrowPulses
from .block import EventBlock
from .errors import DataError
from .event import AUXILIARY, CHARGE, SENSOR_ID, TIME, Event
from .gather import Piece, ends_beyond, expected_ids, pieces, positions
from .layout import batch_path, chosen_batches, geometry_path, meta_path
from .parquet import PulseColumns, PulseFile, data_error, reject
from .tables import meta_rows_of, read_geometry, read_meta


class IceCubeDataset(Dataset[Event]):
    """The events of some batch files, in the order of the meta table.

    Meta rows of files that are not used (absent, or not asked for) are left out and counted. The
    meta table is checked when the dataset is made; a batch file's schema and length when it is
    first opened, its values when a row group is decoded. `check_files` opens all of them at once.

    Not thread-safe; each process of a `DataLoader` has its own copy, which opens its own files.

    Float32 is exact for every integer up to 2**24: for sensor_id (to 5,159), auxiliary and, in
    practice, time (the competition's ends at 84,577 ns; beyond +-2**24 ns is an error). It would
    not be for event_id, which therefore stays an integer. Charges are rounded to float32's 24 bits.

    Args:
        root: The directory with `train/`, `train_meta.parquet` and `sensor_geometry.csv`.
        files: The batches to use, by id; or a number N for the N present with the lowest ids (all,
            where fewer are); or `None` for all that are present in `train/`.
        cache_bytes: Decoded pulses kept in memory, bytes per process. A row group that is larger
            alone is held all the same, but only it.
        max_open_files: Batch files kept open, per process.

    Attributes:
        root: As given.
        batch_ids: The batches used, ascending.
        event_ids: `(events,)` int64, each once.
        file_of: `(events,)` integer, position in `batch_ids` of the event's file.
        lengths: `(events,)` int32, number of pulses of each event, 0 included.
        first: `(events,)` integer, row of each event's first pulse within its file.
        targets: `(events, 2)` float32, azimuth in [0, 2 pi] and zenith in [0, pi], radians.
        n_unused: Rows of the meta table that were left out, as their file is not used.

    Raises:
        DataError: A directory or file is missing or damaged, a column missing or of another type, a
            value out of range. One line, which names file, column and row.
        ValueError: An argument is not what it must be.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        files: Sequence[int] | int | None = None,
        cache_bytes: int = 2**30,
        max_open_files: int = 4,
    ) -> None:
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes: expected a number of bytes >= 0, got {cache_bytes}")
        if max_open_files < 1:
            raise ValueError(f"max_open_files: expected a number >= 1, got {max_open_files}")
        self.root = Path(root)
        self._cache_bytes = cache_bytes
        self._max_open_files = max_open_files
        self.batch_ids = chosen_batches(self.root, files)
        ids = np.array(self.batch_ids, np.int64)
        index = read_meta(self._meta_path, ids)
        self.event_ids = index.event_ids
        self.file_of = index.file_of
        self.lengths = index.lengths
        self.targets = index.targets
        self.n_unused = index.n_unused
        self.first = index.first
        events_in = np.bincount(self.file_of, minlength=len(ids))
        if not events_in.all():
            raise data_error(
                self._meta_path,
                f"column 'batch_id': expected rows for {self._path(int(np.argmin(events_in)))}, "
                "got none",
            )
        # A table in the order of its files, as the competition's is, gives each file as a slice.
        self._ends = None
        if (self.file_of[1:] >= self.file_of[:-1]).all():
            self._ends = np.concatenate([[0], np.cumsum(events_in)]).tolist()
        for array in (self.event_ids, self.file_of, self.lengths, self.targets, self.first):
            array.setflags(write=False)
        self._forget_files()

    def __len__(self) -> int:
        """Number of events."""
        return len(self.event_ids)

    def __getitem__(self, index: int) -> Event:
        """The event at a position; negative ones count from the end.

        Raises:
            IndexError: No such position.
            DataError: The event's file or row group is not what it must be.
        """
        return self._block(positions([operator.index(index)], len(self)))[0]

    def __getitems__(self, indices: Sequence[int]) -> EventBlock:
        """The events at some positions, in the order asked; what `DataLoader` calls for a batch.

        They are read in the order of the files, so that a batch decodes no row group twice, however
        small the cache is, and file by file, not event by event.

        Raises:
            IndexError: No such position.
            DataError: A file or row group is not what it must be.
        """
        return self._block(positions(indices, len(self)))

    def geometry(self) -> Float[Tensor, "sensors 3"]:
        """Positions of the DOMs, from `sensor_geometry.csv`.

        Returns:
            `(5160, 3)` float32, metres: x, y, z of each sensor_id.

        Raises:
            DataError: The file is missing, or a row of it is not what it must be.
        """
        return torch.from_numpy(read_geometry(geometry_path(self.root)))

    def read_table(self, file: int) -> pa.Table:
        """All pulses of a file as one Arrow table, straight from disk.

        For tools that want whole columns; nothing is checked but the footer and the schema.

        Args:
            file: As in `file_of`.

        Raises:
            DataError: The file is missing or damaged.
        """
        return self._open(file).read_table()

    def n_rows(self, file: int) -> int:
        """Number of pulses in a file, those of no event included.

        Raises:
            DataError: The file is missing or damaged.
        """
        return self._bounds_of(file)[-1]

    def groups(self, file: int) -> Iterator[tuple[int, PulseColumns]]:
        """The row groups of a file from first to last, checked; none is kept.

        Args:
            file: As in `file_of`.

        Yields:
            First row of the group, and its pulses.

        Raises:
            DataError: As `dataset[i]`.
        """
        opened = self._open(file)
        if isinstance(opened, ArrowPulses):
            yield 0, opened.columns
            return
        for group, start in enumerate(opened.bounds[:-1]):
            yield start, self._checked(file, opened, group)

    def check_files(self) -> None:
        """Opens every batch file used, one after another: footer, schema and length; no pulses.

        The dataset does this by itself when it first needs a file. A run of many hours rather hears
        at its start that its last file is cut short.

        Raises:
            DataError: A file is missing, damaged, or shorter than the meta table says.
        """
        for file in range(len(self.batch_ids)):
            self._open(file)

    def __repr__(self) -> str:
        return (
            f"IceCubeDataset({str(self.root)!r}: {len(self)} events in {len(self.batch_ids)} files)"
        )

    def __getstate__(self) -> dict[str, Any]:
        """All but open files and decoded pulses: a worker opens its own."""
        mine = ("_handles", "_cache", "_cached_bytes")
        return {name: value for name, value in self.__dict__.items() if name not in mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_files()

    @property
    def _meta_path(self) -> Path:
        return meta_path(self.root)

    def _path(self, file: int) -> Path:
        return batch_path(self.root, self.batch_ids[file])

    def _forget_files(self) -> None:
        self._pid = os.getpid()
        self._handles: OrderedDict[int, PulseFile | ArrowPulses] = OrderedDict()
        self._bounds: dict[int, list[int]] = {}
        self._cache: OrderedDict[tuple[int, int], PulseColumns] = OrderedDict()
        self._cached_bytes = 0

    def _block(self, at: npt.NDArray[np.int64]) -> EventBlock:
        """The events at positions 0..n-1."""
        lengths = self.lengths[at].astype(np.int64)
        pulses = np.empty((int(lengths.sum()), 4), np.float32)
        ranks = np.empty(len(pulses), np.int16)
        ranked = True
        for file, group, piece in self._pieces(at, lengths):
            columns = self._columns(file, group)
            rows = np.empty((piece.source.size, 4), np.float32)
            rows[:, TIME] = columns.time.take(piece.source)
            rows[:, CHARGE] = columns.charge.take(piece.source)
            rows[:, SENSOR_ID] = columns.sensor_id.take(piece.source)
            rows[:, AUXILIARY] = columns.auxiliary.take(piece.source)
            if len(rows) == len(pulses):  # all from one group: in their order already
                pulses = rows
            else:
                # One item of 16 bytes is moved ten times as fast as a row of four.
                pulses.view(np.complex128)[:, 0][piece.target] = rows.view(np.complex128)[:, 0]
            if columns.dom_ranks is None:
                ranked = False
            else:
                ranks[piece.target] = columns.dom_ranks.take(piece.source)
        return EventBlock(
            pulse_features=torch.from_numpy(pulses),
            lengths=lengths,
            event_ids=self.event_ids[at],
            targets=torch.from_numpy(self.targets[at]),
            dom_ranks=ranks if ranked else None,
        )

    def _pieces(
        self, at: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, int, Piece]]:
        """Which rows come from which row group of which file; the loop is over row groups."""
        filled = np.flatnonzero(lengths)
        files, first, counts = self.file_of[at][filled], self.first[at][filled], lengths[filled]
        target = (np.cumsum(lengths) - lengths)[filled]
        for file in np.unique(files).tolist():
            mine = files == file
            cut = pieces(self._bounds_of(file), first[mine], counts[mine], target[mine])
            for group, piece in cut:
                yield file, group, piece

    def _bounds_of(self, file: int) -> list[int]:
        """First row of each row group of a file, and the number of its rows."""
        if self._pid != os.getpid():
            # A fork: the parent's file positions are not this process's to move.
            self._forget_files()
        return self._bounds.get(file) or self._open(file).bounds

    def _columns(self, file: int, group: int) -> PulseColumns:
        """The pulses of a row group."""
        columns = self._cache.get((file, group))
        if columns is not None:
            self._cache.move_to_end((file, group))
            return columns
        opened = self._open(file)
        return opened.columns if isinstance(opened, ArrowPulses) else self._decoded(file, group)

    def _decoded(self, file: int, group: int) -> PulseColumns:
        opened = self._open(file)
        assert isinstance(opened, PulseFile)
        # Room is made before, so that the memory never holds more than the cache may.
        room = self._cache_bytes - opened.group_bytes(group)
        while self._cache and self._cached_bytes > room:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.nbytes
        columns = self._cache[file, group] = self._checked(file, opened, group)
        self._cached_bytes += columns.nbytes
        return columns

    def _checked(self, file: int, opened: PulseFile, group: int) -> PulseColumns:
        columns, event_id = opened.read_group(group)
        if event_id is not None:
            self._check_event_ids(file, opened.bounds[group], event_id)
        return columns

    def _open(self, file: int) -> PulseFile | ArrowPulses:
        handle = self._handles.get(file)
        if handle is not None:
            self._handles.move_to_end(file)
            return handle
        path = self._path(file)
        handle = ArrowPulses(path) if path.suffix == ".arrow" else PulseFile(path)
        try:
            self._check_length(file, handle)
        except DataError:
            handle.close()
            raise
        while len(self._handles) >= self._max_open_files:
            self._handles.popitem(last=False)[1].close()
        self._handles[file] = handle
        self._bounds[file] = handle.bounds
        return handle

    def events_of(self, file: int) -> npt.NDArray[np.intp] | slice:
        """Which events lie in a file, as an index into the arrays of this data set."""
        if self._ends is not None:
            return slice(self._ends[file], self._ends[file + 1])
        return np.flatnonzero(self.file_of == file)

    def _check_length(self, file: int, handle: PulseFile | ArrowPulses) -> None:
        events = self.events_of(file)
        long = ends_beyond(self.first[events], self.lengths[events], handle.n_rows)
        if long is None:
            return
        at, end = long
        event_id = int(self.event_ids[events][at])
        row = meta_rows_of(self._meta_path, event_id, np.array(self.batch_ids))[0]
        raise data_error(
            self._meta_path,
            f"column 'last_pulse_index', row {row} (counted from 0): expected a row below "
            f"{handle.n_rows}, the length of {handle.path}, got {end - 1}",
        )

    def _check_event_ids(self, file: int, start: int, ids: npt.NDArray[np.int64]) -> None:
        """Compares the event_id of each pulse of a row group with that of the meta table."""
        events = self.events_of(file)
        for rows, expected in expected_ids(
            self.first[events] - start, self.lengths[events], self.event_ids[events], len(ids)
        ):
            bad = ids[rows] != expected
            if bad.any():
                at = int(np.argmax(bad))
                reject(
                    self._path(file), "event_id", bad, ids[rows], rows + start,
                    f"{expected[at]} as {self._meta_path} says of this row",
                )  # fmt: skip
