"""What reading single samples does: files opened, bytes read, libraries called, tables cut.

Counted, not timed: openings by Python's audit events, calls by its profiler hook, reads by the
system's own counters. The first sample is left out, since it may open and cache.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from icediag.instruments.running.discover import belongs, user_packages
from icediag.instruments.running.stages import location_of
from icediag.instruments.trees.walk import leaves
from icediag.records.clock import AccessRecord

from .step import Stepper, by_index

#: Samples that are read one by one.
SAMPLES = 16
#: Libraries that read, decode or cut tables. A call from one into another is part of the first.
DECODERS = (
    *("pandas", "pyarrow", "polars", "PIL", "h5py", "tables", "zarr", "awkward", "uproot", "cv2"),
    *("imageio", "soundfile", "librosa", "torchaudio", "torchvision", "datasets", "fastparquet"),
    *("csv", "json", "pickle", "gzip", "zipfile", "tarfile", "bz2", "lzma", "sqlite3", "h5netcdf"),
    *("numpy.lib", "torch.serialization", "scipy.io", "xarray", "netCDF4", "orjson", "msgpack"),
)
#: Whose objects are tables or handles of files; cutting one to a sample makes another.
TABLES = ("pandas", "pyarrow", "polars", "h5py", "xarray", "zarr", "awkward", "datasets")
#: Files that are opened for other reasons than data.
_NO_DATA = (".py", ".pyc", ".so", ".pyd")

_listening: list[Counter[str]] = []
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook stays for the life of the process; with nobody listening it does nothing."""
    if not _listening or event != "open":
        return
    name = arguments[0]
    mode = arguments[1] if len(arguments) > 1 else "r"
    if isinstance(mode, str) and not set(mode).isdisjoint("wax"):
        return
    try:
        path = os.fsdecode(os.fspath(name))
    except TypeError:
        return  # a descriptor that is open already
    if path.endswith(_NO_DATA) or path.startswith(("/proc/", "/dev/", "/sys/")):
        return
    _listening[-1][os.path.abspath(path)] += 1  # noqa: PTH100 - much cheaper, for each opening


@contextmanager
def openings() -> Iterator[Counter[str]]:
    """Count how often each file is opened for reading while the block runs."""
    global _installed  # hooks cannot be taken back: there is to be one
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    counts: Counter[str] = Counter()
    _listening.append(counts)
    try:
        yield counts
    finally:
        _listening.pop()


class Calls:
    """Counts calls from outside into decoders, and tables that functions of the user's hold.

    Args:
        packages: Import names of the user's own packages.
    """

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.decodes: Counter[str] = Counter()
        self.tables: Counter[str] = Counter()
        #: Files that decoders were given the path of: what they open in C no one else sees.
        self.opened: Counter[str] = Counter()
        self._packages = packages
        # Kept, so that no two have the same identity.
        self._seen: dict[int, Any] = {}

    def ignore(self, things: Any) -> None:
        """Tables that are there already."""
        for thing in things:
            self._seen[id(thing)] = thing

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count while the block runs."""
        before = sys.getprofile()
        sys.setprofile(self._watch)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _watch(self, frame: FrameType, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call":
            if belongs(module, DECODERS) and not self._inside(frame.f_back):
                self.decodes[f"{module}:{frame.f_code.co_qualname}"] += 1
                self._note_file(frame)
        elif event == "return" and belongs(module, self._packages):
            self._look(frame)

    def _note_file(self, frame: FrameType) -> None:
        """Count the file whose path is among the first arguments of a call."""
        code = frame.f_code
        for name in code.co_varnames[: min(3, code.co_argcount)]:
            value = frame.f_locals.get(name)
            if isinstance(value, (str, os.PathLike)):
                try:
                    path = os.path.abspath(os.fsdecode(value))  # noqa: PTH100 - as above
                except (TypeError, ValueError):
                    continue
                if len(path) < 4096 and Path(path).is_file():
                    self.opened[path] += 1
                    return

    def _inside(self, frame: FrameType | None) -> bool:
        """Whether the caller is a decoder, or something that one called."""
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if belongs(module, DECODERS):
                return True
            if belongs(module, self._packages):
                return False
            frame = frame.f_back
        return False

    def _look(self, frame: FrameType) -> None:
        for value in list(frame.f_locals.values()):
            kind = type(value)
            if kind.__module__.partition(".")[0] in TABLES and id(value) not in self._seen:
                self._seen[id(value)] = value
                self.tables[f"{kind.__module__.partition('.')[0]}.{kind.__name__}"] += 1


def _counters() -> tuple[int, int] | None:
    """(read calls, bytes that they gave) of this process since it began; Linux counts them."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return None
    values = dict(line.split(": ") for line in text.splitlines() if ": " in line)
    try:
        return int(values["syscr"]), int(values["rchar"])
    except (KeyError, ValueError):
        return None


def _read_since(before: tuple[int, int] | None) -> tuple[int, int] | None:
    """What was read since, without what reading the counters themselves takes."""
    now, again = _counters(), _counters()
    if before is None or now is None or again is None:
        return None
    own = again[0] - now[0], again[1] - now[1]
    return max(0, now[0] - before[0] - own[0]), max(0, now[1] - before[1] - own[1])


def measure_access(stepper: Stepper, clock: Callable[[], float]) -> AccessRecord | None:
    """Read single samples, and count; None of a data set that is not read by index."""
    pipeline = stepper.pipeline
    dataset = pipeline.dataset
    if not by_index(dataset) or len(dataset) < 2:
        return None
    indices = range(1, min(len(dataset), SAMPLES + 1))
    dataset[0]
    before = _counters()
    with openings() as opened:
        for i in indices:
            dataset[i]
    read = _read_since(before)
    times: list[tuple[float, float]] = []
    held = 0
    for i in indices:
        start = clock()
        sample = dataset[i]
        middle = clock()
        tensors = [tensor for _, tensor in leaves(sample)]
        copied = clock()
        for tensor in tensors:
            tensor.clone()
        times.append((middle - start, clock() - copied))
        held += sum(0 if t.is_nested else t.numel() * t.element_size() for t in tensors)
    calls = Calls(user_packages(pipeline) or (type(dataset).__module__,))
    with calls.counting():
        dataset[0]
    # What the first sample holds may be kept for all of them.
    calls.decodes.clear()
    calls.tables.clear()
    calls.opened.clear()
    with calls.counting():
        for i in indices:
            dataset[i]
    opened |= calls.opened  # the larger of both counts of each file
    batched = getattr(dataset, "__getitems__", None)
    together, tables = Counter[str](), Counter[str]()
    if callable(batched):
        at_once = Calls(user_packages(pipeline) or (type(dataset).__module__,))
        with openings() as together, at_once.counting():
            batched(list(indices))
        tables = at_once.tables
        together |= at_once.opened
    most = opened.most_common(1)
    place = location_of(getattr(type(dataset), "__getitem__", None))
    return AccessRecord(
        samples=len(indices),
        opens=opened.total(),
        files=len(opened),
        most_opened=Path(most[0][0]).name if most else None,
        most_opens=most[0][1] if most else 0,
        read_calls=read[0] if read else None,
        read_bytes=read[1] if read else None,
        sample_bytes=held,
        decodes=dict(calls.decodes),
        tables=dict(calls.tables),
        item_s=tuple(a for a, _ in times),
        copied_s=tuple(b for _, b in times),
        batched=callable(batched),
        batched_opens=together.total(),
        batched_tables=dict(tables),
        location=place,
    )
