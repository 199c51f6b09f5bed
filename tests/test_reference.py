"""The reference's learning curve, and what it says of a training that is flat so far."""

import json
import math
import sys
from pathlib import Path

import pytest

from icediag.cli import main as command_line
from icediag.errors import IcediagError
from icediag.recording import Recording
from icediag.records.overfit import OverfitRecord, Trial
from icediag.reference import Early, Reference, early, reference, seen_by
from icediag.reports.learning import early_of
from tools.reference_curve import points_of


def test_between_points_and_beyond_them() -> None:
    curve = Reference(command="", baseline=2.0, points=((100, 1.9), (400, 1.0), (1600, 0.5)))
    assert curve.at(0) == 2.0 and curve.at(100) == pytest.approx(1.9)
    assert curve.at(200) == pytest.approx(1.45)  # half of the way in the logarithm
    assert curve.at(400) == pytest.approx(1.0) and curve.at(10**9) == 0.5
    # 1.9 is within a twentieth of the baseline.
    assert curve.left == 400
    assert Reference(command="", baseline=0.5, points=curve.points).left is None


def test_the_curve_that_comes_along() -> None:
    known = reference()
    assert known.baseline == pytest.approx(math.pi / 2, abs=1e-5)
    assert known.command.startswith("icediag train ")
    seen = [events for events, _ in known.points]
    assert seen == sorted(set(seen)) and len(seen) > 5
    assert known.left is not None and known.left < 51_200
    assert known.points[-1][1] < 0.6 * known.baseline


def said(beside: Early | None, verdict_last: float = 0.1) -> str:
    losses = (1.5, *[verdict_last] * 3)
    trial = Trial(name="batch", events=8, losses=losses, baseline=1.5, floor=0.0)
    record = OverfitRecord(trials=(trial,), early=beside)
    return early_of(Recording(pipeline="p", batch_size=8, overfit=record))


def test_what_is_said() -> None:
    baseline = math.pi / 2
    few = early(same_events=True, baseline=baseline, events=5)
    assert few is not None and few.too_early and "too early to tell" in said(few)
    many = early(same_events=True, baseline=baseline, events=51_200, loss=1.566)
    assert many is not None and not many.too_early
    assert "flat by then is not early" in said(many) and "1.566" in said(many)
    fell = early(same_events=True, baseline=baseline, events=51_200, loss=0.9)
    assert "has left its baseline" in said(fell)
    other = early(same_events=False, baseline=baseline, events=51_200)
    assert said(other).endswith("as far as other events and another network tell")
    assert "may still be early" in said(early(same_events=True, baseline=baseline))
    # Of another task, of another network that nobody asks for, of one that cannot learn: nothing.
    assert early(same_events=True, baseline=0.69) is None
    assert early(same_events=True, baseline=None) is None
    assert early(same_events=False, baseline=baseline) is None
    assert said(many, verdict_last=1.5) == "" and said(None) == ""


def lines_of(run: Path, n: int) -> None:
    run.mkdir()
    (run / "run.json").write_text('{"batch_size": 10}')
    lines = [{"kind": "start", "train_events": 200, "steps_per_epoch": 20, "baseline_loss": 1.5}]
    lines += [
        {"kind": "step", "step": k, "epoch": 1 + (k - 1) // 20, "loss": 1 / k}
        for k in range(1, n + 1)
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_a_run_says_what_it_has_seen(tmp_path: Path) -> None:
    lines_of(tmp_path / "run", 25)
    assert seen_by(tmp_path / "run") == (250, 1 / 25)
    baseline, points = points_of(tmp_path / "run")
    assert baseline == 1.5
    # Of the first epoch alone; each point is the mean of the steps since the one before.
    assert points[0] == (5, 1.0) and points[1] == (15, 0.5) and points[-1][0] <= 200
    with pytest.raises(IcediagError, match="--run: expected the folder of a run"):
        seen_by(tmp_path)


def test_options_that_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["icediag", "overfit", "--seen", "5", "--run", "nowhere"])
    assert command_line.main() == 2
    assert "--run: expected it or --seen, got both" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["icediag", "overfit", "--run", "nowhere"])
    assert command_line.main() == 2
    assert "expected the folder of a run of icediag train" in capsys.readouterr().err


def test_it_is_kept_with_the_recording() -> None:
    record = OverfitRecord(early=early(same_events=True, baseline=math.pi / 2, events=300))
    recording = Recording(pipeline="p", batch_size=8, overfit=record)
    assert Recording.from_json(recording.to_json()) == recording
