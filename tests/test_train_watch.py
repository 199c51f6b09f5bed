"""`icediag train` under the watch: what is warned of, where it is written."""

import json
import sys
from pathlib import Path

import pytest

from icediag.cli import main as command_line
from icediag.watching.log import LINES


@pytest.mark.parametrize("watched", [True, False])
def test_a_training_that_stands_still_is_said_to(
    watched: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    size = ("--d-model", "8", "--layers", "1", "--heads", "1", "--schedule", "constant")
    arguments = ("--events", "20", "--batch-size", "4", "--epochs", "12", "--lr", "1e-12")
    extra = ("--watch",) if watched else ("--no-watch",)
    out = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv", ["icediag", "train", *arguments, *size, *extra, "--out", str(out)]
    )
    assert command_line.main() == 0
    said = capsys.readouterr().out
    log = out / "watch" / LINES
    assert log.exists() == watched
    if watched:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        problems = [line["message"] for line in lines if line["event"] == "problem"]
        assert all(f"watch: {message}" in said for message in problems)
        assert any(line["event"] == "step" and "loss" in line for line in lines)
    else:
        assert "watch:" not in said
