"""The user's own code: which frames count as such, and which of their lines runs."""

import functools
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

import torch

from icediag.instruments.running.discover import belongs, user_packages
from icediag.instruments.running.stages import relative_file
from icediag.pipeline import Pipeline
from icediag.place import Location

_OURS = str(Path(__file__).resolve().parents[1])
_TORCH = str(Path(torch.__file__).resolve().parent)
_STANDARD = sysconfig.get_paths()["stdlib"]
#: Files of ours that look at tensors while the user's code is above them.
_LOOKERS = tuple(str(Path(_OURS) / name) for name in ("flow.py", "trees.py"))

#: A line of source: file as it is shown, and number.
Line = tuple[str, int]


def location(line: Line | None) -> Location | None:
    """A line as it is written down."""
    return Location(file=line[0], line=line[1]) if line is not None else None


@functools.cache
def _installed(file: str) -> bool:
    if file.startswith(("<", _TORCH, _OURS)) or "site-packages" in file or "dist-packages" in file:
        return True
    return file.startswith(_STANDARD)


class Own:
    """Tells the user's own code from that of libraries.

    Where `Pipeline.sources` names packages, code in these; otherwise code in the packages that
    model, data set, collate and loss come from, and every file that no installer put there.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._packages = user_packages(pipeline)
        self._strict = bool(pipeline.sources)
        self._known: dict[CodeType, bool] = {}
        #: File of code of the user's own -> how it is shown.
        self.names: dict[str, str] = {}

    def is_own(self, frame: FrameType) -> bool:
        """Whether a frame runs the user's own code."""
        code = frame.f_code
        known = self._known.get(code)
        if known is None:
            known = self._known[code] = self._look(frame)
            if known:
                file, module = code.co_filename, frame.f_globals.get("__name__")
                self.names.setdefault(file, relative_file(file, module))
        return known

    def _look(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        if file.startswith(("<", _OURS)):
            return False
        if belongs(frame.f_globals.get("__name__", ""), self._packages):
            return True
        return not self._strict and not _installed(file)

    def line(self, *, until: str | None = None) -> tuple[Line | None, bool]:
        """The innermost line of the user's own that runs.

        Args:
            until: A file at whose frames the search ends.

        Returns:
            The line or None, and whether it is one of our own files that looks at tensors.
        """
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way
        while frame is not None:
            file = frame.f_code.co_filename
            if file in _LOOKERS:
                return None, True
            if file == until:
                return None, False
            if self.is_own(frame):
                return (self.names[file], frame.f_lineno), False
            frame = frame.f_back
        return None, False
