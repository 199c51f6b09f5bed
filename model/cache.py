"""Simulated chunks kept between runs, in the user's cache folder.

A file is named after a hash of all that its content follows from: the simulator's source, numpy's
version, seed and chunk; and it holds a hash of its content, so that a damaged one is made anew. It
appears whole or not at all, and what two processes write at once is the same. Where nothing can be
written, nothing is kept.
"""

import contextlib
import functools
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]

#: Where to keep them, in place of the user's cache folder.
VARIABLE: Final = "ICEDIAG_CACHE"

#: What lies there at most, bytes: about 100 chunks. The files that were not used for longest go.
_LIMIT: Final = 256 * 2**20

_DIGEST_BYTES: Final = 32


def cache_folder() -> Path:
    """The folder: that of `ICEDIAG_CACHE`, or `icediag` in the user's cache folder.

    The user's is `XDG_CACHE_HOME` or `~/.cache`; `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on
    Windows.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "icediag"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "icediag"
    if chosen := os.environ.get("LOCALAPPDATA"):
        return Path(chosen) / "icediag" / "Cache"
    return Path.home() / ".cache" / "icediag"


@functools.cache
def _sources() -> str:
    """Hash of the simulator as it is written, and of numpy's version.

    Raises:
        OSError: Its files cannot be read, as of a package that is not unpacked.
    """
    names = ("array", "light", "population", "pulses", "reach", "readout", "simulate")
    digest = hashlib.sha256(np.__version__.encode())
    for name in names:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def kept(make: Callable[[], Columns], *key: int) -> Columns:
    """The columns of a chunk, from the cache or made and put there.

    Args:
        make: Makes them, always the same for a key.
        key: What they follow from, beside the simulator itself.

    Returns:
        Arrays by name.
    """
    try:
        name = hashlib.sha256(f"{_sources()} {key}".encode()).hexdigest()[:32]
        path = cache_folder() / f"events-{name}.npz"
        found = _read(path)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return make()
    if found is not None:
        with contextlib.suppress(OSError):
            path.touch()
        return found
    columns = make()
    with contextlib.suppress(OSError):
        _write(path, columns)
    return columns


def _read(path: Path) -> Columns | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _write(path: Path, columns: Columns) -> None:
    body = io.BytesIO()
    save: Any = np.savez  # its stub takes every name for that of an option
    save(body, **columns)
    content = body.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".events-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Remove the files that were not used for longest, until the rest is within the limit."""
    files = []
    for path in folder.glob("events-*.npz"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            state = path.stat()
            files.append((state.st_mtime_ns, state.st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > _LIMIT:
            path.unlink(missing_ok=True)
