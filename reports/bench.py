"""The table of `icediag bench`."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .numbers import number

if TYPE_CHECKING:
    from icediag.instruments.bench import BenchRow


def render_bench(rows: "Sequence[BenchRow]", *, width: int = 80) -> str:
    """Render timings as a table with medians, and quartiles of the ratios.

    `cpu` is the ratio in processor time.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
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
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
