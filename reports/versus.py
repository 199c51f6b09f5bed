"""The tables of `icediag profile --versus`."""

import textwrap
from collections.abc import Iterator
from itertools import groupby

from icediag.records.versus import VersusRecord, VersusRow

from .numbers import counted, number

HEADER = ("ms", "quartiles", "events/s", "x ours")
GAP = "  "
#: A note of fewer columns beside the numbers would be a tower: it goes below them.
NOTE = 24


def render_versus(record: VersusRecord, *, width: int = 80) -> str:
    """Render one table a part and size: medians, quartiles, and times ours."""
    lines: list[str] = []
    for _, rows in groupby(record.rows, key=lambda row: row.what):
        for block in _blocks(list(rows)):
            lines += [*_table(block, width), ""]
    load = "" if record.load is None else f", load {record.load:.1f} before"
    times = "medians of processor time" if record.processor else "medians"
    lines += textwrap.wrap(
        f"{times}, in turn in one run, on {record.cores} cores{load}, "
        f"{counted(record.threads, 'thread')}; {', '.join(record.versions)}",
        width,
    )
    return "\n".join(lines) + "\n"


def _blocks(rows: list[VersusRow]) -> Iterator[list[VersusRow]]:
    """Cut a part's rows into those of each size: each begins with the same way, ours."""
    starts = [i for i, row in enumerate(rows) if row.way == rows[0].way]
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield rows[start:stop]


def _table(rows: list[VersusRow], width: int) -> Iterator[str]:
    """A header, then a line for each way; what is said of it beside the numbers, or below them."""
    first = rows[0]
    title = f"{first.what}, {counted(first.n_events, 'event')}"
    cells = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(HEADER, *cells, strict=True)]
    names = max(len(title), *(len(row.way) for row in rows))
    names = min(names, width - sum(widths) - len(GAP) * len(widths))
    of_numbers = names + sum(widths) + len(GAP) * len(widths)
    room = width - of_numbers - len(GAP)
    yield _line(title, HEADER, names, widths)
    for row, texts in zip(rows, cells, strict=True):
        note = row.note
        if row.n_events != first.n_events:
            note = f"{counted(row.n_events, 'event')}{'; ' * bool(note)}{note}"
        if row.ms is None:  # no numbers: why there are none stands in their place
            indent = " " * (names + len(GAP))
            yield from textwrap.wrap(
                row.way.ljust(names) + GAP + note, width, subsequent_indent=indent
            )
            continue
        line = _line(row.way, texts, names, widths)
        if not note:
            yield line
        elif room >= NOTE or len(note) <= room:
            indent = " " * (of_numbers + len(GAP))
            yield from textwrap.wrap(line + GAP + note, width, subsequent_indent=indent)
        else:
            yield line
            yield from textwrap.wrap(note, width, initial_indent=GAP, subsequent_indent=GAP)


def _line(name: str, texts: tuple[str, ...], names: int, widths: list[int]) -> str:
    numbers = (text.rjust(size) for text, size in zip(texts, widths, strict=True))
    return GAP.join([name.ljust(names), *numbers])


def _cells(row: VersusRow) -> tuple[str, ...]:
    quartiles = "-"
    if row.low_ms is not None and row.high_ms is not None and row.repeats > 1:
        quartiles = f"{number(row.low_ms)}-{number(row.high_ms)}"
    speed = row.events_per_second
    times = row.times
    return (
        number(row.ms),
        quartiles,
        "-" if speed is None else f"{speed:,.0f}" if speed >= 100 else number(speed),
        "-" if times is None else f"{times:.2f}" if times < 100 else f"{times:,.0f}",
    )
