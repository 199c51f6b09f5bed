"""Lengths, indices and padding masks are told by counting; what only looks like them is not."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from icediag.instruments.shapes.axes import Axes
from icediag.instruments.shapes.ragged import QUANTILES, Ragged, find_padding, find_ragged

LENGTHS = st.one_of(
    st.lists(st.integers(0, 9), min_size=2, max_size=12),
    st.builds(lambda n, k: [n] * k, st.integers(1, 6), st.integers(2, 8)),
    st.builds(lambda few: [*few, 300], st.lists(st.integers(0, 3), min_size=1, max_size=6)),
)


def named(**sizes: int) -> Axes:
    axes = Axes()
    for i, (name, size) in enumerate(sizes.items()):
        axes.add(name, (size, 1000 + i))
    return axes


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
@given(lengths=LENGTHS)
def test_lengths_and_index_are_recognised(dtype: torch.dtype, lengths: list[int]) -> None:
    n, rows = len(lengths), sum(lengths)
    assume(rows > n)
    axes = named(rows=rows, groups=n)
    [found] = find_ragged([("counts", torch.tensor(lengths, dtype=dtype))], axes)
    assert (found.inner, found.outer, found.lengths.tolist()) == ("rows", "groups", lengths)
    index = torch.repeat_interleave(torch.arange(n), torch.tensor(lengths)).to(dtype)
    by_index = find_ragged([("index", index)], axes)
    # Where the last group or most are empty, or all but one have one row, an index does not tell.
    assume(lengths[-1] > 0 and sum(length > 0 for length in lengths) * 2 >= n)
    assume(sum(length != 1 for length in lengths) > 1)
    assert [(r.inner, r.outer, r.lengths.tolist()) for r in by_index] == [
        ("rows", "groups", lengths)
    ]


def test_an_order_of_rows_is_no_grouping() -> None:
    # Slots that take a row each, and padding that takes row 0.
    order = torch.tensor([0, 0, 0, *torch.randperm(50, generator=torch.manual_seed(0)).tolist()])
    assert find_ragged([("row_of_slot", order)], named(slots=53, rows=50)) == []
    grouped = torch.tensor([*range(50), 3, 7, 7])
    [found] = find_ragged([("row_of_slot", grouped)], named(slots=53, rows=50))
    assert (found.inner, found.outer) == ("slots", "rows")


@given(LENGTHS)
def test_quantiles_are_lengths_that_occur(lengths: list[int]) -> None:
    found = Ragged("rows", "groups", torch.tensor(lengths)).record()
    assert list(found.quantiles) == [f"{q:g}" for q in QUANTILES]
    twin = np.quantile(lengths, QUANTILES, method="lower")
    assert list(found.quantiles.values()) == twin.tolist()
    assert set(found.quantiles.values()) <= set(lengths)
    assert (found.quantiles["0"], found.quantiles["1"]) == (min(lengths), max(lengths))
    assert found.mean == pytest.approx(sum(lengths) / len(lengths))
    assert (found.groups, found.title) == (len(lengths), "rows per group")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1, 0, 1, 1, 0]),  # flags
        torch.tensor([7, 19, 3, 4, 2]),  # ids of no sum and no end that fits
        torch.tensor([0, 0, 0, 0, 11]),  # ids that end where the rows do, with gaps
        torch.tensor([-1, 3, 4, 3, 3]),  # a sum that fits, with a negative length
        torch.tensor([2.0, 3.0, 4.0, 1.0, 2.0]),  # no whole numbers
        torch.tensor([True, True, False, True, True]),
        torch.tensor([[2, 3, 4, 1, 2]]),
        torch.empty(0, dtype=torch.int64),
        torch.tensor([12]),  # one length is a coincidence
        torch.arange(12),  # a row's own number
    ],
)
def test_flags_and_ids_are_no_lengths(tensor: Tensor) -> None:
    assert find_ragged([("x", tensor)], named(rows=12, groups=5, one=1)) == []


def test_lengths_of_an_axis_without_a_name_are_not_used() -> None:
    assert find_ragged([("x", torch.tensor([2, 3]))], named(rows=9, groups=7)) == []


def ragged(lengths: list[int]) -> list[Ragged]:
    return [Ragged("doms", "events", torch.tensor(lengths))]


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("padding_is", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_padding_of_both_polarities(cls: bool, padding_is: bool, flat: bool) -> None:
    lengths = [3, 0, 7, 1]
    used = sum(lengths) + (len(lengths) if cls else 0)
    # A rectangle, or slots of buckets laid end to end.
    slots = 20 if flat else len(lengths) * (7 + cls)
    held = slots - used if padding_is else used
    [found] = find_padding([("collate", "mask", slots, held)], ragged(lengths))
    assert (found.slots, found.used, found.padding_is) == (slots, used, padding_is)
    assert found.holds == ("doms + events" if cls else "doms")
    assert found.padding_share == pytest.approx(1 - used / slots)
    assert (found.stage, found.path) == ("collate", "mask")


@pytest.mark.parametrize(("slots", "held"), [(30, 0), (30, 30), (11, 11), (30, 10), (30, 16)])
def test_other_truth_values_are_no_masks(slots: int, held: int) -> None:
    assert list(find_padding([("s", "flags", slots, held)], ragged([3, 0, 7, 1]))) == []
