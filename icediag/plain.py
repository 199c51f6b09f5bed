"""Plain data and files: dataclasses to JSON and back, written wholly or not at all.

Only what the dataclasses declare is read; nothing that a file says is ever executed.
"""

import dataclasses
import json
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from icediag.errors import IcediagError


def to_json(value: Any) -> str:
    """A dataclass as JSON. NaN and infinity, which JSON has not, become the texts "nan", "inf"."""
    return json.dumps(to_plain(dataclasses.asdict(value)), indent=1, allow_nan=False) + "\n"


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        IcediagError: It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise IcediagError(f"{path}: cannot be read: {reason}") from None


def read_json(wanted: type, text: str, *, what: str, version: int, source: str) -> Any:
    """Read what `to_json` wrote. Unknown fields, of a later version, are passed over.

    Args:
        wanted: The dataclass.
        text: The JSON.
        what: What an error calls it, e.g. "recording".
        version: The newest version of its format that can be read.
        source: Where it is from, e.g. the file.

    Raises:
        IcediagError: It is something else, or of a format that cannot be read.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IcediagError(f"{source}: expected JSON, got {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("version"), int):
        raise IcediagError(f"{source}: expected a {what} with a version, got none")
    if data["version"] > version:
        raise IcediagError(
            f"{source}: expected a {what} of version {version} or older, got "
            f"{data['version']}; a newer icediag wrote it"
        )
    try:
        return from_plain(wanted, data)
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise IcediagError(f"{source}: not a readable {what} ({error})") from None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file wholly or not at all.

    Raises:
        IcediagError: The file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise IcediagError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with open(handle, "w", encoding="utf-8") as stream:  # noqa: PTH123 - opens a descriptor
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise IcediagError(f"{path}: cannot be written: {error.strerror}") from None
        raise


def to_plain(value: Any) -> Any:
    """Tuples to lists, and floats that JSON has not to texts."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def from_plain(wanted: Any, value: Any) -> Any:
    """`value`, as JSON gave it, as the type that is wanted.

    Raises:
        TypeError: It is not of that type.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise TypeError(f"expected an object for {getattr(wanted, '__name__', wanted)}")
        hints = typing.get_type_hints(wanted)
        known = {f.name for f in dataclasses.fields(wanted)}
        given = {key: from_plain(hints[key], item) for key, item in value.items() if key in known}
        return typing.cast("Any", wanted)(**given)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {type(value).__name__}")
        return tuple(from_plain(arguments[0], item) for item in value)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        return {key: from_plain(arguments[1], item) for key, item in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise TypeError(f"expected one of {arguments}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        for argument in arguments:
            try:
                return from_plain(argument, value)
            except TypeError:
                continue
        raise TypeError(f"expected {wanted}, got {value!r}")
    if wanted is types.NoneType or wanted is None:
        if value is not None:
            raise TypeError(f"expected null, got {value!r}")
        return None
    if wanted is float and isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is not Any and (
        not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)
    ):
        raise TypeError(f"expected {wanted.__name__}, got {value!r}")
    return value
