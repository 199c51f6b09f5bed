"""`icediag compare`: two recordings or diagnoses side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icediag.errors import IcediagError

if TYPE_CHECKING:
    from icediag.finding import Diagnosis
    from icediag.recording import Recording

FailOn = Literal["error", "warning", "note", "never"]


def compare(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="A recording or a diagnosis, or the folder that --out wrote them to.",
        ),
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="The same of the code as it is now.")],
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="What is worse from which on the exit code is 1.")
    ] = "warning",
    out: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the comparison to this file."),
    ] = None,
) -> int:
    """Say what got worse from A to B, and at which line: counts exactly, times by intervals.

    Exit code 0: nothing, 1: something, 2: they cannot be compared.
    """
    from dataclasses import replace

    from rich.console import Console

    from icediag.checks import slower_than_baseline
    from icediag.finding import SEVERITIES, Finding
    from icediag.instruments.profiling import comparison
    from icediag.matching import match
    from icediag.plain import to_json, write_atomically
    from icediag.recording import Unjudged
    from icediag.reports.compare import render_comparison

    from .load import writable_folder

    if out is not None:
        writable_folder(out.parent, "--json")
    old, new = _read(before), _read(after)
    findings: list[Finding] = []
    record = matched = None
    if old[0] is not None and new[0] is not None:
        record = comparison.compare(old[0], new[0])
        answer = slower_than_baseline.check(replace(new[0], comparison=record))
        if isinstance(answer, Unjudged):
            if old[1] is None or new[1] is None:
                raise IcediagError(f"{after}: cannot be compared with {before}: {answer.reason}")
        else:
            findings += answer
    if old[1] is not None and new[1] is not None:
        matched = match(old[1].findings, new[1].findings)
    if record is None and matched is None:
        raise IcediagError(
            f"expected two recordings or two diagnoses, got {_kind(old)} and {_kind(new)}"
        )
    if out is not None and record is not None:
        write_atomically(out, to_json(record))
    console = Console()
    console.file.write(
        render_comparison(
            record,
            matched,
            findings=findings,
            width=console.width,
            color=console.color_system is not None,
        )
    )
    console.file.flush()
    worse = [finding.severity for finding in findings]
    if matched is not None:
        worse += [finding.severity for finding in matched.new]
        worse += [now.severity for _, now in matched.worse]
    bar = -1 if fail_on == "never" else SEVERITIES.index(fail_on)
    return int(any(SEVERITIES.index(severity) <= bar for severity in worse))


def _read(path: Path) -> "tuple[Recording | None, Diagnosis | None]":
    """A recording and a diagnosis: of a folder both, if both are there.

    Raises:
        IcediagError: There is none, or it cannot be read.
    """
    from icediag.finding import Diagnosis
    from icediag.plain import read_text
    from icediag.recording import Recording

    if path.is_dir():
        recording, diagnosis = path / "recording.json", path / "diagnosis.json"
        found = (
            Recording.load(recording) if recording.is_file() else None,
            Diagnosis.load(diagnosis) if diagnosis.is_file() else None,
        )
        if found == (None, None):
            raise IcediagError(f"{path}: expected recording.json or diagnosis.json, got neither")
        return found
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and "findings" in data:
        return None, Diagnosis.from_json(text, str(path))
    return Recording.from_json(text, str(path)), None


def _kind(read: "tuple[Recording | None, Diagnosis | None]") -> str:
    return "a recording" if read[0] is not None else "a diagnosis"
