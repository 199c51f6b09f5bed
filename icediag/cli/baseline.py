"""`icediag baseline`: what classical reconstructions reach, beside a trained network."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Files, Seed

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    from icediag.model.assembly import Assembly
    from icediag.model.event import EventDataset
    from icediag.model.truth import EventTruth


#: Events that are looked at where `--events` does not say: a minute's work, and of those that a
#: run held out, with the network's, some minutes'.
_EVENTS = 4096
_HELD_OUT = 10_000


def baseline(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA]",
            help="A data set in the competition's layout. Without, embedded simulated events, or "
            "those that the run of --checkpoint held out.",
        ),
    ] = None,
    files: Files = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="RUN", help="Folder of a run of `icediag train`: its best."
        ),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(
            "--events",
            min=1,
            metavar="N",
            help="How many events, at most: the first of DATA, or of those held out. 4,096 where "
            "this does not say, of those held out 10,000.",
        ),
    ] = None,
    seed: Seed = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures to a file.")
    ] = None,
) -> int:
    """Reconstruct events by LineFit, improved LineFit and an SPE likelihood; show their errors."""
    import numpy as np
    from rich.console import Console

    from icediag.errors import IcediagError
    from icediag.instruments.baselines import measure
    from icediag.model.assembly import open_events
    from icediag.model.truth import read_truth
    from icediag.plain import to_json, write_atomically
    from icediag.reports.baseline import render_baseline

    from .load import writable_folder

    if files is not None and data is None:
        raise IcediagError("--files: there are no files without DATA")
    if json is not None:
        writable_folder(json.parent, "--json")
    trained = None if checkpoint is None else _trained(checkpoint)
    with Console(stderr=True).status("opening") as status:
        truth = None
        held_out: bool | None
        if trained is not None and data is None:
            assembly, options = trained
            dataset = assembly.dataset
            there = len(assembly.validation_indices)
            if not there:
                raise IcediagError(f"--checkpoint: {checkpoint} held no events out; name DATA")
            indices = np.asarray(assembly.validation_indices)[: events or _HELD_OUT]
            name, held_out = "held-out events", True
            if options.data is None:
                truth = _embedded_truth(dataset, options.seed)
            else:
                truth = read_truth(options.data, dataset.event_ids)
            if truth is not None:
                truth = truth.take(indices)
        else:
            held_out = None if trained is None else False
            name = "embedded events" if data is None else data.resolve().name
            most = events or _EVENTS
            dataset = open_events(data, files=files, n_events=most, seed=seed)
            there = len(dataset)
            indices = np.arange(min(most, there))
            if data is None:
                truth = _embedded_truth(dataset, seed)
            else:
                truth = read_truth(data, dataset.event_ids[indices])
        record = measure(
            dataset,
            indices,
            name=name,
            truth=truth,
            there=there,
            network=None if trained is None else trained[0].network,
            collate=None if trained is None else trained[0].collate,
            held_out=held_out,
            progress=lambda done, of: status.update(f"{done:,} of {of:,} events"),
        )
    if json is not None:
        write_atomically(json, to_json(record))
    console = Console()
    console.file.write(render_baseline(record, width=console.width))
    console.file.flush()
    return 0


def _embedded_truth(dataset: "EventDataset", seed: int) -> "EventTruth":
    from icediag.model.simulate import default_events
    from icediag.model.table import TableDataset
    from icediag.model.truth import event_truth

    if isinstance(dataset, TableDataset) and dataset.truth is not None:
        return dataset.truth
    # A fault of the data set put another one in its place: the events are made once more.
    return event_truth(default_events(len(dataset), seed)[1])


def _trained(run: Path) -> "tuple[Assembly, Namespace]":
    """The network of a run with its best weights, and the run's options.

    Raises:
        IcediagError: There is no such run.
        DataError: Its checkpoint is damaged, or its data are not there.
    """
    from icediag.errors import IcediagError
    from icediag.model.training.checkpoint import load_network, read_checkpoint
    from icediag.model.training.files import BEST, LAST

    from .train_setup import prepare, stored_options

    options = stored_options(run)
    if not options:
        raise IcediagError(f"--checkpoint: expected the folder of a run of `icediag train`: {run}")
    namespace = Namespace(**options)
    assembly, _ = prepare(namespace)
    path = run / BEST if (run / BEST).is_file() else run / LAST
    load_network(path, read_checkpoint(path), assembly.network)
    return assembly, namespace
