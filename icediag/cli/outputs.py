"""Where reports go: to files of a folder, or to standard output."""

import sys
from collections.abc import Sequence
from pathlib import Path

from icediag.errors import IcediagError
from icediag.finding import Diagnosis
from icediag.plain import write_atomically
from icediag.recording import Recording
from icediag.reports.formats import FORMATS, Format

RECORDING, DIAGNOSIS = "recording.json", "diagnosis.json"


def formats_of(text: str, folder: Path | None) -> tuple[Format, ...]:
    """The formats that `--format` asks for; without it, what fits.

    Args:
        text: The option, "" where it was not given.
        folder: That of `--out`.

    Raises:
        IcediagError: One is unknown, or there are several for one standard output.
    """
    known = {one.name: one for one in FORMATS}
    if not text.strip():
        return tuple(one for one in FORMATS if one.default and (folder or one.name == "console"))
    names = dict.fromkeys(word.strip().lower() for word in text.split(","))
    for name in names:
        if name not in known:
            raise IcediagError(f"--format: expected some of {', '.join(known)}, got {name!r}")
    chosen = tuple(known[name] for name in names)
    files = [one.name for one in chosen if one.file is not None]
    if folder is None and files and len(chosen) > 1:
        raise IcediagError(
            f"--format: expected --out with {', '.join(files)}: only one of several formats can be "
            "printed"
        )
    return chosen


def deliver(
    recording: Recording, diagnosis: Diagnosis, formats: Sequence[Format], folder: Path | None
) -> None:
    """Write what has a file to the folder, each wholly or not at all, and print the rest.

    Diagnosis and recording are written wherever there is a folder: all else follows from them.

    Raises:
        IcediagError: A file cannot be written.
    """
    from rich.console import Console

    from icediag.reports.check import render_check

    written: list[Path] = []
    if folder is not None:
        write_atomically(folder / RECORDING, recording.to_json())
        write_atomically(folder / DIAGNOSIS, diagnosis.to_json())
        for one in formats:
            if one.file is not None and one.file != DIAGNOSIS:
                written.append(folder / one.file)
                write_atomically(written[-1], one.render(recording, diagnosis))
    printed = [one for one in formats if one.file is None or folder is None]
    for one in printed:
        if one.name == "console":
            console = Console()
            color = console.color_system is not None
            _print(render_check(recording, diagnosis, width=console.width, color=color))
        else:
            _print(one.render(recording, diagnosis))
    if not printed:
        _print(f"{diagnosis.verdict}: {diagnosis.pipeline}\n")
    # What another program reads from standard output holds nothing else.
    if written and all(one.name == "console" for one in printed):
        # A line each, never folded: a path is there to be copied.
        lead = "\nwritten: " if printed else "written: "
        _print(lead + "\n         ".join(str(file) for file in written) + "\n")


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
