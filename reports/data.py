"""The tables of `icediag data`."""

import io

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from icediag.finding import SEVERITIES, Diagnosis
from icediag.records.data import Comparison, DataRecord, Distribution, Normalization

from .check import finding_lines
from .numbers import counted, number
from .shapes import SEVERITY_STYLES, printable

_QUANTILES = {"P1": "0.01", "P25": "0.25", "P50": "0.5", "P75": "0.75", "P99": "0.99"}


def render_data(
    record: DataRecord, diagnosis: Diagnosis, *, width: int = 80, color: bool = False
) -> str:
    """Render.

    Args:
        record: What the audit saw.
        diagnosis: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.

    Returns:
        The text, with a newline at its end.
    """
    record, diagnosis = printable(record), printable(diagnosis)
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=max(width, 60),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    worst = min((f.severity for f in diagnosis.findings), key=SEVERITIES.index, default=None)
    console.print(
        Text.assemble(
            (diagnosis.verdict, SEVERITY_STYLES[worst] if worst else "bold green"),
            f": {record.name}, {counted(record.events, 'event')}, "
            f"{counted(record.pulses, 'pulse')} in {len(record.files):,} of "
            f"{counted(record.files_there, 'file')}",
        )
    )
    for table in (_distributions(record), _shares(record), _normalization(record.normalization)):
        console.print(Padding(table, (1, 0, 0, 0)))
    if record.comparison:
        console.print(Padding(_comparison(record.comparison), (1, 0, 0, 0)))
    for finding in diagnosis.findings:
        console.print(finding_lines(finding))
    if diagnosis.not_judged:
        console.print(Text("\nnot judged", "bold"))
    for item in diagnosis.not_judged:
        console.print(Padding(Text(f"{item.name}: {item.reason}"), (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _table(first: str, *rest: str) -> Table:
    table = Table(
        box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="dim"
    )
    table.add_column(first, overflow="fold")
    for name in rest:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _distributions(record: DataRecord) -> Group:
    table = _table("values", "min", *_QUANTILES, "max", "mean", "sd")
    for one in record.distributions:
        if one.count:
            table.add_row(_title(one), *_cells(one))
    errors = {f"{d.name} to {d.error:.2g} of {_whole(d)}" for d in record.distributions if d.error}
    note = "quantiles are exact" + (", but of " + ", ".join(sorted(errors)) if errors else "")
    return Group(table, Text(note, "dim"))


def _whole(one: Distribution) -> str:
    return "the domain" if one.unit == "rad" else "their value"


def _title(one: Distribution) -> str:
    return f"{one.name} ({one.unit})" if one.unit else one.name


def _cells(one: Distribution) -> list[str]:
    values = [one.minimum, *(one.quantiles.get(q) for q in _QUANTILES.values()), one.maximum]
    return [number(value) for value in (*values, one.mean, one.std)]


def _shares(record: DataRecord) -> Table:
    table = _table("share", "")
    for pulses, part in record.pulses_per_dom.items():
        table.add_row(f"DOMs with {pulses} pulse{'' if pulses == '1' else 's'}", f"{part:.3g}")
    for name, flagged in (
        ("auxiliary, of all pulses", record.auxiliary),
        ("auxiliary, of events below 90 pulses", record.auxiliary_small),
    ):
        table.add_row(name, "-" if flagged is None else f"{flagged:.3g}")
    return table


def _normalization(features: tuple[Normalization, ...]) -> Group:
    table = _table(
        "feature", "shift, scale", "min", "median", "max", "spread", "below 0", "far", "that fit"
    )
    for f in features:
        table.add_row(
            f.feature.split(" (")[0],
            f"{f.shift:.6g}, {f.scale:.6g}",
            f"{f.minimum:.3g}",
            f"{f.median:.2g}",
            f"{f.maximum:.3g}",
            f"{f.spread:.2g}",
            f"{f.negative:.0%}",
            f"{f.far:.1%}",
            f"{_plain(f.fitted_shift)}, {_plain(f.fitted_scale)}",
        )
    legend = (
        "what (value - shift) / scale gives with the constants in use; spread: half the distance "
        "of quantiles 0.1587 and 0.8413, 1 for a unit normal; far: more than 5 spreads from the "
        "median; that fit: shift and scale that give median 0 and spread 1"
    )
    lines = [legend]
    if any(f.minimum < 0 for f in features):
        lines.append("values below 0 are no fault: that is what a shift is for")
    narrow = [f"{f.feature} {f.spread:.2g}" for f in features if f.narrow]
    if narrow:
        lines.append(
            f"narrow, {', '.join(narrow)}: what hangs on a feature of so small a spread is learnt "
            "later than what hangs on others"
        )
    return Group(table, *(Text(line, "dim") for line in lines))


def _plain(value: float) -> str:
    """Four digits, and no powers of ten where numbers are of a usual size."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def _comparison(rows: tuple[Comparison, ...]) -> Table:
    table = _table("beside the competition", "here", "published", "ratio", "")
    for row in rows:
        table.add_row(
            row.quantity,
            number(row.here),
            number(row.published),
            f"{row.ratio:.2f}",
            Text(f"off by more than {row.limit:.0%}", "yellow") if row.off else "",
        )
    return table
