"""`icediag report`: the reports of a check that was run before."""

from pathlib import Path
from typing import Annotated

import typer

from icediag.errors import IcediagError

from .options import Format


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What `icediag check --out DIR` wrote.")
    ],
    formats: Format = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the reports to this folder."),
    ] = None,
) -> int:
    """Render the reports of a recorded check again; the pipeline is not run."""
    from icediag.finding import Diagnosis
    from icediag.recording import Recording

    from .load import made_folder
    from .outputs import DIAGNOSIS, RECORDING, deliver, formats_of

    names = formats_of(formats, out)
    recording = Recording.load(folder / RECORDING)
    diagnosis = Diagnosis.load(folder / DIAGNOSIS)
    if recording.pipeline != diagnosis.pipeline:
        raise IcediagError(
            f"{folder}: expected a recording and a diagnosis of one pipeline, got those of "
            f"{recording.pipeline!r} and {diagnosis.pipeline!r}"
        )
    deliver(recording, diagnosis, names, made_folder(out, "--out") if out else None)
    return 0
