"""`icediag profile`: what a training step costs, measured here and foreseen on a device."""

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


def profile(
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
    device_model: Annotated[
        str,
        typer.Option(
            "--device-model",
            metavar="NAME|FILE",
            help="Project to this device: h100, a100, rtx4090, or a .toml file that describes one.",
        ),
    ] = "h100",
    workers: Annotated[
        str,
        typer.Option(
            "--workers",
            metavar="K|A..B",
            help="Also time a DataLoader with a training step after each batch, with 0 to K worker "
            "processes, or A to B.",
        ),
    ] = "",
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats", min=1, metavar="N", help="Steps to time, 10; with --versus rounds, 30."
        ),
    ] = None,
    depth: Annotated[int, typer.Option(min=0, help="Show stages nested up to this depth.")] = 2,
    all_stages: Annotated[
        bool, typer.Option("--all", help="Also show stages that take below 1 % of the step.")
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
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            help="A recording of the code as it was (--json): say what got worse, see `icediag "
            "compare`. Findings that were there before leave the exit code alone.",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="DIR",
            help="Also write a trace of torch.profiler with the names of stages to this folder, "
            "for Perfetto and TensorBoard.",
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the recording to this file."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write the recording, the table (profile.json) and the findings to this folder.",
        ),
    ] = None,
    versus: Annotated[
        str,
        typer.Option(
            "--versus",
            metavar="NAME,...",
            help="Instead, time parts of the built-in implementation beside other ways to do the "
            "same: collate, packing, pooling, attention, step, loading; or all.",
        ),
    ] = "",
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="N,...", help="With --versus: events a batch.")
    ] = "32,128,256,2048",
    processor_time: Annotated[
        bool,
        typer.Option(
            "--processor-time",
            help="With --versus: read the processor's time, for a machine that is busy.",
        ),
    ] = False,
    on_disk: Annotated[
        int,
        typer.Option("--on-disk", min=1, metavar="N", help="With --versus: events that are read."),
    ] = 20_000,
) -> int:
    """Count, time and project a training step, stage by stage, and say what slows it.

    Exit code 0: nothing found, 1: findings, 2: the pipeline could not be run.
    """
    from dataclasses import replace

    from rich.console import Console

    from icediag.checks import CHECKS, judge
    from icediag.devices import load_device
    from icediag.instruments.profiling.overview import summary
    from icediag.instruments.profiling.run import REPEATS, record_profile
    from icediag.instruments.profiling.traces import record_trace
    from icediag.matching import match
    from icediag.plain import to_json, write_atomically
    from icediag.recording import Recording
    from icediag.reports.compare import render_comparison
    from icediag.reports.profile import render_profile

    from .load import load_pipeline, made_folder, resolve_device, writable_folder

    if versus:
        return _versus(versus, sizes, repeats or 30, on_disk, seed, processor_time)
    model = load_device(device_model)
    tried = _workers(workers)
    known = None if baseline is None else Recording.load(baseline)
    if json is not None:
        writable_folder(json.parent, "--json")
    folder = None if out is None else made_folder(out, "--out")
    traces = None if trace is None else made_folder(trace, "--trace")
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
    with Console(stderr=True).status("starting") as status:
        recording = record_profile(
            loaded,
            model=model,
            batch_size=batch_size,
            device=place,
            seed=seed,
            workers=tried,
            repeats=repeats or REPEATS,
            baseline=known,
            timeout=timeout,
            progress=status.update,
        )
        failed = not recording.came_through
        written = None
        if traces is not None and not failed:
            status.update("tracing")
            written = record_trace(
                loaded,
                traces,
                batch_size=recording.batch_size,
                device=place,
                seed=seed,
                timeout=timeout,
            )
    checks = [check for check in CHECKS if check.CODE.startswith("P")]
    diagnosis = judge(recording, checks)
    shown = summary(recording)
    if json is not None:
        recording.save(json)
    if folder is not None:
        recording.save(folder / "recording.json")
        diagnosis.save(folder / "diagnosis.json")
        write_atomically(folder / "profile.json", to_json(shown))
    console = Console()
    color = console.color_system is not None
    console.file.write(
        render_profile(
            shown,
            findings=diagnosis.findings,
            width=console.width,
            color=color,
            depth=depth,
            small=all_stages,
        )
    )
    if recording.comparison is not None:
        text = render_comparison(recording.comparison, width=console.width, color=color)
        console.file.write(f"\nbeside the baseline\n{text}")
    if written is not None:
        path, of = written
        whole = "" if of >= recording.batch_size else f" (steps of {of:,} samples)"
        console.file.write(f"\ntrace: {path}{whole}\n")
    console.file.flush()
    if failed:
        return 2
    if fail_on == "never":
        return 0
    if known is not None:
        # What was there before is known; a finding counts where it is new or more severe.
        matched = match(judge(known, checks).findings, diagnosis.findings)
        new = (*matched.new, *(now for _, now in matched.worse))
        diagnosis = replace(diagnosis, findings=new)
    return 1 if diagnosis.at_least(fail_on) else 0


def _workers(text: str) -> tuple[int, ...]:
    """Numbers of worker processes: "3" is 0 to 3, "2..4" is 2 to 4.

    Raises:
        IcediagError: It is neither.
    """
    from icediag.errors import IcediagError

    if not text.strip():
        return ()
    low, dots, high = text.strip().rpartition("..")
    parts = [low or "0", high] if dots or not low else [text]
    if not all(part.isdecimal() for part in parts) or int(parts[0]) > int(parts[-1]):
        raise IcediagError(f"--workers: expected a number K for 0 to K, or A..B, got {text!r}")
    return tuple(range(int(parts[0]), int(parts[-1]) + 1))


def _versus(names: str, sizes: str, repeats: int, on_disk: int, seed: int, processor: bool) -> int:
    """Time parts of the built-in training step beside other ways to do the same, in one run."""
    from rich.console import Console

    from icediag.errors import IcediagError
    from icediag.instruments.versus import NAMES, measure_versus
    from icediag.reports.versus import render_versus

    console = Console()
    try:
        chosen = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise IcediagError(f"--sizes: expected numbers, as in 32,256; got {sizes!r}") from None
    try:
        with Console(stderr=True).status("simulating") as status:
            record = measure_versus(
                NAMES if names == "all" else tuple(name.strip() for name in names.split(",")),
                sizes=chosen,
                repeats=repeats,
                on_disk=on_disk,
                seed=seed,
                processor=processor,
                told=status.update,
            )
    except ValueError as error:
        raise IcediagError(f"--{error}") from error
    console.file.write(render_versus(record, width=console.width))
    return 0
