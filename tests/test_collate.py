"""Collate: against a plain twin that walks over the pulses with dictionaries."""

import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from icediag.model.collate import Batch, collate
from icediag.model.event import N_SENSORS, SENSOR_ID, Event
from icediag.model.packing import PackingPlan
from icediag.model.scatter import group_sum
from tests.strategies import SEEDS, changed, lengths, make_events, rows_of

POOLS = st.sampled_from([1, 3, 40])


def twin(events: list[Event]) -> dict[str, list[Any]]:
    """What a batch holds, pulse by pulse and DOM by DOM."""
    row_of: dict[tuple[int, int], int] = {}
    for number, event in enumerate(events):
        for sensor in sorted({int(s) for s in event.pulse_features[:, SENSOR_ID]}):
            row_of[number, sensor] = len(row_of)
    pulses = [(number, row) for number, event in enumerate(events) for row in event.pulse_features]
    return {
        "pulse_features": [row.tolist() for _, row in pulses],
        "pulse_to_dom_idx": [row_of[number, int(row[SENSOR_ID])] for number, row in pulses],
        "dom_to_event_idx": [number for number, _ in row_of],
        "dom_ids": [sensor for _, sensor in row_of],
        "event_dom_counts": [
            sum(number == of for number, _ in row_of) for of in range(len(events))
        ],
        "event_ids": [event.event_id for event in events],
        "targets": [event.target.tolist() for event in events],
    }


def content(batch: Batch, event: int) -> dict[str, Tensor]:
    """All that a batch says of one event, free of where in the batch the event stands."""
    pulses, doms = rows_of(batch, event)
    return {
        "pulse_features": batch.pulse_features[pulses],
        "pulse_to_dom_idx": batch.pulse_to_dom_idx[pulses] - doms.start,
        "dom_ids": batch.dom_ids[doms],
        "event_dom_counts": batch.event_dom_counts[event],
        "event_ids": batch.event_ids[event],
        "targets": batch.targets[event],
        # From its CLS token on, an event's slots follow each other.
        "slots": batch.packing.slot_of_dom[doms] - batch.packing.slot_of_cls[event],
    }


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@example(counts=[0], seed=0, pool=3)
@example(counts=[0, 0, 0], seed=0, pool=3)
@example(counts=[1], seed=0, pool=3)
@example(counts=[0, 150, 0, 1], seed=0, pool=40)
@given(counts=lengths(), seed=SEEDS, pool=POOLS)
def test_batch_agrees_with_a_loop_over_pulses(counts: list[int], seed: int, pool: int) -> None:
    events = make_events(counts, seed, pool=pool)
    batch = collate(events)
    expected = twin(events)
    for name, value in expected.items():
        assert getattr(batch, name).tolist() == value, name
    assert batch.num_doms == len(expected["dom_ids"])
    assert batch.batch_size == len(counts)
    assert batch.packing.slot_of_dom.shape == (batch.num_doms,)
    for name in ("pulse_to_dom_idx", "dom_to_event_idx", "dom_ids", "event_dom_counts"):
        assert getattr(batch, name).dtype == torch.int64, name
    assert batch.event_ids.dtype == torch.int64
    assert batch.pulse_features.dtype == batch.targets.dtype == torch.float32


@given(counts=lengths(), seed=SEEDS, pool=POOLS)
def test_events_come_back_from_the_batch(counts: list[int], seed: int, pool: int) -> None:
    events = make_events(counts, seed, pool=pool)
    batch = collate(events)
    for i, event in enumerate(events):
        pulses, doms = rows_of(batch, i)
        assert torch.equal(batch.pulse_features[pulses], event.pulse_features)
        assert torch.equal(batch.targets[i], event.target)
        assert batch.event_ids[i].item() == event.event_id
        # The DOM of a pulse is the one that the pulse names.
        sensor = batch.dom_ids[batch.pulse_to_dom_idx[pulses]]
        assert torch.equal(sensor, event.pulse_features[:, SENSOR_ID].long())
        assert batch.event_dom_counts[i].item() == doms.stop - doms.start


@given(counts=lengths(), seed=SEEDS, pool=POOLS)
def test_values_and_gradients_of_a_sum_over_doms_agree_with_dictionaries(
    counts: list[int], seed: int, pool: int
) -> None:
    events = make_events(counts, seed, pool=pool)
    leaves = [event.pulse_features.double().requires_grad_() for event in events]
    batch = collate([changed(e, pulse_features=x) for e, x in zip(events, leaves, strict=True)])
    sums = group_sum(batch.pulse_features, batch.pulse_to_dom_idx, batch.num_doms, "native")
    got = torch.autograd.grad(sums.square().sum(), leaves)

    by_dom: dict[tuple[int, int], Tensor] = {}
    for number, leaf in enumerate(leaves):
        for row in leaf:
            key = (number, int(row[SENSOR_ID].item()))
            by_dom[key] = by_dom.get(key, torch.zeros(4, dtype=torch.float64)) + row
    ordered = [by_dom[key] for key in sorted(by_dom)]
    # The empty sum keeps the graph when no event has a pulse.
    total = sum((leaf.sum() * 0 for leaf in leaves), torch.zeros((), dtype=torch.float64))
    total = sum((dom.square().sum() for dom in ordered), total)
    expected = torch.autograd.grad(total, leaves)
    torch.testing.assert_close(
        sums, torch.stack(ordered) if ordered else sums.new_zeros(0, 4), rtol=1e-12, atol=0
    )
    for i, n in enumerate(counts):
        assert got[i].shape == (n, 4)
        torch.testing.assert_close(got[i], expected[i], rtol=1e-12, atol=1e-12)


@given(counts=lengths(), seed=SEEDS, pool=POOLS, data=st.data())
def test_the_batch_follows_a_reordering_of_events(
    counts: list[int], seed: int, pool: int, data: st.DataObject
) -> None:
    events = make_events(counts, seed, pool=pool)
    order = data.draw(st.permutations(range(len(counts))))
    batch, reordered = collate(events), collate([events[i] for i in order])
    assert reordered.num_doms == batch.num_doms
    for new, old in enumerate(order):
        assert_same(content(reordered, new), content(batch, old))


@given(counts=lengths(), seed=SEEDS, data=st.data())
def test_changing_one_event_leaves_the_others_bit_for_bit(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    counts = [*counts, 3]  # so that there is another one
    events = make_events(counts, seed)
    other = data.draw(st.integers(0, len(counts) - 1))
    length = data.draw(st.sampled_from([0, 1, counts[other], 200]))
    (stranger,) = make_events([length], seed + 1, pool=data.draw(POOLS))
    spoilt = stranger.pulse_features.clone()
    spoilt[:, :2] = torch.nan
    events_too = list(events)
    events_too[other] = changed(stranger, pulse_features=spoilt)
    batch, batch_too = collate(events), collate(events_too)
    assert batch_too.event_ids[other] != batch.event_ids[other] or other == 0
    for i in range(len(counts)):
        if i != other:
            assert_same(content(batch_too, i), content(batch, i))


@given(counts=lengths(), seed=SEEDS, pool=POOLS)
def test_permuting_an_events_pulses_permutes_its_rows_alone(
    counts: list[int], seed: int, pool: int
) -> None:
    events = make_events(counts, seed, pool=pool)
    rng = np.random.default_rng(seed)
    orders = [torch.from_numpy(rng.permutation(n)) for n in counts]
    batch = collate(events)
    permuted = collate(
        [
            changed(e, pulse_features=e.pulse_features[o])
            for e, o in zip(events, orders, strict=True)
        ]
    )
    assert torch.equal(permuted.dom_ids, batch.dom_ids)
    assert torch.equal(permuted.event_dom_counts, batch.event_dom_counts)
    start = 0
    for order in orders:
        rows = start + order
        here = slice(start, start + order.numel())
        start += order.numel()
        assert torch.equal(permuted.pulse_features[here], batch.pulse_features[rows])
        assert torch.equal(permuted.pulse_to_dom_idx[here], batch.pulse_to_dom_idx[rows])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float32])
def test_event_and_sensor_never_overflow(dtype: torch.dtype) -> None:
    # int16 ends at 32,767: event 7 times 5,160 sensors is beyond. Every event has the same two of
    # the highest sensors, so any overflow maps DOMs of different events onto each other.
    n = 3000
    features = torch.tensor([[100, 1, N_SENSORS - 1, 0], [200, 2, N_SENSORS - 2, 1]], dtype=dtype)
    event = Event(pulse_features=features, event_id=1, target=torch.zeros(2))
    batch = collate([event] * n)
    assert n * N_SENSORS > 2**15
    assert batch.num_doms == 2 * n
    assert torch.equal(batch.dom_to_event_idx, torch.arange(n).repeat_interleave(2))
    assert torch.equal(batch.dom_ids, torch.tensor([N_SENSORS - 2, N_SENSORS - 1]).repeat(n))
    expected = torch.arange(2 * n).view(n, 2).flip(1).flatten()
    assert torch.equal(batch.pulse_to_dom_idx, expected)


def test_other_detectors_have_other_numbers_of_sensors() -> None:
    events = make_events([4, 2], 0, pool=1)
    with pytest.raises(
        ValueError, match=r"sensor_id: expected a whole number in 0\.\.99, got 5159"
    ):
        collate(events, n_sensors=100)
    small = [
        changed(e, pulse_features=e.pulse_features - torch.tensor([0, 0, 5060, 0])) for e in events
    ]
    assert collate(small, n_sensors=100).dom_ids.tolist() == [99, 99]
    large = [
        changed(e, pulse_features=e.pulse_features + torch.tensor([0, 0, 70_000, 0]))
        for e in events
    ]
    assert collate(large, n_sensors=100_000).dom_ids.tolist() == [75_159, 75_159]


@pytest.mark.parametrize("wrong", [-1.0, 5160.0, 12.5, -0.5, float("nan"), float("inf"), 1e30])
def test_a_bad_sensor_is_refused_and_named(wrong: float) -> None:
    events = make_events([2, 0, 3, 1], 0)
    features = events[2].pulse_features.clone()
    features[1, SENSOR_ID] = wrong
    place = f"got {np.float32(wrong)} in event {events[2].event_id}, pulse 1"
    for second in (features[2, SENSOR_ID].item(), -7):  # alone, and the first of two
        features[2, SENSOR_ID] = second
        with pytest.raises(ValueError, match=re.escape(place)):
            collate([*events[:2], changed(events[2], pulse_features=features.clone()), events[3]])


def test_a_batch_of_no_events_is_refused() -> None:
    with pytest.raises(ValueError, match="events: expected at least one event, got none"):
        collate([])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pulse_features", torch.zeros(3, 5)),
        ("pulse_to_dom_idx", torch.zeros(2, dtype=torch.int64)),
        ("num_doms", 77),
        ("dom_ids", torch.zeros(0, dtype=torch.int64)),
        ("event_dom_counts", torch.zeros(3, dtype=torch.int64)),
        ("event_ids", torch.zeros(1, 2, dtype=torch.int64)),
        ("targets", torch.zeros(2, 3)),
    ],
)
def test_a_batch_that_contradicts_itself_is_refused(name: str, value: object) -> None:
    batch = collate(make_events([2, 1], 0))
    assert replace(batch).num_doms == batch.num_doms
    with pytest.raises(ValueError, match="Batch.*: expected shape"):
        replace(batch, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (3, 5), (2, 4, 1)])
def test_an_event_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Event.pulse_features: expected shape .n_pulses, 4."):
        Event(pulse_features=torch.zeros(shape), event_id=1, target=torch.zeros(2))
    with pytest.raises(ValueError, match="Event.target: expected shape"):
        Event(pulse_features=torch.zeros(0, 4), event_id=1, target=torch.zeros(shape))


def test_the_bucket_ratio_reaches_the_plan() -> None:
    events = make_events([100, 1, 1], 0, pool=90)
    assert len(collate(events).packing.buckets) == 2
    assert len(collate(events, bucket_ratio=float("inf")).packing.buckets) == 1


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    batch = collate(make_events([3, 0, 2], 0))
    moved = batch.to("meta", non_blocking=True)
    for field in fields(Batch):
        value = getattr(moved, field.name)
        if isinstance(value, PackingPlan):
            tensors = {f.name: getattr(value, f.name) for f in fields(value)}
            assert tensors.pop("buckets") == batch.packing.buckets
            assert len(tensors) >= 3
            assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
        elif isinstance(value, Tensor):
            assert value.device.type == "meta", field.name
            assert value.shape == getattr(batch, field.name).shape
        else:
            assert value == getattr(batch, field.name)
    same = batch.to("cpu")
    assert torch.equal(same.pulse_features, batch.pulse_features)
