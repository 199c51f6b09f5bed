"""What a watch writes: JSON lines, and TensorBoard scalars where that is installed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icediag.errors import IcediagError
from icediag.plain import to_plain

#: The log in the watch's folder.
LINES = "watch.jsonl"


class Log:
    """Lines of a watch, in a folder or nowhere.

    Args:
        folder: Where; None writes nothing.

    Raises:
        IcediagError: The folder cannot be written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lines: Any = None
        self._board: Any = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / LINES).open("a", encoding="utf-8")
        except OSError as error:
            raise IcediagError(f"watch: {folder} cannot be written: {error.strerror}") from None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder))

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line; what is on the disk is whole lines."""
        if self._lines is not None:
            self._lines.write(json.dumps(to_plain(dict(line)), allow_nan=False) + "\n")
            self._lines.flush()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write numbers of a step, where there are any."""
        known = {name: value for name, value in values.items() if value is not None}
        self.write({"event": "step", "step": step, **known})
        if self._board is not None:
            for name, value in known.items():
                self._board.add_scalar(f"watch/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()
