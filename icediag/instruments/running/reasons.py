"""Reasons: what the user's code raised, in one line, and at which of their lines."""

import sys
import sysconfig
import traceback
from pathlib import Path

import numpy as np
import torch

from icediag.pipeline import Pipeline
from icediag.place import Location, Unjudged

from .discover import belongs, user_packages
from .paths import without_paths
from .stages import relative_file

#: Where code lies that is not the user's own.
_LIBRARIES = tuple(
    str(folder)
    for folder in (
        Path(torch.__file__).parent,
        Path(np.__file__).parent,
        Path(__file__).parents[1],
    )
)
_STANDARD = sysconfig.get_paths()["stdlib"]


def reason_of(error: BaseException, pipeline: Pipeline | None = None) -> str:
    """Type, place and message of an exception; the place is that of `place_of`."""
    place = place_of(error, pipeline)
    at = f" at {place.file}:{place.line}" if place else ""
    message = without_paths(" ".join(str(error).split()))
    return f"{type(error).__name__}{at}" + (f": {message}" if message else "")


def raised(name: str, error: BaseException, pipeline: Pipeline) -> Unjudged:
    """What could not be seen because the user's code raised."""
    return Unjudged(
        name=name,
        reason=reason_of(error, pipeline),
        raised=True,
        location=place_of(error, pipeline),
    )


def place_of(error: BaseException, pipeline: Pipeline | None = None) -> Location | None:
    """Where an exception comes from.

    The innermost line of the user's own packages; where there is none, the innermost one that is
    neither Python's nor torch's nor ours. Without a pipeline, as where none could be made, the
    latter.
    """
    frames = traceback.extract_tb(error.__traceback__)
    modules = {
        getattr(module, "__file__", None): name for name, module in list(sys.modules.items())
    }
    packages = user_packages(pipeline) if pipeline is not None else ()
    outside = [frame for frame in frames if not _of_library(frame.filename)]
    if pipeline is None:  # what was made wrongly complains from within icediag
        outside = [f for f in outside if (modules.get(f.filename) or "").split(".")[0] != "icediag"]
    own = [f for f in outside if belongs(modules.get(f.filename) or "", packages)]
    if not (own or outside):
        return None
    frame = (own or outside)[-1]
    file = relative_file(frame.filename, modules.get(frame.filename))
    return Location(file=file, line=frame.lineno or 0)


def _of_library(file: str) -> bool:
    if file.startswith("<") or file.startswith(_LIBRARIES):
        return True
    return file.startswith(_STANDARD) and "site-packages" not in file
