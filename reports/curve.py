"""Curves in a terminal: eight dots in each letter, and lines to hold them against."""

import math
from collections.abc import Mapping, Sequence

from rich.text import Text

from .numbers import number

#: The dots of a braille letter, by row and column (Unicode 15, block U+2800).
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
#: Letters that the labels at the left take.
MARGIN = 10


def drawn_curve(
    values: Sequence[float], marks: Mapping[str, float], *, width: int, height: int = 8
) -> Text | None:
    """Draw values over their index.

    Args:
        values: What is drawn; what is not finite is left out.
        marks: Label -> height of a line across.
        width: Letters, labels included.
        height: Lines.

    Returns:
        The picture; None where there is nothing to draw.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    known = {label: at for label, at in marks.items() if math.isfinite(at)}
    low, high = min(*finite, *known.values(), finite[0]), max(*finite, *known.values(), finite[0])
    span = (high - low) or max(abs(high), 1e-12)
    columns, rows = max(8, width - MARGIN - 2), 4 * height

    def row_of(value: float) -> int:
        return min(rows - 1, max(0, round((high - value) / span * (rows - 1))))

    cells = [[0] * columns for _ in range(height)]
    last = max(1, len(values) - 1)
    before: int | None = None
    for x in range(2 * columns):
        value = values[round(x * last / (2 * columns - 1)) if len(values) > 1 else 0]
        if not math.isfinite(value):
            before = None
            continue
        now = row_of(value)
        # A steep piece is drawn as a line, not as two dots far apart.
        ends = (now, now) if before is None else (min(before, now), max(before, now))
        for y in range(ends[0], ends[1] + 1):
            cells[y // 4][x // 2] |= DOTS[y % 4][x % 2]
        before = now
    across = {row_of(at) // 4: label for label, at in known.items()}
    text = Text()
    for y, line in enumerate(cells):
        label = number(high) if y == 0 else number(low) if y == height - 1 else ""
        text.append(f"{label:>{MARGIN - 1}} ", "dim")
        text.append("│", "dim")
        mark = across.get(y)
        for cell in line:
            if cell:
                text.append(chr(0x2800 + cell), "bold")
            else:
                text.append("╌" if mark is not None else " ", "dim")
        text.append("\n")
    text.append(" " * MARGIN + "└", "dim")
    steps = f"{len(values) - 1} steps"
    text.append("─" * (columns - len(steps) - 1) + f" {steps}", "dim")
    if known:
        named = " · ".join(f"{label} {number(at)}" for label, at in known.items())
        text.append("\n" + " " * (MARGIN + 1) + f"╌ {named}", "dim")
    return text
