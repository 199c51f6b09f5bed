"""Event tables, the data set over them, and the files written from them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from icediag.model import table as table_module
from icediag.model.array import icecube86
from icediag.model.errors import DataError
from icediag.model.event import Event
from icediag.model.table import EventTable, TableDataset, write_dataset

LENGTHS = st.lists(
    st.one_of(st.just(0), st.just(1), st.integers(0, 30), st.just(5000)), min_size=0, max_size=12
)


def make_table(lengths: list[int], seed: int = 0) -> EventTable:
    rng = np.random.default_rng(seed)
    n, p = len(lengths), sum(lengths)
    return EventTable(
        event_id=rng.permutation(n).astype(np.int64) * 7 + 2**31,
        first=np.cumsum([0, *lengths]).astype(np.int64),
        sensor_id=rng.integers(0, 5160, p).astype(np.int16),
        time=rng.integers(5000, 90_000, p),
        charge=rng.exponential(1.0, p),
        auxiliary=rng.random(p) < 0.5,
        azimuth=rng.random(n) * 2 * np.pi,
        zenith=rng.random(n) * np.pi,
    )


@given(lengths=LENGTHS, seed=st.integers(0, 100))
@settings(deadline=None)
def test_dataset_yields_the_tables_rows(lengths: list[int], seed: int) -> None:
    table = make_table(lengths, seed)
    dataset = TableDataset(table)
    assert len(dataset) == len(lengths)
    assert dataset.lengths.tolist() == lengths
    assert dataset.targets.shape == (len(lengths), 2)
    assert dataset.targets.dtype == np.float32
    assert dataset.file_of.tolist() == [0] * len(lengths)
    assert dataset.event_ids.tolist() == table.event_id.tolist()
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    for i, event in zip(order, dataset.__getitems__(order), strict=True):
        rows = range(table.first[i], table.first[i + 1])
        plain = [
            [table.time[r], table.charge[r], table.sensor_id[r], table.auxiliary[r]] for r in rows
        ]
        expected = torch.tensor(plain, dtype=torch.float64).reshape(-1, 4).float()
        assert torch.equal(event.pulse_features, expected)
        assert event.event_id == table.event_id[i]
        assert event.target.tolist() == dataset.targets[i].tolist()


def test_dataset_ends() -> None:
    dataset = TableDataset(make_table([2, 0, 3]))
    assert dataset[-1].n_pulses == 3
    assert dataset[1].n_pulses == 0
    for index in (3, -4):
        with pytest.raises(IndexError, match="index"):
            dataset[index]
    geometry = dataset.geometry()
    assert geometry.shape == (5160, 3)
    assert geometry.dtype == torch.float32
    assert np.abs(geometry.numpy() - icecube86()).max() < 1e-3


def keep_list(events: list[Event]) -> list[Event]:
    return events


def test_dataset_in_a_data_loader() -> None:
    dataset = TableDataset(make_table([2, 0, 3, 1]))
    loader: DataLoader[Event] = DataLoader(dataset, batch_size=3, collate_fn=keep_list)
    assert [[event.n_pulses for event in batch] for batch in loader] == [[2, 0, 3], [1]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_id", np.zeros(2, dtype=np.int64)),
        ("event_id", np.arange(2, dtype=np.int32)),
        ("first", np.array([0, 2, 1])),
        ("first", np.array([0, 3])),
        ("first", np.array([0, 4, 3])),
        ("first", np.array([1, 2, 3])),
        ("sensor_id", np.array([0, 1, 5160], dtype=np.int16)),
        ("sensor_id", np.array([0, 1, -1], dtype=np.int16)),
        ("time", np.zeros(2, dtype=np.int64)),
        ("charge", np.array([1.0, np.nan, 1.0])),
        ("charge", np.array([1.0, np.inf, 1.0])),
        ("charge", np.array([1.0, -0.1, 1.0])),
        ("auxiliary", [True, False, True]),
        ("azimuth", np.array([0.0, 6.3])),
        ("zenith", np.array([3.2, 0.0])),
    ],
)
def test_table_refuses(name: str, value: object) -> None:
    good = make_table([1, 2])
    with pytest.raises(ValueError, match=rf"EventTable\.{name}: expected"):
        dataclasses.replace(good, **{name: value})  # type: ignore[arg-type]


@given(lengths=LENGTHS, per_file=st.integers(1, 5))
@settings(deadline=None, max_examples=15)
def test_files_hold_the_table(
    lengths: list[int], per_file: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = make_table(lengths)
    out = tmp_path_factory.mktemp("written") / "set"
    write_dataset(table, out, events_per_file=per_file)
    meta = pd.read_parquet(out / "train_meta.parquet")
    columns = ["batch_id", "event_id", "first_pulse_index", "last_pulse_index"]
    assert list(meta.columns) == [*columns, "azimuth", "zenith"]
    assert list(meta.dtypes[columns]) == [np.dtype(np.int64)] * 4
    assert meta.event_id.tolist() == table.event_id.tolist()
    assert meta.azimuth.tolist() == table.azimuth.tolist()
    assert meta.zenith.tolist() == table.zenith.tolist()
    files = {
        int(path.stem.removeprefix("batch_")): pd.read_parquet(path)
        for path in (out / "train").iterdir()
    }
    assert sorted(files) == list(range(1, max(-(-len(lengths) // per_file), 1) + 1))
    for i, (batch, event_id, low, last) in enumerate(meta[columns].to_numpy().tolist()):
        pulses = files[batch]
        assert pulses.index.name == "event_id"
        mine = pulses.iloc[low : last + 1]
        assert (mine.index.to_numpy() == event_id).all()
        rows = slice(table.first[i], table.first[i + 1])
        assert len(mine) == lengths[i] == last + 1 - low
        for name in ("sensor_id", "time", "charge", "auxiliary"):
            assert mine[name].to_numpy().dtype == getattr(table, name).dtype
            assert np.array_equal(mine[name].to_numpy(), getattr(table, name)[rows])
    assert sum(map(len, files.values())) == sum(lengths)


def test_schema_and_geometry_are_the_competitions(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "set"
    write_dataset(make_table([3, 1]), out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "sensor_geometry.csv",
        "train/batch_1.parquet",
        "train_meta.parquet",
    ]
    schema = pq.read_schema(out / "train" / "batch_1.parquet")
    assert [(f.name, str(f.type)) for f in schema] == [
        ("sensor_id", "int16"),
        ("time", "int64"),
        ("charge", "double"),
        ("auxiliary", "bool"),
        ("event_id", "int64"),
    ]
    geometry = pd.read_csv(out / "sensor_geometry.csv")
    assert list(geometry.columns) == ["sensor_id", "x", "y", "z"]
    assert np.abs(geometry[["x", "y", "z"]].to_numpy() - icecube86()).max() < 0.0051
    real = Path(__file__).parents[2] / "shared" / "data" / "oscnext5"
    if real.is_dir():
        for name in ("train/batch_1.parquet", "train_meta.parquet"):
            assert (
                pq.read_schema(out / name)
                .remove_metadata()
                .equals(pq.read_schema(real / name).remove_metadata())
            )


def test_existing_output(tmp_path: Path) -> None:
    out = tmp_path / "set"
    out.mkdir()
    write_dataset(make_table([1]), out)
    with pytest.raises(DataError, match="expected an empty or new folder") as caught:
        write_dataset(make_table([1, 1]), out)
    assert "\n" not in str(caught.value)
    assert len(pd.read_parquet(out / "train_meta.parquet")) == 1
    write_dataset(make_table([1, 1]), out, overwrite=True)
    assert len(pd.read_parquet(out / "train_meta.parquet")) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    with pytest.raises(DataError, match="found a file"):
        write_dataset(make_table([1]), out / "sensor_geometry.csv", overwrite=True)
    with pytest.raises(ValueError, match="events_per_file"):
        write_dataset(make_table([1]), tmp_path / "other", events_per_file=0)


def test_unwritable_output_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written") as caught:
        write_dataset(make_table([1]), tmp_path / "file" / "set")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_forbidden_output_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match="cannot be written"):
            write_dataset(make_table([1]), tmp_path / "set")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_failure_leaves_things_as_they_were(
    error: BaseException, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    if existing:
        write_dataset(make_table([1]), out)
    before = sorted(tmp_path.rglob("*"))
    write = table_module._write_parquet
    calls = []

    def fail_late(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise error
        write(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(table_module, "_write_parquet", fail_late)
    with pytest.raises((DataError, KeyboardInterrupt)):
        write_dataset(make_table([1, 1]), out, overwrite=True)
    assert len(calls) == 2, "the failure must come after something was written"
    assert sorted(tmp_path.rglob("*")) == before


def test_failing_rename_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    write_dataset(make_table([1]), out)
    rename = Path.rename

    def fail_for_made(self: Path, target: Path) -> Path:
        if self.name == "made":
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_made)
    with pytest.raises(DataError, match="busy"):
        write_dataset(make_table([1, 1]), out, overwrite=True)
    assert len(pd.read_parquet(out / "train_meta.parquet")) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
