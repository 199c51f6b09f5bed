import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from icediag.model.errors import DataError
from icediag.model.split import _splitmix64, split_by_file, split_by_hash

ids = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True)
shares = st.floats(0, 1, exclude_max=True)
seeds = st.integers(0, 2**64 - 1)


def test_the_mix_is_splitmix64() -> None:
    # The first three outputs of Vigna's generator from state 0: its state grows by the increment.
    step = 0x9E3779B97F4A7C15
    states = np.array([0, step, 2 * step % 2**64], np.uint64)
    assert [hex(h) for h in _splitmix64(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


class TestByHash:
    @given(ids=ids, validation=shares, seed=seeds)
    def test_the_two_never_overlap_and_cover_everything(
        self, ids: list[int], validation: float, seed: int
    ) -> None:
        parts = split_by_hash(np.array(ids, np.int64), validation=validation, seed=seed)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(ids)))
        for part in parts:
            assert part.dtype == np.int64
            assert (np.diff(part) > 0).all()

    @given(ids=ids, validation=shares, seed=seeds, data=st.data())
    def test_an_event_stays_on_its_side_whatever_else_is_there(
        self, ids: list[int], validation: float, seed: int, data: st.DataObject
    ) -> None:
        some = data.draw(st.lists(st.sampled_from(ids), unique=True)) if ids else []
        everything, part = np.array(ids, np.int64), np.array(some, np.int64)
        _, held_out = split_by_hash(everything, validation=validation, seed=seed)
        train, val = split_by_hash(part, validation=validation, seed=seed)
        assert set(part[val].tolist()) == set(everything[held_out].tolist()) & set(some)
        assert not set(part[train].tolist()) & set(everything[held_out].tolist())

    @pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.uint64])
    def test_the_integer_type_does_not_matter(self, dtype: type) -> None:
        ids = np.arange(1_000)
        expected = split_by_hash(ids, validation=0.3)
        for a, b in zip(split_by_hash(ids.astype(dtype), validation=0.3), expected, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("validation", [0.01, 0.1, 0.5, 0.9])
    @pytest.mark.parametrize("stride", [1, 2, 1024])
    def test_the_share_is_as_asked_for(self, validation: float, stride: int) -> None:
        n = 100_000
        _, held_out = split_by_hash(np.arange(n) * stride, validation=validation)
        assert abs(len(held_out) / n - validation) < 5 * np.sqrt(validation * (1 - validation) / n)

    def test_more_than_a_block_of_events_is_one_split(self) -> None:
        ids = np.arange(2**20 + 1_000)
        _, held_out = split_by_hash(ids, validation=0.2)
        _, tail = split_by_hash(ids[2**20 :], validation=0.2)
        np.testing.assert_array_equal(held_out[held_out >= 2**20] - 2**20, tail)
        assert len(tail) > 0

    def test_a_larger_share_only_adds(self) -> None:
        ids = np.arange(10_000)
        small, large = (set(split_by_hash(ids, validation=v)[1].tolist()) for v in (0.1, 0.2))
        assert small < large

    def test_seeds_are_independent_splits(self) -> None:
        ids = np.arange(100_000)
        a, b = (set(split_by_hash(ids, validation=0.5, seed=seed)[1].tolist()) for seed in (0, 1))
        assert abs(len(a & b) / len(ids) - 0.25) < 0.01
        # ... and not the same one with neighbours swapped
        assert abs(len(a & {i ^ 1 for i in b}) / len(ids) - 0.25) < 0.01

    def test_nothing_is_held_out_of_share_0(self) -> None:
        train, held_out = split_by_hash(np.arange(10), validation=0)
        assert (len(train), len(held_out)) == (10, 0)

    def test_arguments(self) -> None:
        ids = np.arange(3)
        for validation in (-0.1, 1, float("nan")):
            with pytest.raises(ValueError, match=rf"^validation: .* got {validation}$"):
                split_by_hash(ids, validation=validation)
        for seed in (-1, 2**64):
            with pytest.raises(ValueError, match=rf"^seed: .* got {seed}$"):
                split_by_hash(ids, validation=0.1, seed=seed)
        for bad in (ids.astype(float), ids[None]):
            with pytest.raises(ValueError, match=r"^event_ids: expected a 1-d array of integers"):
                split_by_hash(bad, validation=0.1)


class TestByFile:
    @given(
        files=st.lists(st.integers(0, 8), min_size=2),
        validation=st.floats(0, 1, exclude_min=True, exclude_max=True),
    )
    def test_whole_files_never_overlapping_at_least_one_each(
        self, files: list[int], validation: float
    ) -> None:
        assume(len(set(files)) > 1)
        file_of = np.array(files, np.int16)
        train, held_out = split_by_file(file_of, validation=validation)
        assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(files)))
        assert len(train) > 0
        assert len(held_out) > 0
        assert file_of[train].max() < file_of[held_out].min()
        # No other number of last files comes closer to the share.
        missed = abs(len(held_out) / len(files) - validation)
        for first in sorted(set(files))[1:]:
            assert missed <= abs((file_of >= first).mean() - validation) + 1e-12

    def test_the_last_files_are_held_out(self) -> None:
        train, held_out = split_by_file(np.repeat([4, 5, 6, 9], 100), validation=0.3)
        assert (train.tolist(), held_out.tolist()) == (list(range(300)), list(range(300, 400)))

    @pytest.mark.parametrize("files", [[], [3, 3]])
    def test_one_file_cannot_be_split(self, files: list[int]) -> None:
        with pytest.raises(DataError, match=rf"expected .*2 files or more, got {len(set(files))}"):
            split_by_file(np.array(files, np.int16), validation=0.1)

    def test_arguments(self) -> None:
        for validation in (0, 1, float("nan")):
            with pytest.raises(ValueError, match=rf"^validation: .* got {validation}$"):
                split_by_file(np.arange(3), validation=validation)
        with pytest.raises(ValueError, match=r"^file_of: .* got 1-d float64$"):
            split_by_file(np.arange(3.0), validation=0.5)  # type: ignore[arg-type]
