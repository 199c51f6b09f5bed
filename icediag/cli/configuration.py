"""`[tool.icediag]` of the user's pyproject.toml: options of `icediag check` that need not be typed.

What can stand there is read off the command's own signature; nothing is written twice.
"""

import difflib
import tomllib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import typer

from icediag.errors import IcediagError

FILE = "pyproject.toml"
#: Options that say what to do now rather than how a project is checked.
TYPED_ONLY = frozenset({"write-baseline", "fault"})


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a command.

    Attributes:
        name: As it is typed, without dashes.
        parameter: Argument of the function.
        wanted: Its type, without None.
        minimum: Smallest number, None for any.
    """

    name: str
    parameter: str
    wanted: Any
    minimum: float | None = None

    @property
    def listed(self) -> bool:
        """Whether it is words that are typed with commas between, so that a list does as well."""
        return self.name in ("select", "ignore", "format")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a file sets.

    Attributes:
        values: Argument of the command's function -> value.
        file: The file; None where there is none.
    """

    values: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None


def options_of(command: Callable[..., Any]) -> dict[str, Option]:
    """Name -> option, of a command's function."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    hints = typing.get_type_hints(command, include_extras=True)
    found = {}
    for typed in typer.main.get_command(app).params:
        name = max(typed.opts, key=len).removeprefix("--")
        if typed.name not in hints or name in TYPED_ONLY:
            continue
        wanted, *notes = typing.get_args(hints[typed.name])
        if isinstance(wanted, types.UnionType):
            [wanted] = [kind for kind in typing.get_args(wanted) if kind is not types.NoneType]
        minimum = next((n.min for n in notes if getattr(n, "min", None) is not None), None)
        found[name] = Option(name=name, parameter=typed.name, wanted=wanted, minimum=minimum)
    return found


def configured(command: Callable[..., Any], folder: Path | None = None) -> Configuration:
    """What the nearest pyproject.toml with a table [tool.icediag] sets.

    Args:
        command: The function of `icediag check`.
        folder: Where to begin; without, the current folder. Its parents follow.

    Raises:
        IcediagError: A file on the way is no TOML, or the table holds what is no option, or a value
            of the wrong type.
    """
    start = (folder or Path.cwd()).absolute()
    for place in (start, *start.parents):
        file = place / FILE
        shown = FILE if place == start else str(file)
        table = _table(file, shown)
        if table is not None:
            known = options_of(command)
            values = dict(_value(key, item, known, file, shown) for key, item in table.items())
            return Configuration(values=values, file=file)
    return Configuration()


def _table(file: Path, shown: str) -> dict[str, Any] | None:
    """The table of a file, None where there is no such file or table."""
    try:
        if not file.is_file():
            return None
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise IcediagError(f"{shown}: expected TOML, got {error}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise IcediagError(f"{shown}: cannot be read: {reason}") from None
    tool = data.get("tool", {})
    table = tool.get("icediag") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise IcediagError(f"{shown}: expected a table [tool.icediag], got {table!r:.80}")
    return table


def _value(
    key: str, item: Any, known: dict[str, Option], file: Path, shown: str
) -> tuple[str, Any]:
    """Argument and value of one line of the table."""
    at = f"{shown}: [tool.icediag]"
    option = known.get(key)
    if option is None:
        close = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(sorted(known))}"
        raise IcediagError(f"{at} has no option {key!r:.80}; {hint}")
    if option.listed and isinstance(item, list) and all(isinstance(one, str) for one in item):
        item = ",".join(item)
    expected = _expected(option)
    if not _fits(option, item):
        raise IcediagError(f"{at} {key}: expected {expected}, got {item!r:.80}")
    if option.wanted is Path:
        item = str(file.parent / item) if shown != FILE else item
    return option.parameter, item


def _fits(option: Option, item: Any) -> bool:
    wanted = option.wanted
    if typing.get_origin(wanted) is Literal:
        return item in typing.get_args(wanted)
    if wanted is bool or isinstance(item, bool):
        return wanted is bool and isinstance(item, bool)
    if wanted in (int, float):
        right = isinstance(item, int) or (wanted is float and isinstance(item, float))
        return right and (option.minimum is None or item >= option.minimum)
    return isinstance(item, str) and "\0" not in item


def _expected(option: Option) -> str:
    wanted = option.wanted
    if typing.get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(wanted)))
    if wanted is bool:
        return "true or false"
    if wanted in (int, float):
        least = f" of at least {option.minimum:g}" if option.minimum is not None else ""
        return ("a whole number" if wanted is int else "a number") + least
    return "a text or a list of texts" if option.listed else "a text"
