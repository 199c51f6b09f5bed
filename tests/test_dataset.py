import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler

from icediag.model import dataset as dataset_module
from icediag.model.dataset import IceCubeDataset
from icediag.model.event import Event
from icediag.model.parquet import PulseFile
from icediag.model.sampling import FileShuffleSampler
from tests.data_files import LENGTHS, Written, assert_event, make, write, write_lengths

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "oscnext5"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write_lengths(tmp_path / "data", LENGTHS, row_group_size=4, meta_row_group_size=3)


def same(a: Event, b: Event) -> bool:
    return (
        torch.equal(a.pulse_features, b.pulse_features)
        and a.event_id == b.event_id
        and torch.equal(a.target, b.target)
    )


class TestRoundTrip:
    @settings(deadline=None)
    @given(
        lengths=st.lists(st.one_of(st.just(0), st.just(1), st.integers(0, 12)), min_size=1),
        giant=st.one_of(st.none(), st.integers(100, 400)),
        row_group_size=st.integers(1, 64),
        meta_row_group_size=st.integers(1, 8),
        cache_bytes=st.sampled_from([0, 200, 2**30]),
        seed=st.integers(0, 9),
    )
    def test_what_was_written_is_read_whatever_the_row_groups_are(
        self,
        lengths: list[int],
        giant: int | None,
        row_group_size: int,
        meta_row_group_size: int,
        cache_bytes: int,
        seed: int,
    ) -> None:
        if giant is not None:
            lengths.insert(len(lengths) // 2, giant)
        half = (len(lengths) + 1) // 2
        batches = {3: lengths[:half], 5: lengths[half:] or [0]}
        with tempfile.TemporaryDirectory() as directory:
            written = write_lengths(
                Path(directory),
                batches,
                seed=seed,
                row_group_size=row_group_size,
                meta_row_group_size=meta_row_group_size,
            )
            dataset = IceCubeDataset(directory, cache_bytes=cache_bytes, max_open_files=1)
            n = sum(map(len, batches.values()))
            assert len(dataset) == n > 0
            np.testing.assert_array_equal(dataset.lengths, batches[3] + batches[5])
            np.testing.assert_array_equal(dataset.event_ids, written.meta["event_id"])
            order = np.random.default_rng(seed).permutation(n).tolist()
            for row, event in zip(order, dataset.__getitems__(order), strict=True):
                assert_event(event, written, row)
                assert same(event, dataset[row])

    def test_meta_rows_in_any_order_give_the_order_of_the_dataset(self, tmp_path: Path) -> None:
        pulses, meta = make(LENGTHS)
        order = np.random.default_rng(3).permutation(len(meta["event_id"]))
        meta = {name: values[order] for name, values in meta.items()}
        assert (np.diff(meta["batch_id"]) < 0).any()  # files alternate
        written = write(tmp_path, pulses, meta, row_group_size=4)
        dataset = IceCubeDataset(tmp_path)
        assert dataset.batch_ids == (1, 7, 30)
        np.testing.assert_array_equal(
            np.array(dataset.batch_ids)[dataset.file_of], meta["batch_id"]
        )
        for row in range(len(order)):
            assert_event(dataset[row], written, row)

    def test_other_types_of_the_same_values_are_read_alike(
        self, written: Written, tmp_path: Path
    ) -> None:
        pulses, meta = make(LENGTHS)
        for columns in pulses.values():
            columns["time"] = columns["time"].astype(np.uint32)
            columns["sensor_id"] = columns["sensor_id"].astype(np.int64)
            columns["auxiliary"] = columns["auxiliary"].astype(np.uint8)
            columns["charge"] = columns["charge"].astype(np.float32)
            del columns["event_id"]
        meta = {
            name: values.astype(np.uint64 if values.dtype.kind == "i" else np.float32)
            for name, values in meta.items()
        }
        # Unsigned cannot say "-1", the last row of an event without pulses at the start of a file.
        meta["last_pulse_index"] = meta["last_pulse_index"].astype(np.int32)
        write(tmp_path / "other", pulses, meta)
        other, usual = IceCubeDataset(tmp_path / "other"), IceCubeDataset(written.root)
        assert len(other) == len(usual) > 0
        assert all(same(other[i], usual[i]) for i in range(len(usual)))

    def test_charge_may_be_stored_as_integer(self, tmp_path: Path) -> None:
        pulses, meta = make({1: [3]})
        pulses[1]["charge"] = np.array([0, 1, 7])
        write(tmp_path, pulses, meta)
        assert IceCubeDataset(tmp_path)[0].pulse_features[:, 1].tolist() == [0, 1, 7]

    def test_times_are_exact_up_to_2_to_the_24_ns(self, tmp_path: Path) -> None:
        pulses, meta = make({1: [4]})
        pulses[1]["time"] = np.array([-(2**24), 2**24 - 1, 16_777_213, 2**24])
        write(tmp_path, pulses, meta)
        time = IceCubeDataset(tmp_path)[0].pulse_features[:, 0]
        assert [int(t) for t in time] == pulses[1]["time"].tolist()

    def test_the_real_events(self) -> None:
        if not REAL.is_dir():
            pytest.skip(f"{REAL} is not there")
        dataset = IceCubeDataset(REAL)
        assert dataset.lengths.tolist() == [9, 9, 12, 11, 15]
        assert dataset.event_ids.tolist() == [0, 1, 2, 3, 4]
        first = dataset[0].pulse_features[0]
        torch.testing.assert_close(first, torch.tensor([9867.0, 0.625, 5093.0, 0.0]))
        torch.testing.assert_close(dataset[0].target, torch.tensor([0.752464, 2.786503]))
        torch.testing.assert_close(dataset.geometry()[1], torch.tensor([-256.14, -521.08, 479.01]))


class TestIndexing:
    def test_negative_positions_count_from_the_end(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        n = len(dataset)
        for i in range(n):
            assert same(dataset[i - n], dataset[i])
        assert [e.event_id for e in dataset.__getitems__([-1, 0])] == [
            dataset.event_ids[-1],
            dataset.event_ids[0],
        ]

    def test_positions_outside_are_index_errors(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        n = len(dataset)
        for i in (n, -n - 1):
            with pytest.raises(IndexError, match=f"index {i}: expected -{n} <= index < {n}"):
                dataset[i]
            with pytest.raises(IndexError, match=f"index {i}"):
                dataset.__getitems__([0, i])

    def test_an_event_asked_for_twice_comes_twice_and_alone(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        one, other, again = dataset.__getitems__([4, 0, 4])
        assert same(one, again)
        assert not same(one, other)
        one.pulse_features.zero_()
        one.target.zero_()
        assert same(dataset[4], again)

    def test_the_whole_is_its_iteration(self, written: Written) -> None:
        # No __iter__: Python's own protocol, which ends on IndexError.
        dataset = IceCubeDataset(written.root)
        assert [dataset[i].event_id for i in range(len(dataset))] == dataset.event_ids.tolist()


class TestWhichFiles:
    def test_only_files_present_are_used_and_the_rest_is_counted(self, written: Written) -> None:
        (written.root / "train" / "batch_7.parquet").unlink()
        (written.root / "train" / "notes.txt").write_text("no batch")
        dataset = IceCubeDataset(written.root)
        assert dataset.batch_ids == (1, 30)
        assert (len(dataset), dataset.n_unused) == (8, 3)
        assert_event(dataset[6], written, 9)

    @pytest.mark.parametrize(
        ("files", "batch_ids"),
        [(None, (1, 7, 30)), (2, (1, 7)), (99, (1, 7, 30)), ([30, 1], (1, 30)), ((7,), (7,))],
    )
    def test_files_chooses(
        self, written: Written, files: list[int] | int | None, batch_ids: tuple[int, ...]
    ) -> None:
        dataset = IceCubeDataset(written.root, files=files)
        assert dataset.batch_ids == batch_ids
        wanted = np.isin(written.meta["batch_id"], batch_ids)
        np.testing.assert_array_equal(dataset.event_ids, written.meta["event_id"][wanted])
        assert dataset.n_unused == (~wanted).sum()
        for i, row in enumerate(np.flatnonzero(wanted)):
            assert_event(dataset[i], written, int(row))

    def test_meta_row_groups_of_other_files_are_not_read(
        self, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[int] = []
        original = pq.ParquetFile.iter_batches

        def spy(
            self: pq.ParquetFile, size: int, *, row_groups: list[int], **rest: object
        ) -> object:
            read.extend(row_groups)
            return original(self, size, row_groups=row_groups, **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
        IceCubeDataset(written.root, files=[7])  # rows 6..8 of the table, in groups of 3
        assert read == [2]


class TestReading:
    def test_nothing_is_opened_before_it_is_needed_and_few_stay_open(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_lengths(tmp_path, {n: [2, 3] for n in range(6)})
        opened, closed = self.count(monkeypatch)
        dataset = IceCubeDataset(tmp_path, max_open_files=2)
        assert opened == []
        for i in range(len(dataset)):
            dataset[i]
            assert len(opened) - len(closed) <= 2
        assert len(opened) == 6
        assert len(closed) == 4

    def test_a_zero_pulse_event_opens_nothing(
        self, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened, _ = self.count(monkeypatch)
        assert IceCubeDataset(written.root)[1].pulse_features.shape == (0, 4)
        assert opened == []

    @staticmethod
    def count(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], list[Path]]:
        opened: list[Path] = []
        closed: list[Path] = []

        class Counted(PulseFile):
            def __init__(self, path: Path) -> None:
                opened.append(path)
                super().__init__(path)

            def close(self) -> None:
                closed.append(self.path)
                super().close()

        monkeypatch.setattr(dataset_module, "PulseFile", Counted)
        return opened, closed

    @staticmethod
    def decodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
        decoded: list[tuple[str, int]] = []
        original = PulseFile.read_group

        def spy(self: PulseFile, group: int) -> object:
            decoded.append((self.path.name, group))
            return original(self, group)

        monkeypatch.setattr(PulseFile, "read_group", spy)
        return decoded

    def test_a_batch_decodes_no_row_group_twice_even_without_a_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_lengths(tmp_path, {n: [3] * 20 for n in (1, 2, 3)}, row_group_size=10)
        decoded = self.decodes(monkeypatch)
        dataset = IceCubeDataset(tmp_path, cache_bytes=0)
        order = np.random.default_rng(1).permutation(len(dataset)).tolist()
        events = dataset.__getitems__(order)
        assert [event.event_id for event in events] == dataset.event_ids[order].tolist()
        assert len(decoded) == len(set(decoded)) == 3 * 6
        decoded.clear()
        for i in order:
            dataset[i]
        assert len(decoded) > 18  # one by one without a cache does thrash: the test can fail

    def test_the_cache_keeps_what_fits_and_no_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_lengths(tmp_path, {1: [10] * 6}, row_group_size=10)
        decoded = self.decodes(monkeypatch)
        group = 10 * (2 + 8 + 8 + 1)
        dataset = IceCubeDataset(tmp_path, cache_bytes=3 * group)
        for i in [0, 1, 2, 0, 1, 2]:
            dataset[i]
        assert [g for _, g in decoded] == [0, 1, 2]
        dataset[0]  # used last: kept when 3 comes, which drops 1
        dataset[3]
        dataset[0]
        dataset[1]
        assert [g for _, g in decoded] == [0, 1, 2, 3, 1]
        assert dataset._cached_bytes == 3 * group

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and newer
    @pytest.mark.parametrize("start", ["fork", "spawn"])
    def test_workers_read_what_the_process_itself_reads(self, written: Written, start: str) -> None:
        dataset = IceCubeDataset(written.root, max_open_files=1)
        alone = self.epoch(DataLoader(dataset, batch_size=4, collate_fn=list))
        assert dataset._handles  # open when the workers start: they must not use it
        workers = self.epoch(
            DataLoader(
                dataset,
                batch_size=4,
                collate_fn=list,
                num_workers=2,
                multiprocessing_context=start,
            )
        )
        assert len(alone) == len(workers) == len(dataset)
        assert all(same(a, b) for a, b in zip(alone, workers, strict=True))

    @staticmethod
    def epoch(loader: DataLoader[Event]) -> list[Event]:
        # Copied: torch shares worker tensors through open files, as many as there are.
        return [
            Event(
                pulse_features=event.pulse_features.clone(),
                event_id=event.event_id,
                target=event.target.clone(),
            )
            for batch in loader
            for event in batch
        ]

    def test_with_the_sampler_a_loader_visits_all(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        sampler = FileShuffleSampler(np.arange(len(dataset)), dataset.file_of, chunk_size=2)
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=list)
        assert sorted(e.event_id for e in self.epoch(loader)) == sorted(dataset.event_ids)

    def test_a_pickled_copy_has_no_files_and_reads_alike(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        first = dataset[0]
        copy: IceCubeDataset = pickle.loads(pickle.dumps(dataset))
        assert dataset._handles
        assert not copy._handles
        assert not copy._cache
        assert same(copy[0], first)

    def test_after_a_fork_files_are_opened_anew(
        self, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = IceCubeDataset(written.root)
        first = dataset[0]
        before = dict(dataset._handles)
        pid = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)  # as a forked worker sees itself
        assert same(dataset[0], first)
        assert before
        assert not set(map(id, before.values())) & set(map(id, dataset._handles.values()))

    def test_random_sampling_works_too(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(dataset, batch_size=3, sampler=sampler, collate_fn=list)
        assert len(self.epoch(loader)) == len(dataset)

    def test_the_arrays_cannot_be_written_by_mistake(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        with pytest.raises(ValueError, match="read-only"):
            dataset.targets[0] = 0
