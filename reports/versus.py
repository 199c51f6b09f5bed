"""The tables of `icediag profile --versus`."""

import io
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icediag.versus_record import VersusRecord, VersusRow

from .numbers import counted, number


def render_versus(record: VersusRecord, *, width: int = 80) -> str:
    """Render one table a part: medians, quartiles, and times ours."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    for what, rows in groupby(record.rows, key=lambda row: row.what):
        console.print(_table(what, list(rows)))
        console.print()
    load = "" if record.load is None else f", load {record.load:.1f} before"
    times = "medians of processor time" if record.processor else "medians"
    console.print(
        f"{times}, in turn in one run, on {record.cores} cores{load}, "
        f"{counted(record.threads, 'thread')}; {', '.join(record.versions)}"
    )
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _table(what: str, rows: list[VersusRow]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column(what, overflow="fold")
    for name in ("events", "ms", "quartiles", "events/s", "x ours"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows:
        quartiles = "-"
        if row.low_ms is not None and row.high_ms is not None:
            quartiles = f"{number(row.low_ms)}-{number(row.high_ms)}"
        speed = row.events_per_second
        table.add_row(
            Text(row.way),
            f"{row.n_events:,}",
            number(row.ms),
            quartiles,
            "-" if speed is None else f"{speed:,.0f}" if speed >= 100 else number(speed),
            "-"
            if row.times is None
            else f"{row.times:.2f}"
            if row.times < 100
            else f"{row.times:,.0f}",
            Text(row.note),
        )
    return table
