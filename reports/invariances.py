"""The letter of `icediag invariances`: each change, its worst pair, its size against rounding."""

import io
from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from icediag.finding import SEVERITIES, Diagnosis
from icediag.recording import Recording
from icediag.records.invariances import Change, InvariancesRecord, Trial

from .check import finding_lines
from .numbers import counted, number
from .shapes import SEVERITY_STYLES, printable

#: What each change is called, and whether an output that moves is a fault.
CHANGES: dict[Change, tuple[str, bool]] = {
    "content": ("neighbours' values", True),
    "gradient": ("slope by others", True),
    "company": ("alone / among all", True),
    "batch size": ("alone / twice", True),
    "padding": ("twice / beside longest", True),
    "order of rows": ("rows in another order", False),
    "shift of time": ("all times moved", False),
}
SMALL = {
    "one event": "one event alone",
    "no rows": "an event without rows",
    "one row": "an event of one row",
}
HOLDS, BROKEN = Text("holds", "green"), Text("broken", "bold red")
#: change, of which output, moved, worst pair, size, rounding, verdict.
Row = tuple[str, str, str, str, str, str, Text]


def render_invariances(
    recording: Recording, diagnosis: Diagnosis, *, width: int = 80, color: bool = False
) -> str:
    """Render.

    Args:
        recording: What was seen.
        diagnosis: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.

    Returns:
        The text, with a newline at its end.
    """
    recording, diagnosis = printable(recording), printable(diagnosis)
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
    style = "bold green" if worst is None else SEVERITY_STYLES[worst]
    record = recording.invariances
    head = Text.assemble((diagnosis.verdict, style), f": {diagnosis.pipeline}")
    if record is not None:
        precision = "a copy in float64" if record.precise else "the precision of training"
        head.append(f", {counted(record.samples, 'event')} in all orders, by {precision}")
    console.print(head)
    if record is not None:
        console.print(Padding(_table([*_rows(record), *_of_loss(recording)]), (1, 0, 0, 0)))
        console.print(
            Text(
                "moved: of the events compared; pair: what moved most, and what moved it",
                "dim",
            )
        )
    for finding in diagnosis.findings:
        console.print(finding_lines(finding))
    tried = [] if record is None else list(record.not_tried)
    for title, items in (("not tried", tried), ("not judged", list(diagnosis.not_judged))):
        if items:
            console.print(Text(f"\n{title}", "bold"))
        for item in items:
            console.print(Padding(Text(f"{item.name}: {item.reason}"), (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("changed", overflow="fold", min_width=21)
    table.add_column("output", overflow="fold")
    table.add_column("moved", justify="right", no_wrap=True)
    table.add_column("pair", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("rounding", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=7)
    for row in rows:
        table.add_row(*row)
    return table


def _rows(record: InvariancesRecord) -> Iterator[Row]:
    for change, (title, fault) in CHANGES.items():
        trials = [trial for trial in record.trials if trial.change == change]
        for trial in trials:
            yield _of_trial(trial, title if trial is trials[0] else "", fault=fault)
    if record.evaluation is not None:
        seen = record.evaluation
        still = seen.output is None
        where = f"{seen.operation or ''}" if not still else ""
        size = "0" if still else number(seen.size)
        verdict = HOLDS if still else BROKEN
        yield "same batch again", seen.output or "", "", where, size, "0", verdict
    if record.training is not None:
        again = record.training
        same = again.gradient == 0 and again.loss == 0
        size = number(again.gradient)
        verdict = HOLDS if same else Text("differs", "yellow")
        yield "same step again", "gradients", "", "", size, "0", verdict
    for pair in record.pairings:
        moved = f"{pair.astray}/{pair.rows}"
        who = "" if pair.event is None else f"{pair.event}, {pair.owner}"
        verdict = BROKEN if pair.astray else HOLDS
        yield "outputs to targets", pair.output, moved, who, "", "", verdict
    for kept in record.conservation:
        bad = (*kept.lost, *kept.doubled)
        title = f"{kept.kind} into the batch"
        who = f"event {bad[0]}" if bad else ""
        verdict = HOLDS if not bad else BROKEN if kept.kind == "events" else Text("cut", "yellow")
        yield title, kept.path, f"{len(bad)}/{kept.events}", who, "", "", verdict
    for small in record.small:
        wrong = small.failed or small.lacks_axis is not None
        spoilt = small.others_nonfinite or not (small.loss_finite and small.gradient_finite)
        title = SMALL[small.case]
        where = small.at or small.lacks_axis or ""
        yield title, where, "", "", "", "", _of_small(small.occurs) if wrong or spoilt else HOLDS


def _of_small(occurs: int) -> Text:
    """A batch that fails: as it is met, or as it may be met one day."""
    return BROKEN if occurs else Text("fails", "yellow")


def _of_trial(trial: Trial, title: str, *, fault: bool) -> Row:
    numbers = [str(n) for n in (trial.event, trial.neighbour) if n is not None]
    if fault:
        verdict = BROKEN if trial.broken else HOLDS
    else:
        verdict = Text("moves" if trial.moved else "stays")
    return (
        title,
        trial.output,
        f"{trial.moved}/{trial.events}",
        ", ".join(numbers),
        number(trial.size if trial.native is None else trial.native),
        number(trial.rounding),
        verdict,
    )


def _of_loss(recording: Recording) -> Iterator[Row]:
    """Rotations of prediction and truth together."""
    probe = recording.loss_probe
    for turn in () if probe is None else probe.rotations:
        moved = Text("moves", "yellow") if turn.size > turn.rounding else HOLDS
        title = f"turned {turn.about}"
        yield title, "loss", "", "", number(turn.size), number(turn.rounding), moved
