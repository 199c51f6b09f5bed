"""`icediag shapes`: one batch through the whole pipeline, every tensor on the way."""

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
    PipelineOption,
    Seed,
)


def shapes(
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
    depth: Annotated[
        int, typer.Option(min=0, help="Show stages nested up to this depth; all are recorded.")
    ] = 2,
    bounds: Annotated[
        bool,
        typer.Option("--bounds", help="Also prove what values the outputs can take; some seconds."),
    ] = False,
    origins: Annotated[
        bool,
        typer.Option(
            "--origins", help="Also recognise which raw column reached which stage, by what map."
        ),
    ] = False,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch", metavar="FILE", help="Replay a batch that `icediag.watch` kept (batch.pt)."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="With the weights that `icediag.watch` kept (last_good.pt).",
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the recording to this file.")
    ] = None,
) -> int:
    """Show shape and range of every tensor from the data set to the gradients."""
    from rich.console import Console

    from icediag.checks import judge
    from icediag.instruments.examine import examine
    from icediag.reports.shapes import render_shapes

    from .load import load_pipeline, replay, resolve_device, restore, writable_folder

    if json is not None:
        writable_folder(json.parent, "--json")
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
    if state is not None:
        restore(loaded, state)
    if batch is not None:
        loaded = replay(loaded, batch)
        batch_size = 1
    place = resolve_device(device, loaded)
    needs = {"provenance", "weighing"} if origins else set()
    if bounds:
        needs.add("bounds")
    recording = examine(loaded, needs=needs, batch_size=batch_size, device=place, seed=seed)
    if json is not None:
        recording.save(json)
    console = Console()
    text = render_shapes(
        recording,
        judge(recording),
        width=console.width,
        color=console.color_system is not None,
        depth=depth,
    )
    console.file.write(text)
    console.file.flush()
    # What was recorded until the user's code failed is shown, but the batch did not come through.
    parts = {"dataset item", "collate", "model", "loss", "backward"}
    return 2 if parts & {item.name for item in recording.not_judged} else 0
