"""`icediag train`, as a user runs it."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from icediag.cli.train import train
from icediag.cli.train_screen import Screen, closing_lines
from icediag.cli.train_setup import default_batch_size, run_folder
from icediag.errors import IcediagError
from icediag.model.array import icecube86
from icediag.model.heads import HEADS
from icediag.model.losses import LOSSES
from icediag.model.training.checkpoint import read_checkpoint
from icediag.model.training.progress import Note, Scored, Started, Stepped, Summary
from tests.data_files import write_lengths
from tests.small_training import metric_lines

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command()(train)


@app.callback()
def _icediag() -> None:
    """So that `train` is a command among others, as in the real one."""


#: A network so small that an epoch takes a fraction of a second.
TINY = ["--d-model", "16", "--heads", "2", "--layers", "1"]
SMALL = [*TINY, "--events", "120", "--batch-size", "32", "--epochs", "2"]

#: The real thing in a process of its own. Whoever started the tests may have had SIGINT ignored.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.test_train_command import app
sys.exit(app(sys.argv[1:], standalone_mode=False))
"""


def call(*arguments: str | Path) -> str:
    """Run in this process; gives what was printed, raises what it raises."""
    # On tensors this small a second thread only waits, and on a busy machine for long.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return result.output


def refuse(*arguments: str | Path) -> str:
    """The one line that it refuses with."""
    with pytest.raises((IcediagError, ValueError)) as caught:
        call(*arguments)
    message = str(caught.value)
    assert type(caught.value).__name__ in ("IcediagError", "DataError"), message
    assert "\n" not in message
    return message


def test_help_does_not_import_torch() -> None:
    code = "import sys, icediag.cli.train; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output
    assert "--resume" in shown
    assert "Default: 4096." in shown, "in brackets it would be taken for markup"
    assert f"{'|'.join(LOSSES)}" in shown
    assert f"{'|'.join(HEADS)}" in shown


def test_embedded_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = call(*SMALL)
    assert "run folder runs/run-001" in shown
    assert "held-out mean angular error" in shown
    assert "pi/2 = 1.5708 is knowing nothing" in shown
    assert max(map(len, shown.splitlines())) <= 80 + len("TensorBoard is not installed")
    for name in ("last.pt", "best.pt", "metrics.jsonl", "curve.png", "run.json"):
        assert (tmp_path / "runs/run-001" / name).is_file()
    assert "run folder runs/run-002" in call(*SMALL)
    first, second = (metric_lines(tmp_path / f"runs/run-00{n}/metrics.jsonl") for n in (1, 2))
    assert first == second


def test_resume_takes_up_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [*SMALL, "--epochs", "4", "--fault", "unbounded-output"]
    call(*asked, "--out", "straight")
    call(*asked, "--max-minutes", "1e-9")
    stopped = read_checkpoint(Path("runs/run-001/last.pt")).progress["step"]
    assert stopped == 1
    shown = call("--resume", "--max-minutes", "60")
    assert "going on from step 1 of 16" in shown
    one, two = (read_checkpoint(Path(f"{d}/last.pt")) for d in ("straight", "runs/run-001"))
    assert all((one.network[name] == two.network[name]).all() for name in one.network)
    assert one.run["faults"] == ["unbounded-output"]
    assert json.loads(Path("runs/run-001/run.json").read_text())["d_model"] == 16
    message = refuse("--resume", "--out", "straight", "--fault", "rank-loop", "--loss", "angular")
    assert "faults is ['unbounded-output'] in the checkpoint and ['rank-loop'] now" in message


def test_few_events_are_all_trained_on(tmp_path: Path) -> None:
    data = write_lengths(tmp_path / "data", {1: [3, 0, 5, 4], 2: [7]}).root
    rows = [f"{sensor},{x:.2f},{y:.2f},{z:.2f}" for sensor, (x, y, z) in enumerate(icecube86())]
    (data / "sensor_geometry.csv").write_text("\n".join(["sensor_id,x,y,z", *rows, ""]))
    shown = call("--data", data, "--out", tmp_path / "a", *TINY, "--epochs", "3")
    assert "training on 5 events, none held out" in shown
    assert "nothing is held out" in shown
    assert "training mean angular error" in shown
    shown = call("--data", data, "--out", tmp_path / "b", *TINY, "--validation", "0.5")
    assert "5 events" not in shown
    shown = call("--data", data, "--files", "1", "--out", tmp_path / "c", *TINY)
    assert "training on 4 events" in shown
    # All of them on the held-out side: then there is nothing to train on, so none is held out.
    shown = call("--data", data, "--out", tmp_path / "d", *TINY, "--validation", "0.999999")
    assert "training on 5 events, none held out" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: expected 1 or more, got 0"),
        (["--batch-size", "0"], "--batch-size: expected"),
        (["--lr", "nan"], "--lr: expected"),
        (["--schedule", "linear"], "--schedule: expected one of cosine, one-cycle, constant"),
        (["--normalizer", "none"], "--normalizer: expected fitted or field"),
        (["--loss", "l2"], "--loss: expected one of"),
        (["--head", "none"], "--head: expected one of"),
        (["--loss", "vmf", "--head", "angles"], "--loss: vmf needs"),
        (["--layers", "0"], "--layers: expected 1 or more"),
        (["--heads", "3", "--d-model", "16"], "--heads: expected a divisor"),
        (["--dropout", "1"], "--dropout: expected"),
        (["--backend", "fast"], "--backend: expected one of"),
        (["--fault", "nonsense"], "--fault: expected case, "),
        (["--validation", "1"], "--validation: expected a share"),
        (["--device", "tpu"], "--device: expected one of auto, cpu, cuda"),
        (["--files", "1"], "--files: there are no files without --data"),
        (["--data", "absent"], "absent"),
        (["--data", ".", "--events", "5"], "--events: "),
        (["--resume"], "--resume: no run in runs/"),
        (["--resume", "--out", "absent"], "--resume: absent has no checkpoint"),
    ],
)
def test_bad_options(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    defaults = [] if {"--data", "--resume"} & set(arguments) else ["--events", "20"]
    assert message in refuse(*defaults, *arguments)
    assert list(tmp_path.iterdir()) == [], "what is refused leaves no folder behind"


def test_folders_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call(*SMALL, "--out", "run", "--epochs", "1")
    assert "run holds a run already; go on with it by --resume" in refuse(*SMALL, "--out", "run")
    Path("run/last.pt").write_bytes(b"damaged")
    assert "damaged or of another program" in refuse("--resume", "--out", "run")
    Path("run/run.json").write_text("[")
    assert "run.json: expected the options of a run" in refuse("--resume", "--out", "run")
    Path("file").touch()
    assert "cannot be made" in refuse(*SMALL, "--out", "file/run")


def test_next_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run-001", "run-009", "run-x"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert run_folder(None, resume=False) == Path("runs/run-010")
    with pytest.raises(IcediagError):
        run_folder(None, resume=True)
    (tmp_path / "runs/run-001/last.pt").touch()
    assert run_folder(None, resume=True) == Path("runs/run-001")


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", *SMALL, "--out", str(out), "--epochs", "100000", "--validation", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        # Its next line, after it has said this, comes when it has long been taking steps.
        for line in process.stdout:
            if "training on" in line:
                break
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors == ""
    assert f"go on with: icediag train --resume --out {out}" in shown
    step = read_checkpoint(out / "last.pt").progress["step"]
    assert f"interrupted at step {step} of" in shown
    # Fewer epochs than it had been asked for: just enough to see it go on.
    epochs = step // 4 + 2
    assert f"going on from step {step}" in call("--resume", "--out", out, "--epochs", str(epochs))
    steps = [x["step"] for x in metric_lines(out / "metrics.jsonl") if x["kind"] == "step"]
    assert steps == list(range(10, 4 * epochs + 1, 10)), "no line is missing, none is there twice"


def test_batch_size_that_depends() -> None:
    assert [default_batch_size(n) for n in (1, 1600, 3700, 12_800, 10**8)] == [32, 32, 64, 256, 256]


@pytest.mark.parametrize("normalizer", ["fitted", "field"])
def test_normalizer(tmp_path: Path, normalizer: str) -> None:
    call(*SMALL, "--epochs", "1", "--out", tmp_path / "run", "--normalizer", normalizer)
    checkpoint = read_checkpoint(tmp_path / "run/last.pt")
    scale = checkpoint.network_config["normalizer"]["time_scale"]
    assert checkpoint.network["normalizer.scale"][0] == pytest.approx(scale)
    assert (scale == 3e4) == (normalizer == "field")
    assert 500 < scale <= 3e4


# What is shown

STARTED = Started(
    step=0, total_steps=40, steps_per_epoch=4, train_events=128, scored_events=12, held_out=True,
    parameters=898_691, device="cpu",
)  # fmt: skip


def scored(**changes: Any) -> Scored:
    values: dict[str, Any] = {
        "step": 4, "epoch": 100, "epochs": 200, "held_out": True, "events": 12,
        "train_loss": 1.5, "loss": 1.4, "mean": 1.25, "median": 1.125, "best": True,
    }  # fmt: skip
    return Scored(**{**values, **changes})


def test_without_a_terminal_lines_are_few_and_plain() -> None:
    text = io.StringIO()
    seconds = iter(np.arange(0.0, 1000.0, 4.0).tolist())
    with Screen(Console(file=text, width=80), clock=lambda: next(seconds)) as screen:
        screen(STARTED)
        for step in range(1, 21):
            screen(Stepped(step=step, loss=1.5, n_events=32))
        screen(scored())
        screen(scored(best=False, train_loss=None))
        screen(Note(text="n"))
    lines = text.getvalue().splitlines()
    assert sum(line.startswith("step ") for line in lines) == 2, "one in half a minute"
    assert "step 7/40  loss 1.5000  8 events/s  132 s left" in lines
    assert "note: n" in lines
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text.getvalue()
    (row,) = (line for line in lines if line.endswith("best"))
    assert "100/200" in row
    assert "1.2500 rad" in row
    assert "pi/2 = 1.5708" in row
    assert sum("median" in line for line in lines) == 1, "the heading comes once"


def test_with_a_terminal_there_is_a_bar() -> None:
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True)
    seconds = iter(np.arange(0.0, 1000.0, 4.0).tolist())
    with Screen(console, clock=lambda: next(seconds)) as screen:
        screen(STARTED)
        screen(Stepped(step=1, loss=1.5, n_events=32))
        screen(Stepped(step=2, loss=None, n_events=32))
    shown = text.getvalue()
    assert "step 2/40" in shown
    assert "loss 1.5000  8 events/s" in shown


@pytest.mark.parametrize("stopped", ["done", "time", "interrupt"])
def test_closing_lines(stopped: Any) -> None:
    summary = Summary(
        stopped=stopped, step=3, total_steps=9, epoch=0, seconds=1.0, held_out=True, mean=1.25,
        median=1.0, best_mean=1.25, best_step=3, last=Path("r/last.pt"), best=None,
        metrics=Path("r/m"), curve=None, tensorboard=None,
    )  # fmt: skip
    lines = closing_lines(summary)
    assert ("go on with: icediag train --resume --out r" in lines) == (stopped != "done")
    assert any(line.startswith("held-out mean angular error 1.2500 rad") for line in lines)
    assert "checkpoint  r/last.pt" in lines
