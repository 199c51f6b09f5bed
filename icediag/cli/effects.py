"""`icediag effects`: what do the faults that were found cost the training?"""

from dataclasses import replace
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
    Seed,
    Timeout,
)

#: What repairs are made of.
FACTS = ("provenance", "features", "bounds", "gradients")


def effects(
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
    budget: Annotated[
        float,
        typer.Option("--budget", min=1, metavar="S", help="Seconds of processor time to train."),
    ] = 60.0,
    timeout: Timeout = 600.0,
    out: OutFolder = None,
) -> int:
    """Repair in flight what was found, and train with and without, from the same seeds.

    Exit code 0: nothing that hurts, 1: findings, 2: the pipeline could not be run.
    """
    from rich.console import Console

    from icediag.checks import CHECKS, judge
    from icediag.instruments.effects.run import record_effects
    from icediag.instruments.examine import examine
    from icediag.reports.effects import render_effects

    from .load import load_pipeline, made_folder, resolve_device
    from .single import delivered

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
    size = min(loaded.batch_size, batch_size or 32)
    checks = [c for c in CHECKS if set(getattr(c, "NEEDS", ())) <= set(FACTS)]
    with Console(stderr=True).status("starting") as status:
        recording = examine(
            loaded,
            needs=FACTS,
            batch_size=size,
            device=place,
            seed=seed,
            timeout=timeout,
            progress=status.update,
        )
        if recording.came_through:
            status.update("training with and without")
            found = record_effects(
                loaded, recording=recording, device=place, seed=seed, budget=budget, thorough=True
            )
            recording = replace(recording, effects=found)
    diagnosis = judge(recording, checks)
    done = recording.came_through
    return delivered(recording, diagnosis, render_effects, out=folder, done=done)
