"""The files of a run, and files that are there completely or not at all."""

import os
from pathlib import Path

from icediag.model.errors import DataError

#: Files of a run, in its folder.
LAST, BEST, METRICS, CURVE, TENSORBOARD = (
    "last.pt", "best.pt", "metrics.jsonl", "curve.png", "tensorboard",
)  # fmt: skip


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that at every moment `path` holds the old content or the new.

    To a temporary file in the same folder, on disk for certain, then renamed over the old one.

    Raises:
        DataError: It cannot be written; the old content, if any, is still there.
    """
    # One fixed name: what a killed process left is overwritten by the next write.
    scratch = path.with_name(f".{path.name}.part")
    try:
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
