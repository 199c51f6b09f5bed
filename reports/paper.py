"""Paper: a console that writes into a text, and small things that letters share."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: No letter is narrower than this.
NARROWEST = 40


def written(parts: Iterable[RenderableType | None], *, width: int, color: bool) -> str:
    """What a terminal of this width would show.

    Args:
        parts: In order; None is passed over.
        width: Columns.
        color: Whether to use colours.

    Returns:
        The text, without blanks at the ends of lines and with a newline at its end.
    """
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=max(width, NARROWEST),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,  # names are the user's: "[red]" is four letters and two brackets
        emoji=False,
    )
    for part in parts:
        if part is not None:
            console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def table_of(*titles: str, left: int = 1) -> Table:
    """An open table; text first, aligned to the left, then numbers.

    Args:
        *titles: Of the columns.
        left: How many are no numbers.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < left else "right", overflow="fold")
    return table


def section(title: str, body: RenderableType) -> Padding:
    """A titled part with a blank line before it."""
    whole = Table.grid()
    whole.add_row(Text(title, "bold"))
    whole.add_row(body)
    return Padding(whole, (1, 0, 0, 0))
