"""`icediag check`: everything at once, judged."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import (
    Backend,
    BatchSize,
    Data,
    Device,
    Events,
    Fault,
    Files,
    Head,
    PipelineOption,
    Seed,
)

FailOn = Literal["error", "warning", "note", "never"]


def check(
    pipeline: PipelineOption = None,
    data: Data = None,
    files: Files = None,
    events: Events = 1024,
    fault: Fault = None,
    head: Head = "unit_vector",
    backend: Backend = "auto",
    batch_size: BatchSize = None,
    device: Device = "auto",
    seed: Seed = 0,
    select: Annotated[
        str,
        typer.Option(
            "--select", metavar="CODE,...", help="Only these checks: codes, their letters, names."
        ),
    ] = "",
    ignore: Annotated[
        str, typer.Option("--ignore", metavar="CODE,...", help="All checks but these.")
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out experiments that train the model.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=1, metavar="S", help="Seconds that each instrument may take."
        ),
    ] = 600.0,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Findings from which on the exit code is 1.")
    ] = "warning",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write diagnosis and recording to this folder."),
    ] = None,
) -> int:
    """Run every check on one batch of a pipeline, and say what is wrong with it.

    Exit code 0: nothing found, 1: findings, 2: the pipeline could not be run.
    """
    from rich.console import Console

    from icediag.checks import chosen, judge, needs_of
    from icediag.instruments.examine import FLOW, examine
    from icediag.reports.check import render_check

    from .load import load_pipeline, made_folder, resolve_device

    checks = chosen(_words(select), _words(ignore))
    folder = None if out is None else made_folder(out, "--out")
    loaded = load_pipeline(
        pipeline,
        data=data,
        files=files,
        events=events,
        faults=fault,
        head=head,
        backend=backend,
        batch_size=batch_size,
        seed=seed,
    )
    place = resolve_device(device, loaded)
    progress = Console(stderr=True)
    with progress.status("starting") as status:
        recording = examine(
            loaded,
            needs=needs_of(checks),
            batch_size=batch_size,
            device=place,
            seed=seed,
            experiments=not quick,
            timeout=timeout,
            progress=status.update,
        )
    diagnosis = judge(recording, checks)
    if folder is not None:
        recording.save(folder / "recording.json")
        diagnosis.save(folder / "diagnosis.json")
    console = Console()
    color = console.color_system is not None
    console.file.write(render_check(recording, diagnosis, width=console.width, color=color))
    console.file.flush()
    if FLOW & {item.name for item in recording.not_judged}:
        return 2
    return 1 if fail_on != "never" and diagnosis.at_least(fail_on) else 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if text.strip() else []
