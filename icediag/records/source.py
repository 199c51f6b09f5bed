"""Source code round the lines that a diagnosis speaks of: facts only, serializable."""

from dataclasses import dataclass, field


def place_key(file: str, line: int) -> str:
    """The key of a line in a `SourceRecord`, such as "mypkg/model.py:42"."""
    return f"{file}:{line}"


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A few lines of a file.

    Attributes:
        first: Number of the first of them.
        lines: The lines, without their ends; absolute paths in them are left out.
        left_out: How many lines that follow are left out.
    """

    first: int
    lines: tuple[str, ...]
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """Excerpts and what functions say of themselves. Keys are `place_key`.

    `texts` are of lines that were counted: two recordings are compared by what stands in a line,
    not by its number.

    Attributes:
        excerpts: Line -> the lines round it.
        summaries: First line of a function -> the first sentence of its docstring, or of its
            class's where it has none.
        bodies: First line of a function -> what it does: its lines without signature and docstring.
        files: File as recordings name it -> the same from the folder that the command ran in, in
            forward slashes, where it lies below that: what an editor or a code host can open.
        texts: Line -> what stands in it, without the blanks around it.
    """

    excerpts: dict[str, Excerpt] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, Excerpt] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
