"""The table of `icediag baseline`."""

import io

from rich.console import Console
from rich.table import Table

from icediag.records.baseline import BaselineRecord

from .numbers import counted


def render_baseline(record: BaselineRecord, *, width: int = 80) -> str:
    """Render mean and median errors: a row a group, a column a method, beside pi/2."""
    methods = list(dict.fromkeys(row.method for row in record.rows))
    groups = list(dict.fromkeys(row.group for row in record.rows))
    found = {(row.method, row.group): row for row in record.rows}
    stream = io.StringIO()
    console = Console(file=stream, width=max(width, 60), color_system=None, highlight=False)
    new = {None: "", True: ", none of them trained on", False: ""}[record.held_out]
    some = record.there is not None and record.there > record.events
    events = (
        f"{record.events:,} of {record.there:,} events" if some else counted(record.events, "event")
    )
    console.print(f"{record.name}: {events}{new}; angular errors in rad")
    for what in ("mean", "median"):
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
        table.add_column(what, no_wrap=True)
        # What a network is worth: beside the fit that is to be had for nothing.
        compared = what == "mean" and "network" in methods and found["network", "all"].ratio
        for name in ("events", "nothing", *methods, *(["network/ improved"] if compared else [])):
            table.add_column(name.replace(" ", "\n"), justify="right")
        for group in groups:
            first = found[methods[0], group]
            cells = [f"{getattr(found[method, group], what):.3f}" for method in methods]
            if compared:
                ratio = found["network", group].ratio
                cells.append("-" if ratio is None else f"{ratio:.2f}")
            table.add_row(group, f"{first.events:,}", "1.571", *cells)
        console.print()
        console.print(table)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("all events", overflow="fold")
    for name in ("10 %", "25 %", "75 %", "90 %", "seconds"):
        table.add_column(name, justify="right")
    for method in methods:
        row = found[method, "all"]
        cells = [f"{value:.3f}" for value in row.quantiles.values()]
        table.add_row(method, *cells, f"{record.seconds.get(method, 0.0):.1f}")
    console.print()
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
