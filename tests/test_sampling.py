from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icediag.model.sampling import FileShuffleSampler, _chunks

FILE_OF = np.repeat(np.arange(5, dtype=np.int16), 100)
ALL = np.arange(len(FILE_OF))


def order(indices: Sequence[int] | np.ndarray[Any, Any] = ALL, **arguments: int) -> list[int]:
    return list(FileShuffleSampler(np.asarray(indices), FILE_OF, **arguments))


@given(
    files=st.lists(st.integers(0, 4), max_size=60),
    data=st.data(),
    chunk_size=st.integers(1, 70),
    window=st.integers(1, 8),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 2**40),
)
def test_every_index_comes_once_and_skip_is_the_rest(
    files: list[int], data: st.DataObject, chunk_size: int, window: int, seed: int, epoch: int
) -> None:
    indices = np.flatnonzero([data.draw(st.booleans()) for _ in files])
    skip = data.draw(st.integers(0, len(indices)))
    sampler = FileShuffleSampler(
        indices, np.array(files, np.int16), seed=seed, chunk_size=chunk_size, window=window
    )
    sampler.set_epoch(epoch)
    visited = list(sampler)
    assert sorted(visited) == indices.tolist()
    assert len(sampler) == len(visited)
    assert visited == list(sampler)
    sampler.set_epoch(epoch, skip=skip)
    assert list(sampler) == visited[skip:]
    assert len(sampler) == len(visited) - skip


@given(files=st.lists(st.integers(0, 4)), size=st.integers(1, 9))
def test_chunks_are_runs_of_one_file(files: list[int], size: int) -> None:
    ordered = np.sort(np.array(files, np.int16))
    chunks = _chunks(ordered, size)
    covered = [list(range(first, stop)) for first, stop in chunks]
    assert [k for chunk in covered for k in chunk] == list(range(len(files)))
    for chunk in covered:
        assert 1 <= len(chunk) <= size
        assert len(set(ordered[chunk].tolist())) == 1


def test_the_worked_example_of_chunks() -> None:
    chunks = _chunks(np.array([0, 0, 0, 0, 0, 1]), 2)
    assert chunks.tolist() == [[0, 1], [1, 3], [3, 5], [5, 6]]


def test_a_window_touches_few_files_and_is_shuffled() -> None:
    visited = np.array(order(chunk_size=50, window=2))
    for start in range(0, 500, 100):
        window = visited[start : start + 100]
        # Two chunks of 50 neighbours, in some order, drawn from alternately.
        assert len({i // 50 for i in window.tolist()}) == 2
        first_half = {i // 50 for i in window[:50].tolist()}
        assert len(first_half) == 2
    assert (np.diff(visited) == 1).mean() < 0.1


def test_files_that_alternate_are_brought_together() -> None:
    file_of = np.arange(100) % 2
    visited = list(FileShuffleSampler(np.arange(100), file_of, chunk_size=50, window=1))
    assert sorted(visited) == list(range(100))
    assert {len({i % 2 for i in visited[k : k + 50]}) for k in (0, 50)} == {1}


def test_seed_and_epoch_alone_make_the_order() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state that must not matter
    sampler = FileShuffleSampler(ALL, FILE_OF, seed=3, chunk_size=20)
    first = list(sampler)
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    again = FileShuffleSampler(ALL[::-1], FILE_OF, seed=3, chunk_size=20)
    assert list(again) == first
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    list(sampler)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    again.set_epoch(1)
    assert list(again) != first
    assert order(seed=4, chunk_size=20) != first
    again.set_epoch(0)
    assert list(again) == first


def test_iterations_do_not_disturb_one_another() -> None:
    sampler = FileShuffleSampler(ALL, FILE_OF, chunk_size=20)
    expected = list(sampler)
    pairs = list(zip(sampler, sampler, strict=True))
    assert [a for a, _ in pairs] == [b for _, b in pairs] == expected


def test_what_it_yields_are_plain_ints_given_to_it() -> None:
    visited = order([7, 3, 499, 250])
    assert sorted(visited) == [3, 7, 250, 499]
    assert {type(i) for i in visited} == {int}


def test_skip_may_be_given_at_once_and_ends_with_the_epoch() -> None:
    sampler = FileShuffleSampler(ALL, FILE_OF, skip=490)
    assert len(sampler) == len(list(sampler)) == 10
    sampler.set_epoch(1)
    assert len(sampler) == len(list(sampler)) == 500


def test_no_events_are_no_fault() -> None:
    assert order([]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [0, 500]}, r"^indices: expected positions 0\.\.499 .* got 0\.\.500"),
        ({"indices": [-1, 5]}, r"^indices: .* got -1\.\.5"),
        ({"indices": [4, 5, 4]}, r"^indices: expected each position once, got 4"),
        ({"indices": [0.5]}, r"^indices: expected a 1-d array of integers, got 1-d float64"),
        ({"indices": [[1]]}, r"^indices: expected a 1-d array of integers, got 2-d"),
        ({"chunk_size": 0}, r"^chunk_size: expected an integer >= 1, got 0"),
        ({"window": 0}, r"^window: expected an integer >= 1, got 0"),
        ({"seed": -1}, r"^seed: expected an integer >= 0, got -1"),
        ({"skip": 501}, r"^skip: expected 0\.\.500, got 501"),
        ({"skip": -1}, r"^skip: expected 0\.\.500, got -1"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order(**arguments)


def test_epoch_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match=r"^epoch: expected an integer >= 0, got -1"):
        FileShuffleSampler(ALL, FILE_OF).set_epoch(-1)
