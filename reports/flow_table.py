"""The flow as a short table for a terminal: what each stage gives, its time, and what is wrong."""

from collections import Counter

from rich.table import Table
from rich.text import Text

from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.recording import Recording

from .drawing import SIGNS, drawn_stages
from .numbers import brief, percent
from .shapes import KIND_STYLES, SEVERITY_STYLES
from .timing import AFTER, shares_of
from .views import elsewhere, range_of, shape_of, views_of

#: Below these widths there is no room for ranges, and for shapes.
ROOM, LITTLE = 66, 50
#: From here on there is room for many codes beside each other.
WIDE = 100


def flow_table(recording: Recording, diagnosis: Diagnosis, width: int) -> Table | None:
    """The table; None where no stage was seen."""
    rows = drawn_stages(views_of(recording, diagnosis))
    if not rows:
        return None
    shares = shares_of(recording)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("", width=1)
    table.add_column("stage", overflow="fold", ratio=4)
    if width >= LITTLE:
        table.add_column("gives", overflow="fold", ratio=3)
    if width >= ROOM:
        table.add_column("range", overflow="fold", ratio=3)
    for kind in shares:
        table.add_column({"measured": "time", "projected": "proj."}[kind], justify="right")
    # Codes go on below one another before the name of a stage is broken.
    table.add_column("found", overflow="fold", min_width=5, max_width=10 if width < WIDE else None)

    def add(name: Text, shape: str, values: str, found: tuple[Finding, ...], key: str) -> None:
        cells: list[str | Text] = [_sign(found), name]
        cells += [shape] if width >= LITTLE else []
        cells += [values] if width >= ROOM else []
        cells += [percent(known[key]) if key in known else "" for known in shares.values()]
        table.add_row(*cells, _codes(found))

    parent = ""
    for row in rows:
        record, output = row.view.record, row.view.main_output
        label = record.name
        if row.depth == 2 and label.startswith(f"{parent}."):
            label = label.removeprefix(parent)
        elif row.depth < 2:
            parent = label
        name = Text("  " * row.depth + label, KIND_STYLES.get(record.kind, ""))
        if row.view.findings:
            name.stylize("bold")
        shape = shape_of(output) if output is not None else ""
        add(name, shape, range_of(output, brief), row.view.findings, record.name)
    outside: dict[str, list[Finding]] = {
        name: [] for name in AFTER if any(name in known for known in shares.values())
    }
    for finding in elsewhere(recording, diagnosis):
        outside.setdefault(finding.stage, []).append(finding)
    for stage, found in outside.items():
        add(Text(stage, "bold" if found else ""), "", "", tuple(found), stage)
    return table


def table_notes(recording: Recording) -> str:
    """What the columns of time are, "" without them."""
    words = []
    clock, projection = recording.clock, recording.projection
    if clock is not None and clock.stages:
        words.append(f"time: share of a step of {clock.batch_size:,} samples on {clock.device}")
    if projection is not None and projection.stages:
        words.append(f"proj.: projected on {projection.title}, {projection.batch_size:,} samples")
    return "; ".join(words)


def _sign(found: tuple[Finding, ...]) -> Text:
    worst = min((f.severity for f in found), key=SEVERITIES.index, default=None)
    return Text(SIGNS[worst], SEVERITY_STYLES[worst]) if worst else Text("")


def _codes(found: tuple[Finding, ...]) -> Text:
    """Such as "N01 ×2 F03", each in the colour of its severity."""
    text = Text()
    for (severity, code), n in Counter((f.severity, f.code) for f in found).items():
        times = f" ×{n}" if n > 1 else ""
        text.append(" " if text else "").append(f"{code}{times}", SEVERITY_STYLES[severity])
    return text
