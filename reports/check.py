"""The letter of `icediag check`, for a terminal: verdict first, then findings and remedies."""

import io

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from icediag.finding import Diagnosis, Finding
from icediag.recording import Recording

from .shapes import SEVERITY_STYLES, printable


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
    console = Console(
        file=stream,
        width=max(width, 40),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    style = SEVERITY_STYLES[diagnosis.findings[0].severity] if diagnosis.findings else "bold green"
    console.print(
        Text.assemble(
            f"{diagnosis.pipeline}, {recording.batch_size:,} samples: ", (diagnosis.verdict, style)
        )
    )
    for finding in diagnosis.findings:
        console.print(finding_lines(finding))
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


def finding_lines(finding: Finding) -> Group:
    """A finding: where, what, and what to do."""
    place = f"  {finding.location.file}:{finding.location.line}" if finding.location else ""
    head = (f"{finding.severity} {finding.code} {finding.name}", SEVERITY_STYLES[finding.severity])
    return Group(
        Text.assemble("\n", head, f" at {finding.stage}", (place, "dim")),
        Padding(Text(finding.message), (0, 0, 0, 2)),
        Padding(Text(f"-> {finding.remedy}", "green"), (0, 0, 0, 2)),
    )
