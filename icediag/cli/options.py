"""Options that several commands share, each described once."""

from pathlib import Path
from typing import Annotated

import typer

PipelineOption = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        metavar="MODULE:FACTORY",
        help="Your own pipeline: an importable function that returns an icediag.Pipeline. "
        "Without, the built-in one.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="A data set in the competition's layout. Without, embedded simulated events.",
    ),
]
Files = Annotated[
    int | None,
    typer.Option("--files", min=1, metavar="N", help="Use only the first N files of the data set."),
]
Events = Annotated[
    int, typer.Option("--events", min=1, metavar="N", help="How many events to simulate.")
]
Fault = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME",
        help="Switch a fault of the case on, or all of them with `case`; may be repeated.",
    ),
]
Head = Annotated[
    str, typer.Option("--head", help="unit_vector, bounded_angles or angles.", metavar="NAME")
]
Backend = Annotated[
    str, typer.Option("--backend", help="auto, native or torch-scatter.", metavar="NAME")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, metavar="N", help="Samples a batch.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Of everything random.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME,...",
        help="console, html, markdown, json, sarif, junit, github. Without: console, and with "
        "--out the first four.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=1, metavar="S", help="Seconds that each instrument may take."),
]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write diagnosis and recording to this folder."),
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw it into this file, as PNG.")
]
