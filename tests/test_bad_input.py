"""Bad input at the command line: one line that names the place, exit code 2, nothing else."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from icediag.cli.main import main
from icediag.model.simulate import simulate
from icediag.model.table import write_dataset

BATCH, META, GEOMETRY = "train/batch_1.parquet", "train_meta.parquet", "sensor_geometry.csv"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight simulated events on disk."""
    write_dataset(simulate(8, seed=3), tmp_path / "data")
    return tmp_path / "data"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
    code = main()
    return code, capsys.readouterr().err


def pulses(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        change(pd.read_parquet(root / BATCH)).to_parquet(root / BATCH)

    return spoil


def meta(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        change(pd.read_parquet(root / META)).to_parquet(root / META)

    return spoil


def put(column: str, row: int, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.iloc[row, list(frame.columns).index(column)] = value
        return frame

    return change


def cut(name: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


SPOILT: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "batch file missing": (remove(BATCH), ["train", "batch_"]),
    "meta missing": (remove(META), [META]),
    "geometry missing": (remove(GEOMETRY), [GEOMETRY]),
    "column missing": (pulses(lambda f: f.drop(columns="charge")), [BATCH, "charge"]),
    "meta column missing": (meta(lambda f: f.drop(columns="zenith")), [META, "zenith"]),
    "wrong dtype": (pulses(lambda f: f.astype({"time": str})), [BATCH, "time"]),
    "sensor out of range": (pulses(put("sensor_id", 4, 5160)), [BATCH, "sensor_id", "row 4"]),
    "NaN charge": (pulses(put("charge", 5, np.nan)), [BATCH, "charge", "row 5"]),
    "negative charge": (pulses(put("charge", 6, -1.5)), [BATCH, "charge", "row 6", "-1.5"]),
    "rows past the end": (
        meta(put("last_pulse_index", 7, 10**7)),
        [META, "last_pulse_index", "row 7"],
    ),
    "event id twice": (meta(put("event_id", 3, 1)), [META, "event_id", "1"]),
    "batch cut short": (cut(BATCH), [BATCH]),
    "meta cut short": (cut(META), [META]),
    "geometry cut short": (cut(GEOMETRY), [GEOMETRY]),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_data_set_is_one_line(
    kind: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, words = SPOILT[kind]
    spoil(data)
    code, error = run(monkeypatch, capsys, "shapes", "--data", str(data), "--batch-size", "8")
    assert code == 2
    assert error.startswith("icediag: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    for word in words:
        assert word in error


def test_the_same_data_set_unspoilt_passes(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(monkeypatch, capsys, "shapes", "--data", str(data), "--batch-size", "8")
    assert (code, error) == (0, "")


def test_missing_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(monkeypatch, capsys, "shapes", "--data", str(tmp_path / "nowhere"))
    assert code == 2
    assert "nowhere" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shapes", "--fault", "no-such"], ["fault", "no-such", "packing-loop"]),
        (["shapes", "--head", "no-such"], ["head", "no-such", "unit_vector"]),
        (["shapes", "--device", "no-such"], ["--device", "no-such"]),
        (["shapes", "--files", "2"], ["--files", "--data"]),
        (["shapes", "--json", "no/such/folder/x.json"], ["--json", "no/such/folder"]),
        (["shapes", "--pipeline", "nocolon"], ["--pipeline", "nocolon"]),
        (["shapes", "--pipeline", "my/diag.py:made"], ["my.diag:made", "my/diag.py"]),
        (
            ["shapes", "--pipeline", "tests.pipelines.odd:on_numbers"],
            ["tests.pipelines.odd:on_numbers", "without arguments", "needs model"],
        ),
        (
            ["shapes", "--pipeline", "tests.pipelines.odd:of_a_class"],
            ["pipelines/odd.py:", "Pipeline.model", "OwnTrain()"],
        ),
        (["train", "--loss", "vmf", "--head", "angles"], ["vmf", "unit_vector"]),
    ],
)
def test_bad_option_is_one_line(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert error.count("\n") == 1
    assert "Traceback" not in error
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())


def test_existing_output_is_not_touched(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in data.rglob("*"))
    code, error = run(monkeypatch, capsys, "simulate", str(data), "--events", "8")
    assert code == 2
    assert "--overwrite" in error
    assert sorted(path.name for path in data.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    code, error = run(monkeypatch, capsys, "simulate", str(tmp_path / "out"), "--events", "8")
    assert code == 2
    assert "out" in error
    assert error.count("\n") == 1


def test_output_below_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, error = run(
        monkeypatch, capsys, "simulate", str(tmp_path / "file" / "out"), "--events", "8"
    )
    assert code == 2
    assert "file" in error
    assert error.count("\n") == 1
