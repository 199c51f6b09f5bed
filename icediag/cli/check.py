"""`icediag check`: everything at once, judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icediag.errors import IcediagError

from .options import (
    Backend,
    BatchSize,
    Data,
    Device,
    Events,
    Fault,
    Files,
    Format,
    Head,
    PipelineOption,
    Seed,
    Timeout,
)

if TYPE_CHECKING:
    from rich.console import Console

    from icediag.baseline import Accepted

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
    timeout: Timeout = 600.0,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Findings from which on the exit code is 1.")
    ] = "warning",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write report.html, report.md, diagnosis.json and recording.json to this folder.",
        ),
    ] = None,
    formats: Format = "",
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="FILE", help="Findings that are accepted; only new ones count."
        ),
    ] = None,
    write_baseline: Annotated[
        bool,
        typer.Option("--write-baseline", help="Accept all that is found: write it to --baseline."),
    ] = False,
    timings: Annotated[
        bool, typer.Option("--timings", help="Say how long each instrument took.")
    ] = False,
) -> int:
    """Run every check on one batch of a pipeline, and say what is wrong with it.

    Exit code 0: nothing found, 1: findings, 2: the pipeline could not be run. Options may stand in
    pyproject.toml, in the table tool.icediag; one that is typed wins.
    """
    from dataclasses import replace

    from rich.console import Console

    from icediag.baseline import Baseline
    from icediag.checks import chosen, judge, needs_of, wishes_of
    from icediag.instruments.examine import examine, planned
    from icediag.instruments.source import with_source
    from icediag.reference import early
    from icediag.reports.formats import needs_of_reports

    from .load import load_pipeline, made_folder, resolve_device, writable_folder
    from .outputs import deliver, formats_of
    from .progress import progress_of
    from .timings import Timings

    checks = chosen(_words(select), _words(ignore))
    reports = formats_of(formats, out)
    known = None
    if write_baseline and baseline is None:
        raise IcediagError("--write-baseline: expected --baseline FILE with it, got none")
    if baseline is not None:
        if write_baseline:
            writable_folder(baseline.parent, "--baseline")
        else:
            known = Baseline.load(baseline)
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
    needs = needs_of(checks) | wishes_of(checks) | needs_of_reports(reports)
    with progress_of(planned(needs, experiments=not quick)) as tell:
        timed = Timings(tell)
        recording = examine(
            loaded,
            needs=needs,
            batch_size=batch_size,
            device=place,
            seed=seed,
            experiments=not quick,
            timeout=timeout,
            progress=timed,
        )
        timed.end()
    if recording.overfit is not None:
        own = pipeline is None and data is None
        beside = early(same_events=own, baseline=loaded.baseline_loss)
        recording = replace(recording, overfit=replace(recording.overfit, early=beside))
    diagnosis = judge(recording, checks)
    if timings:
        for line in timed.lines():
            Console(stderr=True).print(line, markup=False, highlight=False)
    if write_baseline and baseline is not None and recording.came_through:
        known = Baseline.of(diagnosis)
        known.save(baseline)
    if known is not None:
        gone = [item for item in known.gone(diagnosis.findings) if item.name in diagnosis.checks]
        diagnosis = known.apply(diagnosis)
        _tell_gone(Console(stderr=True), gone)
    deliver(with_source(recording, diagnosis), diagnosis, reports, folder)
    if not recording.came_through:
        return 2
    return 1 if fail_on != "never" and diagnosis.at_least(fail_on) else 0


def _tell_gone(console: "Console", gone: Sequence["Accepted"]) -> None:
    """Say which accepted findings are not there any more: the baseline may shrink."""
    for item in gone:
        line = f"accepted and not found any more: {item.code} {item.name} at {item.stage}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if text.strip() else []
