"""`make versus`: the table of `icediag profile --versus all` in README.md, measured anew.

Takes minutes, and wants a quiet machine. PyTorch Geometric takes part where it is installed.
"""

import sys
from pathlib import Path

from icediag.instruments.versus import NAMES, measure_versus
from icediag.records.versus import VersusRecord, VersusRow
from icediag.reports.numbers import brief

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- versus: written by `make versus` -->"
END = "<!-- end of versus -->"
#: Sizes that have a column, and one more that a slow way is seen at.
COLUMNS, BESIDE = (32, 256, 2048), 128
REPEATS, ON_DISK = 30, 20_000


def table(record: VersusRecord) -> str:
    """The table in Markdown, with what it was measured on above it and loading below it."""
    load = "" if record.load is None else f", load {record.load:.1f} before"
    machine = f"{record.cores} cores{load}; {', '.join(record.versions)}"
    lines = [
        f"Medians in milliseconds and, in brackets, times ours, in turn in one run, on {machine};",
        "events have the simulator's heavy-tailed lengths; all but collate go forward and back:",
        "",
        "| | " + " | ".join(f"{n:,} events" for n in COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    ways: dict[tuple[str, str], dict[int, VersusRow]] = {}
    for row in record.rows:
        if row.what != "loading":
            ways.setdefault((row.what, row.way), {})[row.n_events] = row
    last = ""
    for (what, way), rows in ways.items():
        title = way if what == last else f"**{what}**: {way}"
        cells = [_cell(rows.get(n)) for n in COLUMNS]
        beside = _cell(rows.get(BESIDE))
        if beside and not any(cells[1:]):
            title += f"; at {BESIDE} events {beside}"
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        else:
            why = next((row.note for row in rows.values() if row.note), "not run")
            lines.append(f"| {title} | {why} |" + " |" * (len(COLUMNS) - 1))
        last = what
    loaded = [row for row in record.rows if row.what == "loading" and row.events_per_second]
    if loaded:
        speeds = "; ".join(f"{row.way} {row.events_per_second:,.0f}" for row in loaded)
        lines += ["", f"Loading, events a second of {loaded[0].n_events:,} on disk: {speeds}."]
    return "\n".join(lines)


def _cell(row: VersusRow | None) -> str:
    if row is None or row.ms is None:
        return ""
    times = "" if row.times is None or row.times == 1 else f" ({brief(row.times)})"
    return f"{brief(row.ms)}{times}"


def updated(text: str, record: VersusRecord) -> str:
    """The README with the table of a run.

    Raises:
        ValueError: It has no place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name}: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(record)}\n\n{END}{after}"


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    """Measure, and write the README anew."""
    record = measure_versus(
        NAMES,
        sizes=(*COLUMNS, BESIDE),
        repeats=REPEATS,
        on_disk=ON_DISK,
        seed=0,
        told=_tell,
    )
    text = README.read_text(encoding="utf-8")
    README.write_text(updated(text, record), encoding="utf-8")
    sys.stdout.write(f"{table(record)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
