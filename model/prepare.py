"""Prepare: a data set in the competition's layout, once, into columns that are mapped.

Decoding Parquet and grouping pulses are done here for good; afterwards an event's pulses are copied
from the page cache. The folder that is made is a data set like the one it was made of, and is
opened the same way:

    OUT/train/batch_N.arrow     one for each batch file, see `arrow`
    OUT/sensor_geometry.csv     copied
    OUT/train_meta.parquet      copied last: without it the folder is not a data set

Each file appears whole or not at all. A run that was stopped goes on where it was; files whose
source has not changed are kept. Memory holds one row group, about 20 bytes a pulse, at a time.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arrow import COLUMNS, ArrowPulses, stamp_of, write_arrow
from .dataset import IceCubeDataset
from .errors import DataError
from .gather import Int64s, rows_of
from .grouping import dom_ranks
from .layout import batch_path, geometry_path, meta_path, prepared_path

#: Pulses ranked at a time, 60 MB; an event of more is ranked alone.
_RANKED_PULSES = 2**20


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was done.

    Attributes:
        n_events: Events of the data set.
        n_pulses: Rows of its batch files.
        n_written: Batch files written.
        n_kept: Batch files that were there already, made from the same source.
        n_bytes: Size of all batch files.
    """

    n_events: int
    n_pulses: int
    n_written: int
    n_kept: int
    n_bytes: int


def prepare(
    source: Path,
    out: Path,
    *,
    files: Sequence[int] | int | None = None,
    on_file: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - nobody listens
) -> Prepared:
    """Convert a data set.

    Args:
        source: A data set in the competition's layout.
        out: Folder to make, or to go on with.
        files: As in `IceCubeDataset`.
        on_file: Told after each batch file how many are done, and of how many.

    Raises:
        DataError: The source is not what it must be, `out` holds something else, or cannot be
            written.
    """
    dataset = IceCubeDataset(source, files=files)
    paths = [batch_path(source, batch_id) for batch_id in dataset.batch_ids]
    for path in paths:
        if path.suffix == ".arrow":
            raise DataError(f"{path}: expected a Parquet file, got one that is prepared already")
    _check_folder(out, paths)
    pulses = written = size = 0
    try:
        (out / "train").mkdir(parents=True, exist_ok=True)
        _copy(geometry_path(source), geometry_path(out))
        # Positions are read where they are used; a bad file is better refused now.
        IceCubeDataset.geometry(dataset)
        for file, (batch_id, path) in enumerate(zip(dataset.batch_ids, paths, strict=True)):
            made = prepared_path(out, batch_id)
            if not _is_made_from(made, path):
                _write(dataset, file, path, made)
                written += 1
            with ArrowPulses(made) as done:
                pulses += done.n_rows
            size += made.stat().st_size
            on_file(file + 1, len(paths))
        _copy(meta_path(source), meta_path(out))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    return Prepared(
        n_events=len(dataset),
        n_pulses=pulses,
        n_written=written,
        n_kept=len(paths) - written,
        n_bytes=size,
    )


def _check_folder(out: Path, sources: list[Path]) -> None:
    """Refuses a folder that holds anything but what an earlier run of `prepare` left.

    Raises:
        DataError: It does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: expected a folder, got a file")
    ours = {"train", geometry_path(out).name, meta_path(out).name}
    made = {prepared_path(out, 0).suffix}
    train = [*(out / "train").iterdir()] if (out / "train").is_dir() else []
    strange = [path for path in out.iterdir() if path.name not in ours and not _is_scratch(path)]
    strange += [path for path in train if path.suffix not in made and not _is_scratch(path)]
    if strange or any(path.parent.parent.resolve() == out.resolve() for path in sources):
        what = strange[0].name if strange else "the data set itself"
        raise DataError(
            f"{out}: expected an empty folder or an unfinished preparation, got one with {what}"
        )


def _is_scratch(path: Path) -> bool:
    return path.name.startswith(".") and ".part" in path.name


def _copy(source: Path, target: Path) -> None:
    scratch = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, scratch)
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(target)


def _is_made_from(made: Path, source: Path) -> bool:
    try:
        with ArrowPulses(made) as there:
            return bool(there.stamp == stamp_of(source))
    except DataError:  # not there, or from another version
        return False


def _write(dataset: IceCubeDataset, file: int, source: Path, made: Path) -> None:
    """Convert one batch file."""
    stamp = stamp_of(source)  # before it is read: a change meanwhile shows
    n_rows = dataset.n_rows(file)
    for left in made.parent.glob(f".{made.stem}.part*"):
        shutil.rmtree(left, ignore_errors=True)
    # On disk until the file is written: Arrow wants each column whole, memory need not hold it.
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=f".{made.stem}.part") as scratch:
        columns = {
            name: np.memmap(Path(scratch) / name, dtype, "w+", shape=(n_rows,))
            if n_rows
            else np.empty(0, dtype)
            for name, dtype in COLUMNS.items()
        }
        for start, group in dataset.groups(file):
            rows = slice(start, start + len(group.time))
            for name in ("time", "charge", "sensor_id", "auxiliary"):
                columns[name][rows] = getattr(group, name)
        events = dataset.events_of(file)
        first, lengths = dataset.first[events], dataset.lengths[events].astype(np.int64)
        for some in _blocks(lengths):
            pulses = rows_of(first[some], lengths[some])
            columns["dom_rank"][pulses] = dom_ranks(columns["sensor_id"][pulses], lengths[some])
        write_arrow(made, columns, stamp)


def _blocks(lengths: Int64s) -> list[slice]:
    """Cuts events into runs of about `_RANKED_PULSES` pulses; the loop is over runs."""
    ends, blocks, start, done = np.cumsum(lengths), [], 0, 0
    while start < len(lengths):
        stop = max(start + 1, int(np.searchsorted(ends, done + _RANKED_PULSES, side="right")))
        blocks.append(slice(start, stop))
        start, done = stop, int(ends[stop - 1])
    return blocks
