"""Findings and what could not be judged, under the letters of single instruments."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from icediag.finding import Diagnosis

from .check import finding_lines


def diagnosis_parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """All findings, then what could not be judged."""
    for finding in diagnosis.findings:
        yield finding_lines(finding)
    if diagnosis.not_judged:
        yield Text("\nnot judged", "bold")
    for item in diagnosis.not_judged:
        yield Padding(Text(f"{item.name}: {item.reason}"), (0, 0, 0, 2))
