"""Markdown as text, with everything that is put into it taken literally."""

import re
from collections.abc import Iterable, Sequence

#: What Markdown or HTML would take for more than itself.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def plain(text: object) -> str:
    """Text in one line, every character literal."""
    words = " ".join(str(text).split())
    words = "".join(c if c.isprintable() else "?" for c in words)
    return _SPECIAL.sub(r"\\\1", words).replace("\\<", "&lt;").replace("\\>", "&gt;")


def code(text: object) -> str:
    """Text as code in a line; also within a table."""
    words = " ".join(str(text).split())
    words = "".join(c if c.isprintable() else "?" for c in words) or " "
    longest = max((len(run) for run in re.findall("`+", words)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{fence}{pad}{words}{pad}{fence}".replace("|", "\\|")


def cell(text: object) -> str:
    """Text as a cell of a table."""
    return plain(text)


def heading(level: int, text: str) -> str:
    """A heading."""
    return f"{'#' * level} {plain(text)}"


def fenced(lines: Sequence[str], language: str = "") -> list[str]:
    """Lines as a block of code."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *lines, fence]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table; the cells are Markdown, see `cell` and `code`."""
    rule = ["--:" if i in right else "---" for i in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
