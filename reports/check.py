"""The letter of `icediag check`, for a terminal: verdict, the flow with its faults, findings."""

import io

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.recording import Recording

from .answers import answers
from .flow_table import flow_table, table_notes
from .numbers import counted
from .shapes import SEVERITY_STYLES, printable
from .views import groups_of


def render_check(
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
    width = max(width, 40)
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    worst = min((f.severity for f in diagnosis.findings), key=SEVERITIES.index, default=None)
    style = SEVERITY_STYLES[worst] if worst is not None else "bold green"
    console.print(
        Text.assemble(
            (diagnosis.verdict, style),
            f": {diagnosis.pipeline}, {counted(recording.batch_size, 'sample')}",
        )
    )
    for answer in answers(recording, diagnosis):
        told = Text.assemble((f"{answer.about}: ", "bold"), answer.text)
        console.print(Padding(told, (0, 0, 0, 2)))
    table = flow_table(recording, diagnosis, width)
    if table is not None:
        console.print(Padding(table, (1, 0, 0, 0)))
        if notes := table_notes(recording):
            console.print(Text(notes, "dim"))
    for group in groups_of(diagnosis):
        console.print(finding_lines(group.finding))
        for other in group.consequences:
            console.print(Padding(finding_lines(other, same_cause=True), (0, 0, 0, 4)))
    if diagnosis.accepted:
        console.print(Text("\naccepted", "bold"))
    for finding in diagnosis.accepted:
        line = f"{finding.severity} {finding.code} {finding.name} at {finding.stage}"
        console.print(Padding(Text(line), (0, 0, 0, 2)))
    if diagnosis.not_judged:
        console.print(Text("\nnot judged", "bold"))
    for item in diagnosis.not_judged:
        console.print(Padding(Text(f"{item.name}: {item.reason}"), (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def finding_lines(finding: Finding, *, same_cause: bool = False) -> Group:
    """A finding: where, what, and what to do."""
    place = f"  {finding.location.file}:{finding.location.line}" if finding.location else ""
    lead = "with the same cause: " if same_cause else ""
    told = str(finding.effect.get("summary", "")) if finding.effect else ""
    head = (f"{finding.severity} {finding.code} {finding.name}", SEVERITY_STYLES[finding.severity])
    return Group(
        Text.assemble("\n", lead, head, f" at {finding.stage}", (place, "dim")),
        Padding(Text(finding.message), (0, 0, 0, 2)),
        *([Padding(Text(told, "italic"), (0, 0, 0, 2))] if told else []),
        Padding(Text(f"-> {finding.remedy}", "green"), (0, 0, 0, 2)),
    )
