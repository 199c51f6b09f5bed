"""`icediag invariances`: batches put together otherwise, and what moves."""

from pathlib import Path
from typing import Annotated

import typer

from .check import FailOn
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


def invariances(
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
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Findings from which on the exit code is 1.")
    ] = "warning",
    out: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the recording to this file."),
    ] = None,
) -> int:
    """Put batches together otherwise, and show what moves that must not, against rounding.

    Exit code 0: nothing moves, 1: findings, 2: the pipeline could not be run.
    """
    from rich.console import Console

    from icediag.checks import CHECKS, judge
    from icediag.instruments.examine import examine, planned
    from icediag.reports.invariances import render_invariances

    from .load import load_pipeline, resolve_device, writable_folder
    from .progress import progress_of

    if out is not None:
        writable_folder(out.parent, "--json")
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
    needs = frozenset({"invariances", "loss_probe"})
    checks = [check for check in CHECKS if set(check.NEEDS) == {"invariances"}]
    checks += [check for check in CHECKS if check.NAME in ("run-fails", "turned-loss")]
    with progress_of(planned(needs)) as tell:
        recording = examine(
            loaded, needs=needs, batch_size=batch_size, device=place, seed=seed, progress=tell
        )
    diagnosis = judge(recording, checks)
    if out is not None:
        recording.save(out)
    console = Console()
    color = console.color_system is not None
    console.file.write(render_invariances(recording, diagnosis, width=console.width, color=color))
    console.file.flush()
    if not recording.came_through:
        return 2
    return 1 if fail_on != "never" and diagnosis.at_least(fail_on) else 0
