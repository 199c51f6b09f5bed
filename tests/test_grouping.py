"""Blocks of events, and their grouping by ranks: against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icediag.model import grouping
from icediag.model.block import EventBlock
from icediag.model.collate import collate
from icediag.model.event import SENSOR_ID
from icediag.model.gather import positions, rows_of
from icediag.model.grouping import dom_ranks, group_doms, grouped_by_rank
from icediag.model.simulate import default_dataset
from tests.strategies import SEEDS, lengths, make_events

POOLS = st.sampled_from([1, 3, 40])


def block_of(counts: list[int], seed: int, pool: int = 4) -> EventBlock:
    return EventBlock.of(make_events(counts, seed, pool=pool))


def sensors_of(block: EventBlock) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    sensors: np.ndarray[tuple[int], np.dtype[np.int32]]
    sensors = block.pulse_features[:, SENSOR_ID].numpy().astype(np.int32)
    return sensors


@given(counts=lengths(), seed=SEEDS, pool=POOLS, at_a_time=st.sampled_from([1, 2, 256]))
def test_ranks_count_the_doms_of_an_event_and_give_the_same_groups(
    counts: list[int], seed: int, pool: int, at_a_time: int
) -> None:
    block = block_of(counts, seed, pool)
    sensors = sensors_of(block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "EVENTS_AT_A_TIME", at_a_time)
        ranks = dom_ranks(sensors, block.lengths)
        by_sort = group_doms(sensors, block.lengths)
    expected: list[int] = []
    for event in block:
        mine = [int(s) for s in event.pulse_features[:, SENSOR_ID]]
        expected += [sorted(set(mine)).index(s) for s in mine]
    assert ranks.tolist() == expected
    by_rank = grouped_by_rank(sensors, block.lengths, ranks)
    for name, value in vars(by_sort).items():
        np.testing.assert_array_equal(getattr(by_rank, name), value, err_msg=name)
        assert getattr(by_rank, name).dtype == np.int64
    rows = np.arange(sensors.size)
    assert (by_sort.dom_ids[by_sort.dom_of_pulse[rows]] == sensors).all()


@given(counts=lengths(), seed=SEEDS)
def test_a_block_is_a_sequence_of_its_events(counts: list[int], seed: int) -> None:
    events = make_events(counts, seed)
    block = EventBlock.of(events)
    assert EventBlock.of(block) is block
    assert len(block) == len(events)
    for i, (one, other) in enumerate(zip(block, events, strict=True)):
        for event in (one, block[i], block[i - len(block)], block[i : i + 1][0]):
            assert torch.equal(event.pulse_features, other.pulse_features)
            assert torch.equal(event.target, other.target)
            assert event.event_id == other.event_id
    with pytest.raises(IndexError):
        block[len(block)]


def test_a_block_that_contradicts_itself_is_refused() -> None:
    block = block_of([2, 0, 3], 0)
    for name, value in (
        ("pulse_features", torch.zeros(4, 4)),
        ("event_ids", np.zeros(2, np.int64)),
        ("targets", torch.zeros(3, 3)),
        ("dom_ranks", np.zeros(2, np.int16)),
    ):
        with pytest.raises(ValueError, match=f"EventBlock.{name}: expected shape"):
            replace(block, **{name: value})  # type: ignore[arg-type]


@given(seed=SEEDS, n=st.integers(1, 40))
def test_a_batch_of_the_embedded_events_is_that_of_its_events_one_by_one(seed: int, n: int) -> None:
    asked = np.random.default_rng(seed).integers(-len(EMBEDDED), len(EMBEDDED), n).tolist()
    at_once = collate(EMBEDDED.__getitems__(asked))
    one_by_one = collate([EMBEDDED[i] for i in asked])
    for batches in ((at_once, one_by_one), (at_once.packing, one_by_one.packing)):
        got, expected = (
            {k: v for k, v in vars(batch).items() if torch.is_tensor(v)} for batch in batches
        )
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected)


EMBEDDED = default_dataset(64, seed=1)


def test_ranks_do_not_hide_a_sensor_of_another_detector() -> None:
    block = EMBEDDED.__getitems__([3, 4])
    assert block.dom_ranks is not None
    highest = int(sensors_of(block).max())
    collate(block, n_sensors=highest + 1)
    with pytest.raises(ValueError, match=rf"whole number in 0\.\.{highest - 1}, got {highest}"):
        collate(block, n_sensors=highest)


def test_positions_and_rows() -> None:
    assert positions([0, -1, 2], 3).tolist() == [0, 2, 2]
    assert positions([], 0).tolist() == []
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"index {wrong}: expected -3 <= index < 3"):
            positions([0, wrong], 3)
    assert rows_of(np.array([3, 9, 5]), np.array([2, 3, 0])).tolist() == [3, 4, 9, 10, 11]
