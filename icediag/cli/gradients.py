"""`icediag gradients`: what comes back to each stage and parameter, and what steps make of it."""

from functools import partial
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


def gradients(
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
    depth: Annotated[
        int, typer.Option(min=1, help="Show stages nested up to this depth; all are recorded.")
    ] = 2,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every parameter, biases and norms too.")
    ] = False,
    timeout: Timeout = 600.0,
    plot: PlotFile = None,
    out: OutFolder = None,
) -> int:
    """Follow the gradient through depth, to each parameter and into a few real steps.

    Exit code 0: nothing found, 1: findings, 2: no gradient could be followed.
    """
    from icediag.instruments.gradient_flow.run import EVENTS, MICRO_BATCHES
    from icediag.plain import write_atomically
    from icediag.reports.figures import gradients_figure
    from icediag.reports.gradients import render_gradients

    from .load import load_pipeline, made_folder, resolve_device
    from .single import delivered, examined, writable_file

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
        ["G"],
        "gradients",
        batch_size=min(loaded.batch_size, batch_size or MICRO_BATCHES * EVENTS),
        device=resolve_device(device, loaded),
        seed=seed,
        timeout=timeout,
    )
    record = recording.gradients
    if plot is not None and record is not None:
        write_atomically(plot, gradients_figure(record, recording.pipeline))
    render = partial(render_gradients, depth=depth, everything=everything)
    done = record is not None and record.reason is None
    return delivered(recording, diagnosis, render, out=folder, done=done)
