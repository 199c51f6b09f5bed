"""Tables whose columns stand in groups under a heading of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

#: Between columns, and between groups.
GAP, GROUP_GAP = 1, 2
#: What may be cut is not cut to less than this.
NARROWEST = 12


@dataclass(frozen=True, kw_only=True)
class Group:
    """Columns that belong together.

    Attributes:
        title: Above them; "" for none.
        columns: Their names. They stand right; the very first column stands left.
        style: Of the title.
        left: Whether they stand left too.
    """

    title: str
    columns: tuple[str, ...]
    style: str = "bold"
    left: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table, and what stands under it.

    Attributes:
        cells: One for each column.
        under: A line of its own, over all columns; folded where it is too wide.
    """

    cells: Sequence[Text]
    under: Text | None = None


def grid(groups: Sequence[Group], rows: Sequence[Row], width: int) -> Text:
    """Lay out. Where it does not fit, columns that stand left are cut, the last of them first.

    Args:
        groups: Columns from left to right; the first column holds names.
        rows: With a cell for each column.
        width: Columns of the terminal.
    """
    names = [name for group in groups for name in group.columns]
    first, left = set[int](), {0}
    ends: list[tuple[Group, int, int]] = []
    at = 0
    for group in groups:
        end = at + len(group.columns)
        ends.append((group, at, end))
        first.add(at)
        left |= set(range(at, end)) if group.left else set()
        at = end
    gaps = [0, *(GROUP_GAP if i in first else GAP for i in range(1, len(names)))]
    widths = [
        max([cell_len(name), *(cell_len(row.cells[i].plain) for row in rows)])
        for i, name in enumerate(names)
    ]
    for group, begin, end in ends:  # a title may be wider than what stands under it
        inner = sum(widths[begin:end]) + sum(gaps[begin + 1 : end])
        widths[begin] += max(0, cell_len(group.title) - inner)
    for i in sorted(left, reverse=True):
        excess = max(0, sum(widths) + sum(gaps) - width)
        widths[i] = min(widths[i], max(NARROWEST, widths[i] - excess))
    lines: list[Text] = []
    if any(group.title for group in groups):
        line = Text()
        for group, begin, end in ends:
            inner = sum(widths[begin:end]) + sum(gaps[begin + 1 : end])
            line.append(" " * gaps[begin])
            line.append(f"{group.title:^{inner}}", group.style)
        lines.append(line)
    head = Row(cells=[Text(name, "dim") for name in names])
    for row in (head, *rows):
        line = Text()
        for i, cell in enumerate(row.cells):
            line.append(" " * gaps[i])
            line.append_text(_placed(cell, widths[i], left=i in left))
        line.rstrip()
        lines.append(line)
        if row.under is not None:
            lines.append(row.under)
    return Text("\n").join(lines)


def _placed(cell: Text, width: int, *, left: bool) -> Text:
    blank = width - cell_len(cell.plain)
    if blank < 0:
        text = cell.copy()
        if left and ":" in cell.plain:  # of a place the end tells most
            return Text(f"…{cell.plain[1 - width :]}", cell.style)
        text.truncate(width, overflow="ellipsis")
        return text
    return Text.assemble(cell, " " * blank) if left else Text.assemble(" " * blank, cell)
