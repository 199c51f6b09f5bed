"""Metrics: one JSON object a line, and TensorBoard's scalars where it is installed."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from icediag.model.errors import DataError

from .files import atomic_write

#: Keys of a line that depend on the clock: they differ from run to run.
WALL_CLOCK = ("events_per_s", "data_wait", "seconds")


def cut_lines(path: Path, keep: int) -> int:
    """Cut a file of lines after the first `keep`, and a torn last line.

    Returns:
        Lines left: fewer than `keep` where there were fewer; 0 where there is no file.

    Raises:
        DataError: It cannot be read or written.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    kept = [line for line in lines[:keep] if line.endswith(b"\n")]
    if kept != lines:
        atomic_write(path, b"".join(kept))
    return len(kept)


class MetricsLog:
    """Appends lines, each there at once for whoever reads along.

    Args:
        path: The JSON lines.
        keep: Lines that stay; those after them, written after the checkpoint that the run resumes
            from, are cut.
        tensorboard: Folder for TensorBoard's files; None for none.
        step: Steps done: TensorBoard drops what it has of later ones.

    Attributes:
        lines: Lines in the file.
        tensorboard: The folder; None without TensorBoard.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(
        self, path: Path, *, keep: int = 0, tensorboard: Path | None = None, step: int = 0
    ) -> None:
        self.lines = cut_lines(path, keep)
        self._path = path
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
        self._writer = None if tensorboard is None else _summary_writer(tensorboard, step)
        self.tensorboard = tensorboard if self._writer is not None else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line; its numbers under `kind` go to TensorBoard too.

        Raises:
            DataError: The disk is full.
            ValueError: A number is not finite, which JSON has no word for.
        """
        text = json.dumps(dict(line), allow_nan=False)
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be written ({error.strerror or error})"
            ) from error
        self.lines += 1
        if self._writer is not None and "step" in line:
            for name, value in line.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{line['kind']}/{name}", value, line["step"])

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def _summary_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, which are not ours to mend
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(folder, purge_step=step + 1 if step else None)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a torn last one is left out.

    Raises:
        DataError: It cannot be read, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, got {line[:40]!r}")
        found.append(value)
    return found
