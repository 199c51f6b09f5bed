"""`icediag check`, `checks` and `explain` from the outside."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import CHECKS, chosen, judge, needs_of
from icediag.cli import main as command_line
from icediag.cli.timings import Timings
from icediag.errors import IcediagError
from icediag.finding import Diagnosis
from icediag.icecube import pipeline as icecube
from icediag.instruments import examine as examination
from icediag.instruments.examine import Instrument, examine
from icediag.recording import Recording

SMALL = ("--events", "12", "--batch-size", "12", "--select", "N,B,V01")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `icediag` in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str, width: int = 100) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
        monkeypatch.setenv("COLUMNS", str(width))
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_default_is_clean_and_written(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("check", *SMALL, "--out", str(tmp_path / "new" / "folder"))
    assert code == 0, out
    diagnosis = Diagnosis.load(tmp_path / "new" / "folder" / "diagnosis.json")
    assert not diagnosis.at_least("warning") and "unbounded-output" in diagnosis.checks
    recording = Recording.load(tmp_path / "new" / "folder" / "recording.json")
    assert recording.bounds is not None and recording.provenance is not None
    assert judge(recording, chosen(["N", "B", "V01"])) == diagnosis


def test_a_generator_is_read_by_every_instrument(run: Run, tmp_path: Path) -> None:
    arguments = ("--pipeline", "tests.pipelines.odd:of_a_generator", "--select", "I,G,V")
    run("check", *arguments, "--quick", "--out", str(tmp_path))
    recording = Recording.load(tmp_path / "recording.json")
    assert recording.invariances is not None and recording.invariances.samples == 4
    assert recording.gradients is not None and recording.gradients.parameters
    told = {item.name: item.reason for item in recording.not_judged}
    assert "one-shot" in told.pop("data order")
    assert not told


@pytest.mark.parametrize("width", [80, 140])
def test_a_fault_is_found_and_fails(run: Run, tmp_path: Path, width: int) -> None:
    faults = ("--fault", "unbounded-output", "--fault", "normalized-relative")
    arguments = (*SMALL, *faults, "--quick")
    code, out, _ = run("check", *arguments, "--out", str(tmp_path), width=width)
    assert code == 1
    told, _, files = out.partition("\nwritten: ")
    assert max(map(len, told.splitlines())) <= width
    assert [Path(line.strip()).name for line in files.splitlines()] == ["report.html", "report.md"]
    assert all(Path(line.strip()).is_file() for line in files.splitlines())
    data = json.loads((tmp_path / "diagnosis.json").read_text())
    assert data["version"] == 1 and data["pipeline"].startswith("icecube with")
    assert "error" in data["verdict"]
    found = {(item["name"], item["stage"]) for item in data["findings"]}
    assert {("unbounded-output", "head"), ("normalized-relative", "relative_encoder")} <= found
    first = data["findings"][0]
    assert set(first) == {
        *("code", "name", "severity", "stage", "message", "evidence", "effect", "location"),
        *("remedy", "cause"),
    }
    assert first["severity"] == "error" and set(first["location"]) == {"file", "line"}
    assert run("check", *arguments, "--fail-on", "never")[0] == 0


def test_a_diagnosis_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    run("check", *SMALL, "--quick", "--fault", "unbounded-output", "--out", str(tmp_path))
    text = (tmp_path / "diagnosis.json").read_text()
    assert Diagnosis.from_json(text).to_json() == text
    with pytest.raises(IcediagError, match="newer icediag"):
        Diagnosis.from_json(text.replace('"version": 1', '"version": 99'))


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("out of ice")


def failing() -> Pipeline:
    return Pipeline(
        name="failing",
        dataset=[torch.ones(2)] * 4,
        collate=torch.stack,
        model=Raises(),
        loss=lambda predictions, batch: predictions.sum(),
    )


def chatty() -> Pipeline:
    os.write(1, b"from below\n")
    print("from the factory")  # noqa: T201
    return Pipeline(
        name="chatty",
        dataset=[torch.ones(2)] * 4,
        collate=torch.stack,
        model=nn.Linear(2, 1),
        loss=lambda predictions, batch: predictions.sum(),
    )


def test_what_a_factory_prints_does_not_mix_with_a_report(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"{chatty.__module__}:chatty"
    arguments = ["icediag", "check", "--pipeline", name, "--select", "V01", "--format", "sarif"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line.main() == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["version"] == "2.1.0"
    assert "from below" in err and "from the factory" in err


def test_a_pipeline_that_raises_is_said_to(run: Run, tmp_path: Path) -> None:
    name = f"{failing.__module__}:failing"
    code, out, err = run("check", "--pipeline", name, "--out", str(tmp_path))
    assert code == 2 and "Traceback" not in out + err
    reasons = {u.name: u.reason for u in Diagnosis.load(tmp_path / "diagnosis.json").not_judged}
    assert "out of ice" in reasons["model"]
    [finding] = Diagnosis.load(tmp_path / "diagnosis.json").findings
    assert (finding.name, finding.stage) == ("run-fails", "model")
    assert finding.location is not None and finding.location.file.endswith("test_check_command.py")


def test_an_instrument_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in the instrument")

    before = examination.INSTRUMENTS
    instruments = (Instrument(field="features", title="breaking", run=broken), before[-1])
    monkeypatch.setattr(examination, "INSTRUMENTS", instruments)
    needs = {"features", instruments[1].field}
    recording = examine(icecube(n_events=8), needs=needs, batch_size=8)
    assert recording.features is None and getattr(recording, instruments[1].field) is not None
    diagnosis = judge(recording, chosen(["F06"]))
    assert [item.name for item in diagnosis.not_judged] == ["features", "constant-feature"]
    assert all("ZeroDivisionError" in item.reason for item in diagnosis.not_judged)


def test_timings_say_what_each_instrument_took(run: Run) -> None:
    ticks = iter([0.0, 1.0, 1.0, 3.5, 3.5, 4.0])
    told: list[str] = []
    work = iter([0.0, 0.5, 0.5, 0.75, 0.75, 1.0])
    timed = Timings(told.append, lambda: next(ticks), lambda: next(work))
    for title in ("following", "proving", "following"):
        timed(title)
    timed.end()
    timed.end()
    assert timed.seconds == {"following": (1.5, 0.75), "proving": (2.5, 0.25)}
    assert told == ["following", "proving", "following"]
    assert timed.lines()[-1].split() == ["4.00", "s", "1.00", "s", "in", "all"]
    arguments = ("check", "--events", "8", "--batch-size", "8", "--select", "C01")
    assert "following one batch" not in run(*arguments)[2]
    assert "s  following one batch" in run(*arguments, "--timings")[2]


def test_only_what_is_needed_is_run() -> None:
    assert needs_of(chosen(["normalized-relative"])) == {"provenance"}
    assert examine(icecube(n_events=8), needs=(), batch_size=8).bounds is None


def test_which_checks() -> None:
    assert [check.CODE for check in chosen(["v01"])] == ["V01"]
    assert {check.CODE[0] for check in chosen(["N", "B"])} == {"N", "B"}
    assert "B01" not in {check.CODE for check in chosen([], ["unbounded-output"])}
    assert chosen() == CHECKS
    with pytest.raises(IcediagError, match="'Z99'"):
        chosen(["Z99"])


def test_pages(run: Run) -> None:
    code, out, _ = run("checks")
    assert code == 0 and all(module.NAME in out for module in CHECKS)
    code, out, _ = run("explain", "b01")
    assert code == 0 and out.startswith("B01 unbounded-output") and "Limits" in out
    code, out, err = run("explain", "Q77")
    assert (code, out) == (2, "") and "'Q77'" in err
