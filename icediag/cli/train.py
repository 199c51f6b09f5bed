"""`icediag train`: train the direction network."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .train_screen import Screen, closing_lines
from .train_setup import (
    EVENTS,
    FEW,
    RUNS,
    VALIDATION,
    prepare,
    run_folder,
    store_options,
    stored_options,
)

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    from torch.nn import Module
    from torch.optim import Optimizer

    from icediag.model.assembly import Assembly
    from icediag.model.training.config import TrainConfig


def train(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Data set in the competition's layout. Without: embedded events."
        ),
    ] = None,
    files: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N files of --data.")
    ] = None,
    events: Annotated[
        int | None, typer.Option(min=1, help=f"Number of embedded events. Default: {EVENTS}.")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help=f"Share of events to hold out. Default: {VALIDATION}; 0 below {FEW} events.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help=f"Folder of the run. Default: the next free {RUNS}/run-NNN."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out (or the last one), with its options where none is "
            "given.",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the training events.")] = 5,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Events a step. Default: 256; fewer below 12,800 events.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of weight matrices.")] = 0.01,
    warmup: Annotated[
        int | None,
        typer.Option(help="Steps of rising learning rate. Default: 5 % of all; of one-cycle 30 %."),
    ] = None,
    schedule: Annotated[
        str, typer.Option(metavar="cosine|one-cycle|constant", help="Course of the learning rate.")
    ] = "cosine",
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")] = 1.0,
    loss: Annotated[
        str, typer.Option(metavar="angular|vmf|competition", help="What is minimised.")
    ] = "angular",
    normalizer: Annotated[
        str,
        typer.Option(
            metavar="field|fitted",
            help="Constants of the normalisation: the field's, or fitted to training events.",
        ),
    ] = "field",
    head: Annotated[
        str,
        typer.Option(metavar="unit_vector|bounded_angles|angles", help="How directions are given."),
    ] = "unit_vector",
    d_model: Annotated[int, typer.Option(help="Width of DOM and event vectors.")] = 128,
    layers: Annotated[int, typer.Option(help="Transformer layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    dropout: Annotated[float, typer.Option(help="On the residual branches, 0..1.")] = 0.0,
    backend: Annotated[
        str, typer.Option(metavar="auto|native|torch-scatter", help="Sums and means per DOM.")
    ] = "auto",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Switch a fault on; may be repeated. case: all of the case."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that load; 0: this one.")] = 0,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")
    ] = "auto",
    compile: Annotated[  # noqa: A002 - the option's name
        bool, typer.Option("--compile", help="Compile the token-wise parts with torch.compile.")
    ] = False,
    watch: Annotated[
        bool, typer.Option(help="Watch the steps, and warn when they come to nothing.")
    ] = True,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints in an epoch.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, split and order of events.")] = 0,
) -> int:
    """Train the direction network; leaves checkpoints, metrics and a learning curve.

    Ctrl-C finishes the step and writes a checkpoint; --resume goes on from there.
    """
    given = {name: value for name, value in locals().items() if name != "context"}
    folder = run_folder(out, resume=resume)
    if resume:
        asked = {n for n in given if _is_given(context, n)}
        given = {**given, **{n: v for n, v in stored_options(folder).items() if n not in asked}}
    options = Namespace(**given)
    console = Console(highlight=False, soft_wrap=True)
    assembly, config = prepare(options)
    if not resume:
        store_options(folder, given)
    console.print(f"run folder {folder}")
    return _train(assembly, config, folder, console, resume=resume, watched=options.watch)


def _train(
    assembly: "Assembly",
    config: "TrainConfig",
    folder: Path,
    console: Console,
    *,
    resume: bool,
    watched: bool,
) -> int:
    """Train and tell; gives the exit code."""
    from icediag.model.training.loop import Interrupted
    from icediag.model.training.loop import train as run
    from icediag.model.training.progress import Note
    from icediag.watching import Watch

    def watching(network: "Module", optimizer: "Optimizer") -> Watch:
        return Watch(
            network,
            optimizer,
            out=folder / "watch",
            baseline_loss=assembly.baseline_loss,
            on_problem=lambda problem: screen(Note(text=f"watch: {problem.message}")),
        )

    with Screen(console) as screen:
        try:
            summary = run(
                assembly.network,
                assembly.dataset,
                assembly.train_indices,
                assembly.validation_indices,
                assembly.collate,
                assembly.loss,
                config,
                out=folder,
                on_event=screen,
                watching=watching if watched else None,
                resume=resume,
                baseline_loss=assembly.baseline_loss,
                about={"loss": assembly.loss_name, "faults": list(assembly.faults)},
            )
        except Interrupted as interrupted:
            summary, code = interrupted.summary, 128 + interrupted.signal
        else:
            code = 0
    for line in closing_lines(summary):
        console.print(line)
    return code


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, not just its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")
