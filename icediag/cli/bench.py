"""`icediag bench`: what parts of a training step cost, each beside its yardstick."""

from typing import Annotated

import typer

from .options import Seed


def bench(
    events: Annotated[
        int, typer.Option("--events", min=2, metavar="N", help="Simulated events in the batch.")
    ] = 256,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats", min=3, metavar="N", help="Timings of each part; of slow ones fewer."
        ),
    ] = 30,
    seed: Seed = 0,
) -> int:
    """Time collate, packing, recording and watching beside their yardsticks, in turn.

    Ratios are taken pair by pair, by the clock on the wall and (cpu) by the processor's. Then
    the rate of the simulator.
    """
    from rich.console import Console

    from icediag.instruments.bench.rates import measure_rates
    from icediag.instruments.bench.run import measure
    from icediag.reports.bench import render_bench, render_rates
    from icediag.watching.cost import measure_watch

    console = Console()
    with console.status(f"timing {events:,} events, {repeats} times each"):
        rows = measure(events, repeats=repeats, seed=seed)
        rows.append(measure_watch(repeats=max(3, repeats * 2 // 3), seed=seed))
        rates = measure_rates(blocks=max(3, repeats // 2), seed=seed)
    console.file.write(render_bench(rows, width=console.width))
    console.file.write("\n" + render_rates(rates, width=console.width))
    return 0
