"""The table of `icediag bench`."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .numbers import number

if TYPE_CHECKING:
    from icediag.instruments.bench.rates import RateRow
    from icediag.instruments.bench.run import BenchRow


def render_bench(rows: "Sequence[BenchRow]", *, width: int = 80) -> str:
    """Render timings as a table with medians, and quartiles of the ratios.

    `cpu` is the ratio in processor time.
    """
    table = _empty()
    table.add_column("part", overflow="fold")
    table.add_column("beside", overflow="fold")
    for name in ("ms", "beside ms", "ratio", "quartiles", "cpu", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.part,
            row.yardstick,
            number(row.part_ms),
            number(row.yardstick_ms),
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.2f}-{row.ratio_high:.2f}",
            f"{row.processor_ratio:.2f}",
            str(row.pairs),
        )
    return _rendered(table, width)


def render_rates(rows: "Sequence[RateRow]", *, width: int = 80) -> str:
    """Render rates as a table with medians and quartiles of the blocks."""
    table = _empty()
    table.add_column("by processor time of one core", overflow="fold")
    for name in ("rate", "quartiles", "blocks"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_row(
            row.part,
            f"{row.rate:,.0f}",
            f"{row.low:,.0f}-{row.high:,.0f}",
            f"{row.blocks} of {row.size}",
            row.unit,
        )
    return _rendered(table, width)


def _empty() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")


def _rendered(table: Table, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
