"""Plain data and files: dataclasses to JSON and back, written wholly or not at all.

Only what the dataclasses declare is read; nothing that a file says is ever executed.
"""

import dataclasses
import functools
import json
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from icediag.errors import IcediagError

#: Letters of a value that an error shows.
LONGEST = 80


def to_json(value: Any) -> str:
    """A dataclass as JSON. NaN and infinity, which JSON has not, become the texts "nan", "inf"."""
    return json.dumps(to_plain(value), indent=1, allow_nan=False) + "\n"


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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file wholly or not at all; text as UTF-8.

    Raises:
        IcediagError: The file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise IcediagError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with open(handle, "wb") as stream:  # noqa: PTH123 - opens a descriptor
            stream.write(content.encode() if isinstance(content, str) else content)
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
    """Dataclasses to dicts, tuples to lists, and floats that JSON has not to texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Without `asdict`, which copies what is written down at once.
        names = _names_of(type(value))
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


@functools.cache
def _names_of(kind: type) -> tuple[str, ...]:
    """Names of the fields of a dataclass."""
    return tuple(field.name for field in dataclasses.fields(kind))


class MisfitError(TypeError):
    """A value is not of the type that is wanted; says where it is, as "stages.0.name: ..."."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.message, self.path = message, path

    def below(self, key: str) -> "MisfitError":
        """The same, seen from one level above."""
        return MisfitError(self.message, f"{key}.{self.path}" if self.path else key)


def from_plain(wanted: Any, value: Any) -> Any:
    """`value`, as JSON gave it, as the type that is wanted.

    Raises:
        TypeError: It is not of that type, or lacks a field.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        return _dataclass(wanted, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise MisfitError(f"expected a list, got {_brief(value)}")
        return tuple(_below(str(i), arguments[0], item) for i, item in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise MisfitError(f"expected an object, got {_brief(value)}")
        return {key: _below(key[:80], arguments[1], item) for key, item in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise MisfitError(f"expected one of {arguments}, got {_brief(value)}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _union(arguments, value)
    if wanted is types.NoneType or wanted is None:
        if value is not None:
            raise MisfitError(f"expected null, got {_brief(value)}")
        return None
    if wanted is float and isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is not Any and (
        not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)
    ):
        raise MisfitError(f"expected {wanted.__name__}, got {_brief(value)}")
    return value


def _dataclass(wanted: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        name = getattr(wanted, "__name__", wanted)
        raise MisfitError(f"expected an object for {name}, got {_brief(value)}")
    hints = typing.get_type_hints(wanted)
    known = {f.name for f in dataclasses.fields(wanted)}
    given = {key: _below(key, hints[key], item) for key, item in value.items() if key in known}
    return wanted(**given)


def _union(arguments: tuple[Any, ...], value: Any) -> Any:
    """The first type that fits."""
    misfits = []
    for argument in arguments:
        try:
            return from_plain(argument, value)
        except TypeError as error:
            if argument is not types.NoneType:
                misfits.append(error)
    if len(misfits) == 1:  # that or null: what is wrong with that
        raise misfits[0]
    names = " or ".join(getattr(argument, "__name__", str(argument)) for argument in arguments)
    raise MisfitError(f"expected {names}, got {_brief(value)}")


def _below(key: str, wanted: Any, value: Any) -> Any:
    try:
        return from_plain(wanted, value)
    except MisfitError as error:
        raise error.below(key) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise MisfitError(str(error), key) from None


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class Stored:
    """What a dataclass that is kept in a file of its own can do.

    Attributes:
        kind: What errors call it, e.g. "recording".
        newest: The newest version of its format that can be read.
    """

    kind: ClassVar[str]
    newest: ClassVar[int]

    def to_json(self) -> str:
        """As JSON. NaN and infinity, which JSON has not, are written as the texts "nan", "inf"."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str, source: str | None = None) -> Self:
        """Read what `to_json` wrote. Unknown fields, of a later version, are passed over.

        Args:
            text: The JSON.
            source: What an error calls it, e.g. the file; without, its kind.

        Raises:
            IcediagError: It is another thing, or of a format that this version cannot read.
        """
        source = source or cls.kind
        result = read_json(cls, text, what=cls.kind, version=cls.newest, source=source)
        assert isinstance(result, cls)
        return result

    def save(self, path: str | Path) -> None:
        """Write to a file, wholly or not at all.

        Raises:
            IcediagError: The file cannot be written.
        """
        write_atomically(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a file.

        Raises:
            IcediagError: It cannot be read or is another thing.
        """
        return cls.from_json(read_text(path), str(path))
