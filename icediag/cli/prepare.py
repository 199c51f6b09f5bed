"""`icediag prepare`: a data set, once, into columns that are mapped and not decoded."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Files


def prepare(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A data set in the competition's layout.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to make, or to go on with after a stop.")
    ],
    files: Files = None,
) -> int:
    """Convert a data set to memory-mapped Arrow columns; use OUT as --data afterwards."""
    from rich.console import Console

    from icediag.model.prepare import prepare as convert

    console = Console(soft_wrap=True, highlight=False)
    with console.status("opening") as status:
        done = convert(
            data,
            out,
            files=files,
            on_file=lambda n, total: status.update(f"{n:,} of {total:,} files"),
        )
    kept = f", {done.n_kept:,} were there already" if done.n_kept else ""
    console.print(
        f"{out}: {done.n_events:,} events, {done.n_pulses:,} pulses, {done.n_bytes / 2**20:,.0f} "
        f"MiB; {done.n_written:,} files written{kept}"
    )
    return 0
