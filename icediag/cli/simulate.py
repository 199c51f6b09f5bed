"""`icediag simulate`: write simulated events in the competition's layout."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Seed


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    events: Annotated[
        int, typer.Option("--events", min=1, metavar="N", help="How many events.")
    ] = 4096,
    seed: Seed = 0,
    per_file: Annotated[
        int, typer.Option("--events-per-file", min=1, metavar="N", help="Events in a Parquet file.")
    ] = 200_000,
    workers: Annotated[
        int, typer.Option("--workers", min=1, metavar="N", help="Processes that share the work.")
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it is there.")
    ] = False,
) -> int:
    """Simulate IceCube events and write them as Parquet, with truth and detector geometry.

    Kind, energy and vertex of each event go to train_truth.parquet beside the usual files.
    """
    from rich.console import Console

    from icediag.errors import IcediagError
    from icediag.model.simulate import simulate_with_truth
    from icediag.model.table import write_dataset
    from icediag.model.truth import FILE, truth_table

    console = Console(soft_wrap=True, highlight=False)
    if not overwrite and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IcediagError(f"{out}: expected a folder that does not exist yet, or --overwrite")
    with console.status(f"simulating {events:,} events"):
        table, truth = simulate_with_truth(events, seed=seed, workers=workers)
        write_dataset(
            table,
            out,
            events_per_file=per_file,
            overwrite=overwrite,
            extra={FILE: truth_table(table.event_id, truth)},
        )
    console.print(
        f"{out}: {table.n_events:,} events, {table.time.size:,} pulses "
        f"({int(table.lengths.max()):,} in the longest event)"
    )
    return 0
