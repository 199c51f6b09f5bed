"""Prepared data sets: the same events, bit for bit, from mapped columns."""

import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icediag.cli.main import app
from icediag.model.arrow import ArrowPulses, write_arrow
from icediag.model.assembly import open_events
from icediag.model.collate import Batch, collate
from icediag.model.dataset import IceCubeDataset
from icediag.model.errors import DataError
from icediag.model.prepare import prepare
from tests.data_files import LENGTHS, Written, assert_event, make, write, write_lengths


@pytest.fixture
def written(tmp_path: Path) -> Written:
    written = write_lengths(tmp_path / "data", LENGTHS, row_group_size=4, meta_row_group_size=3)
    rows = "".join(f"{i},{i % 60},{i // 60},{-i}\n" for i in range(5160))
    (written.root / "sensor_geometry.csv").write_text("sensor_id,x,y,z\n" + rows)
    return written


def prepared(written: Written, out: Path) -> IceCubeDataset:
    prepare(written.root, out)
    return IceCubeDataset(out)


def plain(batch: Batch) -> dict[str, Any]:
    """All tensors of a batch, its plan's too."""
    return {**vars(batch), **vars(batch.packing), "packing": None}


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.one_of(st.just(0), st.integers(0, 12)), min_size=1),
    giant=st.one_of(st.none(), st.integers(100, 400)),
    row_group_size=st.integers(1, 64),
    seed=st.integers(0, 9),
)
def test_what_was_prepared_is_what_was_there(
    lengths: list[int], giant: int | None, row_group_size: int, seed: int
) -> None:
    lengths += [giant] if giant else []
    half = (len(lengths) + 1) // 2
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        written = write_lengths(
            root / "data",
            {3: lengths[:half], 5: lengths[half:] or [0]},
            seed=seed,
            row_group_size=row_group_size,
        )
        geometry = "".join(f"{i},0,0,{i}\n" for i in range(5160))
        (root / "data" / "sensor_geometry.csv").write_text("sensor_id,x,y,z\n" + geometry)
        ours, usual = prepared(written, root / "out"), IceCubeDataset(written.root)
        order = [*np.random.default_rng(seed).permutation(len(usual)).tolist(), 0, -1, 0]
        for row, event in zip(order, ours.__getitems__(order), strict=True):
            assert_event(event, written, row % len(usual))
        # Grouped by ranks that were kept, or by what the pulses say: the same batch.
        got, expected = (plain(collate(x.__getitems__(order))) for x in (ours, usual))
        assert ours.__getitems__(order).dom_ranks is not None
        assert not sum(lengths) or usual.__getitems__(order).dom_ranks is None
        for name, value in expected.items():
            same = torch.equal(got[name], value) if torch.is_tensor(value) else got[name] == value
            assert same, name


def test_it_is_a_data_set_like_another(written: Written, tmp_path: Path) -> None:
    ours, usual = prepared(written, tmp_path / "out"), IceCubeDataset(written.root)
    assert isinstance(open_events(tmp_path / "out"), IceCubeDataset)
    assert torch.equal(ours.geometry(), usual.geometry())
    np.testing.assert_array_equal(ours.event_ids, usual.event_ids)
    ours.check_files()
    assert ours.read_table(0).num_rows == usual.read_table(0).num_rows > 0
    copy: IceCubeDataset = pickle.loads(pickle.dumps(ours))
    assert torch.equal(copy[4].pulse_features, usual[4].pulse_features)
    # What is read may be written to; the file stays as it is.
    ours[4].pulse_features.zero_()
    assert torch.equal(ours[4].pulse_features, usual[4].pulse_features)


def test_meta_rows_in_any_order_are_no_fault(written: Written, tmp_path: Path) -> None:
    pulses, meta = make(LENGTHS)
    order = np.random.default_rng(3).permutation(len(meta["event_id"]))
    shuffled = write(written.root, pulses, {name: values[order] for name, values in meta.items()})
    ours = prepared(shuffled, tmp_path / "out")
    for row, event in enumerate(ours.__getitems__(range(len(ours)))):
        assert_event(event, shuffled, row)


def test_a_stopped_run_goes_on_and_keeps_what_is_done(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    calls: list[str] = []

    def stops(path: Path, *rest: Any) -> None:
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write_arrow(path, *rest)

    monkeypatch.setattr("icediag.model.prepare.write_arrow", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(written.root, out)
    assert [path.name for path in (out / "train").iterdir()] == ["batch_1.arrow"]
    with pytest.raises(DataError, match="train_meta.parquet: expected"):
        IceCubeDataset(out)  # not a data set before it is whole
    before = (out / "train" / "batch_1.arrow").stat().st_mtime_ns
    told: list[tuple[int, int]] = []
    monkeypatch.undo()
    done = prepare(written.root, out, on_file=lambda n, total: told.append((n, total)))
    assert (done.n_written, done.n_kept, told) == (2, 1, [(1, 3), (2, 3), (3, 3)])
    assert (out / "train" / "batch_1.arrow").stat().st_mtime_ns == before
    assert len(IceCubeDataset(out)) == done.n_events == 11
    assert done.n_pulses == sum(map(sum, LENGTHS.values()))


def test_a_source_that_changed_is_prepared_again(written: Written, tmp_path: Path) -> None:
    prepare(written.root, tmp_path / "out")
    source = written.root / "train" / "batch_7.parquet"
    os.utime(source, ns=(1, 1))
    done = prepare(written.root, tmp_path / "out")
    assert (done.n_written, done.n_kept) == (1, 2)


def test_bad_pulses_are_refused_and_leave_no_file(written: Written, tmp_path: Path) -> None:
    pulses, meta = make(LENGTHS)
    pulses[7]["sensor_id"][2] = 5160
    bad = write(written.root, pulses, meta)
    with pytest.raises(DataError, match=r"batch_7.parquet: column 'sensor_id', row 2 .* got 5160"):
        prepare(bad.root, tmp_path / "out")
    assert sorted(x.name for x in (tmp_path / "out" / "train").iterdir()) == ["batch_1.arrow"]


@pytest.mark.parametrize("what", ["cut", "other", "empty"])
def test_a_damaged_file_is_named(written: Written, tmp_path: Path, what: str) -> None:
    prepare(written.root, tmp_path / "out")
    path = tmp_path / "out" / "train" / "batch_7.arrow"
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif what == "empty":
        path.write_bytes(b"")
    else:
        batch = pa.RecordBatch.from_pydict({"time": [1.0]})
        with pa.ipc.new_file(str(path), batch.schema) as writer:
            writer.write_batch(batch)
    with pytest.raises(DataError, match=r"batch_7\.arrow: expected a file that") as error:
        IceCubeDataset(tmp_path / "out")[7]
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="found none"):
        ArrowPulses(tmp_path / "nothing.arrow")


def test_folders_of_others_are_refused(written: Written, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    prepare(written.root, tmp_path / "out")
    refused: Sequence[tuple[Path, Path, str]] = [
        (written.root, tmp_path / "file", "expected a folder, got a file"),
        (written.root, tmp_path / "full", "got one with thesis.tex"),
        (written.root, written.root, "got one with batch_"),
        (tmp_path / "out", tmp_path / "again", "prepared already"),
        (tmp_path / "full", tmp_path / "again", "expected a directory"),
    ]
    for source, out, message in refused:
        with pytest.raises(DataError, match=message):
            prepare(source, out)
    assert not (tmp_path / "again").exists()


def test_the_command(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    for expected in ("3 files written\n", "0 files written, 3 were there already\n"):
        assert app(["prepare", str(written.root), out], standalone_mode=False) == 0
        assert capsys.readouterr().out.endswith(expected)
