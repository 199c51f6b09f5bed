"""`icediag data`: a whole data set audited."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import Events, Files, Seed

#: Pulses from which on a rate says something.
_MANY = 1_000_000

FailOn = Literal["error", "warning", "note", "never"]


def data(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA]",
            help="A data set in the competition's layout. Without, embedded simulated events.",
        ),
    ] = None,
    files: Files = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, metavar="N", help="Use N files, spread evenly over all."),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            "--validation", metavar="DIR", help="A second data set, that should share no event."
        ),
    ] = None,
    against: Annotated[
        Literal["competition"] | None,
        typer.Option("--against", help="Compare with published figures: competition."),
    ] = None,
    events: Events = 4096,
    seed: Seed = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures to a file.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw them: a .png, .pdf or .svg file."),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Findings from which on the exit code is 1.")
    ] = "warning",
) -> int:
    """Audit a data set: distributions, faults, and what its normalisation comes out as.

    All files are streamed once, in memory that does not grow with them. Exit code 0: nothing found,
    1: findings, 2: it could not be read.
    """
    import tempfile
    import time

    started = time.perf_counter()

    from rich.console import Console

    from icediag.checks import chosen, judge
    from icediag.errors import IcediagError
    from icediag.instruments.audit import audit
    from icediag.model.simulate import default_events
    from icediag.model.table import write_dataset
    from icediag.recording import Recording
    from icediag.reports.data import render_data
    from icediag.reports.data_page import draw_data

    from .load import writable_folder

    if files is not None and sample is not None:
        raise IcediagError("--sample: expected either --files or --sample, got both")
    if plot is not None and plot.suffix not in (".png", ".pdf", ".svg"):
        raise IcediagError(f"--plot: expected a .png, .pdf or .svg file, got {plot.name}")
    for option, path in (("--json", json), ("--plot", plot)):
        if path is not None:
            writable_folder(path.parent, option)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Console(stderr=True).status("opening") as status,
    ):
        root = data
        if root is None:
            status.update(f"simulating {events:,} events")
            root = Path(scratch) / "embedded"
            write_dataset(default_events(events, seed)[0], root)
        began, worked = time.perf_counter(), time.process_time()

        def progress(done: int, of: int, pulses: int) -> None:
            rate = pulses / max(time.perf_counter() - began, 1e-9)
            status.update(f"{done:,} of {of:,} files, {pulses:,} pulses, {rate / 1e6:.1f} M/s")

        record = audit(
            root,
            files=files,
            sample=sample,
            validation=validation,
            competition=against is not None,
            progress=progress,
        )
        seconds, work = time.perf_counter() - began, time.process_time() - worked
    recording = Recording(pipeline=record.name, batch_size=0, data=record)
    diagnosis = judge(recording, chosen(["D"]))
    if json is not None:
        recording.save(json)
    if plot is not None:
        try:
            plot.write_bytes(draw_data(record, plot.suffix[1:]))
        except OSError as error:
            raise IcediagError(f"--plot: {plot} cannot be written: {error.strerror}") from error
    console = Console()
    color = console.color_system is not None
    console.file.write(render_data(record, diagnosis, width=console.width, color=color))
    whole = time.perf_counter() - started
    console.file.write(_rates(record.pulses, seconds, work, whole))
    console.file.flush()
    return 1 if fail_on != "never" and diagnosis.at_least(fail_on) else 0


def _rates(pulses: int, seconds: float, work: float, whole: float) -> str:
    """How long it took; rates only where start-up is not most of it."""
    if pulses < _MANY:
        return f"\n{pulses:,} pulses in {seconds:.2f} s; {whole:.2f} s with start and report\n"
    million = pulses / 1e6
    return (
        f"\n{pulses:,} pulses in {seconds:.2f} s: {million / seconds:.1f} million pulses/s\n"
        f"{1e3 * work / million:.0f} ns of processor time a pulse, "
        f"{work / seconds:.2f} cores at work\n"
        f"{whole:.2f} s with start and report: {million / whole:.1f} million pulses/s\n"
    )
