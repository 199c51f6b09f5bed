"""`icediag overfit`: can the model learn one batch by heart, and where not, why not?"""

from pathlib import Path
from typing import Annotated

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
    OutFolder,
    PipelineOption,
    PlotFile,
    Seed,
    Timeout,
)


def overfit(
    pipeline: PipelineOption = None,
    data: Data = None,
    files: Files = None,
    events: Events = 64,
    fault: Fault = None,
    head: Head = "unit_vector",
    backend: Backend = "auto",
    batch_size: BatchSize = None,
    device: Device = "auto",
    seed: Seed = 0,
    timeout: Timeout = 600.0,
    seen: Annotated[
        int | None,
        typer.Option(
            "--seen", min=0, metavar="N", help="Events that your training had seen, still flat."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="DIR", help="The same, from the folder of a run of icediag train."
        ),
    ] = None,
    plot: PlotFile = None,
    out: OutFolder = None,
) -> int:
    """Train on one event, two events and one batch until they are known by heart.

    Where that fails, other learning rates, inputs at 0, targets of other events, float64 and the
    flow from stage to stage say why. Where it learns and a training is flat all the same, the
    events that it had seen (--seen, --run) are set beside the built-in network's learning curve.
    Exit code 0: it learns, 1: findings, 2: could not be tried.
    """
    from dataclasses import replace

    from icediag.errors import IcediagError
    from icediag.instruments.overfit.run import MOST_EVENTS
    from icediag.plain import write_atomically
    from icediag.reference import early, seen_by
    from icediag.reports.figures import overfit_figure
    from icediag.reports.overfit import render_overfit

    from .load import load_pipeline, made_folder, resolve_device
    from .single import delivered, examined, writable_file

    if seen is not None and run is not None:
        raise IcediagError("--run: expected it or --seen, got both")
    flat = (seen, None) if run is None else seen_by(run)
    writable_file(plot, "--plot")
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
    recording, diagnosis = examined(
        loaded,
        ["L"],
        "overfit",
        batch_size=min(loaded.batch_size, batch_size or MOST_EVENTS),
        device=resolve_device(device, loaded),
        seed=seed,
        timeout=timeout,
    )
    if recording.overfit is not None:
        beside = early(
            same_events=pipeline is None and data is None,
            baseline=loaded.baseline_loss,
            events=flat[0],
            loss=flat[1],
        )
        recording = replace(recording, overfit=replace(recording.overfit, early=beside))
    record = recording.overfit
    if plot is not None and record is not None:
        write_atomically(plot, overfit_figure(record, recording.pipeline))
    done = record is not None and record.batch is not None and record.batch.failure is None
    return delivered(recording, diagnosis, render_overfit, out=folder, done=done)
