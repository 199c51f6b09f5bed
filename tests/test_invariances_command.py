"""`icediag invariances` from the outside, and its table at several widths."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icediag.checks import judge
from icediag.cli import main as command_line
from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.invariances import InvariancesRecord
from icediag.records.loss import LossRecord
from icediag.reports.invariances import render_invariances
from tests.faults import clouds
from tests.filled import filled

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str, width: int = 80) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", "invariances", *arguments])
        monkeypatch.setenv("COLUMNS", str(width))
        for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def healthy() -> Any:
    return replace(clouds.build(None), batch_size=6)


def leaking() -> Any:
    return replace(clouds.build("batch-centred"), batch_size=6)


def test_what_holds_and_what_is_broken(run: Run, tmp_path: Path) -> None:
    code, out, err = run("--pipeline", f"{__name__}:healthy", "--json", str(tmp_path / "r.json"))
    assert (code, err) == (0, "")
    assert out.startswith("1 note: clouds, 6 events")
    assert "neighbours' values" in out and "holds" in out
    assert [line for line in out.splitlines() if "broken" in line] == []
    assert max(map(len, out.splitlines())) <= 80
    recording = Recording.load(tmp_path / "r.json")
    assert recording.invariances is not None and recording.loss_probe is not None
    code, out, _ = run("--pipeline", f"{__name__}:leaking", width=140)
    assert code == 1 and "I01 batch-leak" in out
    [row] = [line for line in out.splitlines() if line.startswith("neighbours' values")]
    assert "broken" in row and "3/3" in row
    assert run("--pipeline", f"{__name__}:leaking", "--fail-on", "never")[0] == 0


def test_a_wrong_option_is_one_line(run: Run) -> None:
    code, out, err = run("--pipeline", f"{__name__}:nothing")
    assert (code, out) == (2, "") and err.count("\n") == 1


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("color", [False, True])
def test_a_record_with_everything(width: int, color: bool) -> None:
    whole = Recording(
        pipeline="p\x1b[31m",
        batch_size=3,
        invariances=filled(InvariancesRecord),
        loss_probe=filled(LossRecord),
    )
    text = render_invariances(whole, judge(whole, ()), width=width, color=color)
    assert ("\x1b[" in text) is color and "\x1b[31mp" not in text
    if not color:
        assert max(map(len, text.splitlines())) <= width
        assert "turned about z loss" in " ".join(text.split())
    empty = render_invariances(
        Recording(pipeline="p", batch_size=0), Diagnosis(pipeline="p"), width=width
    )
    assert empty == "nothing found: p\n"
