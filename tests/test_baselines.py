"""Classical fits: against a plain twin, on tracks that are known, and on events without hits."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icediag.cli.main import main
from icediag.instruments.baselines import measure
from icediag.model import linefit
from icediag.model.array import icecube86
from icediag.model.light import C_LIGHT
from icediag.model.linefit import Hits, first_hits, improved_line_fit, line_fit, residuals
from icediag.model.simulate import default_events
from icediag.model.spe_fit import spe_fit
from icediag.model.table import TableDataset
from icediag.model.truth import event_truth


def hits_of(lengths: list[int], seed: int = 0) -> Hits:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    return Hits(
        position=rng.normal(0, 300, (n, 3)),
        time=10_000 + rng.integers(0, 5000, n).astype(float),
        event=np.repeat(np.arange(len(lengths)), lengths),
        n_events=len(lengths),
    )


def track(noise: int = 0, *, direct: bool = True) -> tuple[Hits, np.ndarray]:
    """Light of a straight track on the DOMs near it, and hits of noise high up, long after it."""
    rng = np.random.default_rng(3)
    motion = np.array([0.6, 0.0, -0.8])
    w = icecube86() - np.array([20.0, -30.0, 40.0])
    along = w @ motion
    d = np.sqrt(np.maximum((w**2).sum(axis=1) - along**2, 1.0))
    near = np.flatnonzero(d < 60)
    time = 10_000 + (along[near] + 0.91733 * d[near] * direct) / C_LIGHT
    odd = rng.choice(np.flatnonzero(icecube86()[:, 2] > 300), noise)
    return Hits(
        position=np.concatenate([icecube86()[near], icecube86()[odd]]),
        time=np.concatenate([time, rng.uniform(14_000, 16_000, noise)]),
        event=np.zeros(len(near) + noise, int),
        n_events=1,
    ), -motion


def angle(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.arccos(np.clip(found @ truth, -1, 1)))


@given(st.lists(st.sampled_from([0, 1, 2, 3, 7, 40]), min_size=1, max_size=6), st.integers(0, 9))
def test_line_fit_against_a_plain_twin(lengths: list[int], seed: int) -> None:
    hits = hits_of(lengths, seed)
    lines = line_fit(hits)
    for i in range(len(lengths)):
        r, t = hits.position[hits.event == i], hits.time[hits.event == i]
        spread = (t**2).mean() - t.mean() ** 2 if len(t) else 0.0
        expected = np.zeros(3)
        if spread > 1:
            expected = ((r * t[:, None]).mean(axis=0) - r.mean(axis=0) * t.mean()) / spread
        assert lines.velocity[i] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert np.linalg.norm(lines.origin(), axis=1) == pytest.approx(1)


@given(st.lists(st.sampled_from([0, 1, 3, 9, 60]), min_size=1, max_size=5), st.integers(0, 5))
def test_events_do_not_feel_each_other(lengths: list[int], seed: int) -> None:
    hits = hits_of(lengths, seed)
    together = improved_line_fit(hits).velocity
    for i in range(len(lengths)):
        mine = hits.event == i
        alone = Hits(
            position=hits.position[mine],
            time=hits.time[mine],
            event=np.zeros(mine.sum(), int),
            n_events=1,
        )
        assert improved_line_fit(alone).velocity[0] == pytest.approx(together[i], abs=1e-9)
    assert np.isfinite(together).all()


def test_late_hits_near_others_are_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    hits = hits_of([30, 0, 50], 1)
    near = np.linalg.norm(hits.position[:, None] - hits.position[None], axis=2) < 156
    later = hits.time[:, None] - hits.time[None] > 778
    same = hits.event[:, None] == hits.event[None]
    expected = (near & later & same).any(axis=1)
    assert 0 < expected.sum() < len(expected)
    for pairs in (1, 100, 2**21):
        monkeypatch.setattr(linefit, "_PAIRS", pairs)
        assert linefit._scattered(hits).tolist() == expected.tolist()


def test_a_clean_track_is_found() -> None:
    hits, truth = track(direct=False)
    assert angle(line_fit(hits).origin()[0], truth) < 0.1
    assert np.median(residuals(hits, line_fit(hits))) < 60


def test_noise_moves_line_fit_more_than_the_improved_one() -> None:
    hits, truth = track(noise=12)
    plain, improved = line_fit(hits).origin()[0], improved_line_fit(hits).origin()[0]
    assert angle(improved, truth) < 0.5 * angle(plain, truth)


def test_the_likelihood_knows_how_light_travels() -> None:
    hits, truth = track(noise=2)
    line = improved_line_fit(hits)
    found = spe_fit(hits, line)[0]
    assert angle(found, truth) < min(0.03, angle(line.origin()[0], truth))


def test_events_without_hits_give_finite_directions() -> None:
    hits = hits_of([0, 1, 2, 0], 4)
    found = spe_fit(hits, improved_line_fit(hits))
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_first_hits_are_the_first_of_each_dom() -> None:
    sensor = np.array([5, 5, 9, 9, 7, 8, 1, 1])
    time = np.array([30.0, 10, 5, 7, 1, 2, 4, 3])
    auxiliary = np.array([0, 0, 1, 0, 0, 0, 1, 1], bool)
    hits = first_hits(sensor, time, auxiliary, np.array([6, 0, 2]), icecube86())
    assert hits.n_events == 3
    # Of the third event, all of whose pulses are auxiliary, they are taken.
    assert list(zip(hits.event.tolist(), hits.time.tolist(), strict=True)) == [
        (0, 10.0),
        (0, 1.0),
        (0, 2.0),
        (0, 7.0),
        (2, 3.0),
    ]


def test_methods_in_their_order_on_simulated_events() -> None:
    table, truth = default_events(150)
    record = measure(
        TableDataset(table), np.arange(150), name="x", truth=event_truth(truth),
    )  # fmt: skip
    found = {row.method: row for row in record.rows if row.group == "through-going"}
    assert found["improved LineFit"].mean < found["LineFit"].mean < 0.4
    assert found["SPE likelihood"].mean < found["LineFit"].mean
    assert found["SPE likelihood"].median < 0.1
    events = {row.group: row.events for row in record.rows if row.method == "LineFit"}
    assert sum(n for group, n in events.items() if group.endswith("GeV")) == events["all"] == 150


def test_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small = ["--d-model", "16", "--layers", "1", "--heads", "2", "--epochs", "1"]
    arguments = ["train", "--events", "120", "--validation", "0.3", "--out", str(run), *small]
    look = ["baseline", "--checkpoint", str(run)]
    for words in (arguments, [*look, "--json", str(tmp_path / "b")]):
        monkeypatch.setattr("sys.argv", ["icediag", *words])
        assert main() == 0
    text = capsys.readouterr().out
    for words_shown in ("none of them trained on", "network/", "likelihood", "cascade", "1e3"):
        assert words_shown in text
    found = json.loads((tmp_path / "b").read_text())
    rows = found["rows"]
    assert {row["method"] for row in rows} >= {"network", "SPE likelihood"}
    means = {(row["method"], row["group"]): row["mean"] for row in rows}
    for row in rows:
        assert row["ratio"] == pytest.approx(row["mean"] / means["improved LineFit", row["group"]])
    monkeypatch.setattr("sys.argv", ["icediag", *look, "--events", "7"])
    assert main() == 0
    assert f"7 of {found['there']} events, none of them trained on" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["icediag", "baseline", "--checkpoint", str(tmp_path)])
    assert main() == 2
    assert "expected the folder of a run" in capsys.readouterr().err
