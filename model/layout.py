"""Where the files of a data directory lie, and which batches of it to use."""

import operator
import re
from collections.abc import Sequence
from pathlib import Path

from .parquet import data_error

_BATCH_NAME = re.compile(r"batch_(0|[1-9][0-9]*)\.(?:parquet|arrow)")


def meta_path(root: Path) -> Path:
    """The table of events."""
    return root / "train_meta.parquet"


def geometry_path(root: Path) -> Path:
    """The table of DOM positions."""
    return root / "sensor_geometry.csv"


def batch_path(root: Path, batch_id: int) -> Path:
    """Pulses of one batch; prepared ones, where there are both."""
    prepared = prepared_path(root, batch_id)
    return prepared if prepared.is_file() else root / "train" / f"batch_{batch_id}.parquet"


def prepared_path(root: Path, batch_id: int) -> Path:
    """Pulses of one batch as `prepare` writes them."""
    return root / "train" / f"batch_{batch_id}.arrow"


def chosen_batches(root: Path, files: Sequence[int] | int | None) -> tuple[int, ...]:
    """Picks the batches to use.

    Args:
        root: The data directory.
        files: Ids of batches; or a number N for the N present with the lowest ids (all, where fewer
            are); or `None` for all that are present.

    Returns:
        Their ids, ascending; each has its file.

    Raises:
        DataError: A directory or a file asked for is missing, or no batch is there at all.
        ValueError: `files` is none of these.
    """
    if isinstance(files, bool) or (isinstance(files, int) and files < 1):
        raise ValueError(f"files: expected a number >= 1, batch ids or None, got {files}")
    if not isinstance(files, int) and files is not None:
        asked = sorted(operator.index(batch_id) for batch_id in files)
        if not asked or len(set(asked)) < len(asked):
            raise ValueError(f"files: expected one or more different batch ids, got {files}")
    for directory, holds in ((root, "train/ and train_meta.parquet"), (root / "train", "batches")):
        if not directory.is_dir():
            came = "a file" if directory.exists() else "nothing there"
            raise data_error(directory, f"expected a directory with {holds}, found {came}")
    names = ((_BATCH_NAME.fullmatch(path.name), path) for path in (root / "train").iterdir())
    present = sorted({int(name[1]) for name, path in names if name and path.is_file()})
    if not present:
        raise data_error(root / "train", "expected files batch_N.parquet, found none")
    if files is None:
        return tuple(present)
    if isinstance(files, int):
        return tuple(present[:files])
    for batch_id in asked:
        if batch_id not in present:
            raise data_error(
                batch_path(root, batch_id),
                f"expected this file, as batch {batch_id} is asked for, found none",
            )
    return tuple(asked)
