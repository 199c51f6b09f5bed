"""Baselines: what is accepted stays accepted while code moves, and nothing else does."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icediag.baseline import Baseline
from icediag.cli import main as command_line
from icediag.errors import IcediagError
from icediag.finding import Diagnosis, Finding
from icediag.place import Location

PIPELINE = """
import math
import torch
from icediag import Domain, Pipeline

def pipeline():
    return Pipeline(
        name="small",
        dataset=[torch.randn(2) * 30 for _ in range(8)],
        collate=torch.stack,
        model=torch.nn.Linear(2, 1),
        loss=lambda predictions, batch: predictions.square().mean(),
        outputs={"zenith": Domain(0, math.pi)},
        sources=("small_pipeline",),
    )
"""
MORE = ("outputs={", 'outputs={"azimuth": Domain(0, 2 * math.pi, periodic=True), ')
ANGLE = """
class Angle(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        return torch.sigmoid(self.linear(x)) * math.pi
"""
SMALL = ("--pipeline", "small_pipeline:pipeline", "--select", "B01", "--quick")


def loop(line: int, **more: Any) -> Finding:
    values: dict[str, Any] = {
        "code": "P01",
        "name": "python-loop",
        "severity": "warning",
        "stage": "pack",
        "message": f"line {line} runs 1.000 times a DOM.",
        "evidence": {"axis": "doms", "slope": 1.0 + line},
        "remedy": "Index once.",
        "location": Location(file="pkg/pack.py", line=line),
    }
    return Finding(**values | more)


def of(*findings: Finding) -> Diagnosis:
    return Diagnosis(pipeline="p", findings=findings, checks=("python-loop",))


def saved(diagnosis: Diagnosis) -> Baseline:
    return Baseline.from_json(Baseline.of(diagnosis).to_json())


def test_it_is_of_content_not_of_lines() -> None:
    known = saved(of(loop(10), loop(20)))
    moved = known.apply(of(loop(110), loop(140)))
    assert moved.findings == () and len(moved.accepted) == 2
    assert moved.verdict == "nothing new, 2 accepted"
    assert '"line"' not in known.to_json() and "slope" not in known.to_json()


def test_one_more_another_and_a_worse_one_are_new() -> None:
    known = saved(of(loop(10)))
    new = known.apply(of(loop(10), loop(20)))
    assert [f.location.line for f in new.findings if f.location] == [20]
    assert new.verdict == "1 warning, 1 accepted"
    for other in (
        loop(10, stage="head"),
        loop(10, evidence={"axis": "events"}),
        loop(10, code="P02"),
        loop(10, severity="error"),
    ):
        assert known.apply(of(other)).findings == (other,)
    milder = loop(10, severity="note")
    assert known.apply(of(milder)).accepted == (milder,)


def test_what_is_gone_is_told_and_writing_anew_keeps_what_is_there() -> None:
    known = saved(of(loop(10), loop(20, stage="head")))
    [gone] = known.gone([loop(11)])
    assert gone.stage == "head"
    again = Baseline.of(known.apply(of(loop(10), loop(30, stage="tail"))))
    assert [item.stage for item in again.accepted] == ["pack", "tail"]
    assert Baseline.of(of(loop(20), loop(10))) == Baseline.of(of(loop(10), loop(20)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["JSON"]),
        ("[]", ["baseline", "version"]),
        ('{"version": 99, "pipeline": "p"}', ["newer icediag"]),
        ('{"version": 1}', ["baseline"]),
        ('{"version": 1, "pipeline": "p", "accepted": [{"code": 1}]}', ["baseline"]),
        ('{"version": 1, "pipeline": "p", "accepted": [{"severity": "fatal"}]}', ["fatal"]),
    ],
)
def test_what_is_no_baseline_is_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "known.json"
    file.write_text(text)
    with pytest.raises(IcediagError) as caught:
        Baseline.load(file)
    assert all(word in str(caught.value) for word in [*words, "known.json"])
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    (tmp_path / "small_pipeline.py").write_text(PIPELINE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "small_pipeline", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["icediag", "check", *arguments])
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_from_the_command_line(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    def changed(text: str) -> None:
        (tmp_path / "small_pipeline.py").write_text(text)
        sys.modules.pop("small_pipeline")

    code, _, err = run(*SMALL, "--write-baseline")
    assert code == 2 and "--baseline" in err
    code, _, err = run(*SMALL, "--baseline", "known.json")
    assert code == 2 and "known.json" in err
    assert run(*SMALL, "--baseline", "known.json", "--write-baseline")[0] == 0
    stored = json.loads((tmp_path / "known.json").read_text())
    assert stored["accepted"]
    for seed in "12":
        code, out, err = run(*SMALL, "--baseline", "known.json", "--seed", seed, "--out", "d")
        assert code == 0, out
        diagnosis = Diagnosis.load(tmp_path / "d" / "diagnosis.json")
        assert not diagnosis.findings and len(diagnosis.accepted) == len(stored["accepted"])
    changed(PIPELINE.replace("Linear(2, 1)", "Linear(2, 2)").replace(*MORE))
    code, out, _ = run(*SMALL, "--baseline", "known.json")
    assert code == 1 and "1 error, 1 accepted" in out and "azimuth belongs in" in out
    # A check that did not look says nothing of what is gone; one that did, does.
    changed(PIPELINE.replace("torch.nn.Linear(2, 1)", "Angle()") + ANGLE)
    none = run(*SMALL[:2], "--baseline", "known.json", "--select", "N01")[2]
    assert "not found any more" not in none
    assert "not found any more: B01" in run(*SMALL, "--baseline", "known.json")[2]


def test_it_does_not_change_the_diagnosis_it_is_of() -> None:
    diagnosis = of(loop(10))
    assert saved(diagnosis).apply(diagnosis).accepted == diagnosis.findings
    assert dataclasses.replace(diagnosis, accepted=()) == diagnosis
