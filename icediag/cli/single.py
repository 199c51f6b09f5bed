"""What the commands of one instrument share: run it, judge by its checks, write, leave a code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icediag.finding import Diagnosis
    from icediag.pipeline import Pipeline
    from icediag.recording import Recording


def writable_file(path: Path | None, option: str) -> None:
    """Complain early where a file cannot be written.

    Raises:
        IcediagError: Its folder is missing or closed, or a folder stands in its place.
    """
    from icediag.errors import IcediagError

    from .load import writable_folder

    if path is None:
        return
    writable_folder(path.parent, option)
    if path.is_dir():
        raise IcediagError(f"{option}: expected a file, got the folder {path}")


def examined(
    pipeline: "Pipeline",
    letters: Sequence[str],
    field: str,
    *,
    batch_size: int | None,
    device: str,
    seed: int,
    timeout: float,
) -> "tuple[Recording, Diagnosis]":
    """Follow one batch, run one instrument, and judge by the checks that look at nothing else.

    Args:
        pipeline: What to look at.
        letters: First letters of the checks' codes.
        field: Of the recording, that the instrument fills.
        batch_size: Events; None for those of the pipeline.
        device: Where.
        seed: Of everything random.
        timeout: Seconds that the instrument may take.
    """
    from rich.console import Console

    from icediag.checks import chosen, judge
    from icediag.instruments.examine import examine

    checks = [c for c in chosen(letters) if set(getattr(c, "NEEDS", ())) == {field}]
    with Console(stderr=True).status("starting") as status:
        recording = examine(
            pipeline,
            needs={field},
            batch_size=batch_size,
            device=device,
            seed=seed,
            timeout=timeout,
            progress=status.update,
        )
    return recording, judge(recording, checks)


def delivered(
    recording: "Recording",
    diagnosis: "Diagnosis",
    render: "Callable[..., str]",
    *,
    out: Path | None,
    done: bool,
) -> int:
    """Write and print.

    Args:
        recording: What was seen.
        diagnosis: What was concluded.
        render: (recording, diagnosis, width=, color=) -> text.
        out: A folder for both; None for none.
        done: Whether the instrument came through.

    Returns:
        The exit code: 0 nothing found, 1 findings, 2 could not.
    """
    from rich.console import Console

    if out is not None:
        recording.save(out / "recording.json")
        diagnosis.save(out / "diagnosis.json")
    console = Console()
    color = console.color_system is not None
    console.file.write(render(recording, diagnosis, width=console.width, color=color))
    console.file.flush()
    if not done:
        return 2
    return 1 if diagnosis.at_least("warning") else 0
