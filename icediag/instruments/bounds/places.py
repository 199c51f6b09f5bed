"""Places: which of the user's lines an operation stands on."""

import sys
import sysconfig
from pathlib import Path
from types import FrameType

import torch

from icediag.instruments.running.stages import relative_file

_OURS = str(Path(__file__).resolve().parents[1])
_TORCH = str(Path(torch.__file__).resolve().parent)
_STANDARD = sysconfig.get_paths()["stdlib"]


def line_of_user() -> tuple[str, int] | None:
    """File and line of the innermost frame that is neither torch's, nor installed, nor ours."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way
    looked: dict[str, bool] = {}
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in looked:
            name = str(frame.f_globals.get("__name__", ""))
            looked[file] = is_user_file(file) and not _installed(name)
        if looked[file]:
            return relative_file(file, frame.f_globals.get("__name__")), frame.f_lineno
        frame = frame.f_back
    return None


def _installed(module: str) -> bool:
    """Whether a module belongs to an installed package, wherever its file lies.

    Some write code of theirs to a folder for temporary files, under another name each time.
    """
    top = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None) or ""
    return "site-packages" in top or "dist-packages" in top


def is_user_file(file: str) -> bool:
    """Whether a source file is neither torch's, nor installed, nor ours."""
    if file.startswith(("<", _TORCH, _OURS, _STANDARD)):
        return False
    return "site-packages" not in file and "dist-packages" not in file
