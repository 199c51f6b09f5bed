"""Value facts against a slow, independent twin in plain Python."""

import math
import statistics
import threading
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from icediag.instruments.recorder import pieces
from icediag.instruments.recorder.pieces import PIECE
from icediag.instruments.recorder.values import (
    SAMPLED,
    Values,
    _facts,
    _on_device,
    _sample,
    merge,
)
from icediag.instruments.trees.layouts import ragged_axes, sizes_of
from icediag.recording import Facts

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
INF = math.inf


def facts_of(tensor: Tensor) -> Facts:
    values = Values()
    assert values.add(tensor) == 0
    [facts] = values.collect()
    assert isinstance(facts, Facts), facts
    return facts


def on_device(tensor: Tensor) -> Facts:
    """What a GPU would give: the path without branches, run here."""
    facts, exact = _on_device(tensor)
    bounds = None if exact is None else exact.tolist()
    return _facts(tensor.numel(), _sample(tensor).numel(), facts.tolist(), bounds)


def twin(values: Sequence[int | float]) -> Facts:
    """Facts by Python's exact fractions."""
    finite = sorted(v for v in values if math.isfinite(v))
    known: dict[str, Any] = {}
    if finite:
        mean = sum(map(Fraction, finite), Fraction(0)) / len(finite)
        squares = [(Fraction(v) - mean) * (Fraction(v) - mean) for v in finite]
        variance = sum(squares, Fraction(0)) / len(finite)
        known = {
            "minimum": finite[0],
            "maximum": finite[-1],
            "median": statistics.median_low(finite),
            "median_of": len(values),
            "mean": float(mean),
            "std": _root(variance),
        }
    return Facts(
        count=len(values),
        zeros=sum(v == 0 for v in values),
        nans=sum(v != v for v in values),
        positive_infs=sum(v == INF for v in values),
        negative_infs=sum(v == -INF for v in values),
        **known,
    )


def _root(fraction: Fraction) -> float:
    """Square root of what may be beyond a double's range."""
    if not fraction:
        return 0.0
    shift = 2 * ((fraction.numerator.bit_length() - fraction.denominator.bit_length()) // 2)
    scaled = fraction / Fraction(2) ** shift
    return math.sqrt(scaled) * 2.0 ** (shift // 2)


def check(got: Facts, expected: Facts, tolerance: float = 1e-5) -> None:
    exact = [*("count", "zeros", "nans", "positive_infs", "negative_infs")]
    exact += [*("median_of", "minimum", "maximum", "median")]
    assert {n: getattr(got, n) for n in exact} == {n: getattr(expected, n) for n in exact}
    for name in ("minimum", "maximum", "median"):
        assert type(getattr(got, name)) is type(getattr(expected, name))
    if expected.mean is None or expected.std is None:
        assert got.mean is None and got.std is None
        return
    assert got.mean is not None and got.std is not None
    assert got.minimum is not None and expected.maximum is not None
    size = max(abs(float(got.minimum)), abs(float(expected.maximum)))
    spread = float(expected.maximum) / 2 - float(got.minimum) / 2
    assert abs(got.mean - expected.mean) <= tolerance * spread + 1e-12 * size
    assert abs(got.std - expected.std) <= tolerance * spread + 1e-7 * size


finite = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, 3e38, -3e38]),
    st.floats(-1e4, 1e4, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
mixed = st.one_of(finite, st.sampled_from([math.nan, INF, -INF]))


@st.composite
def float_tensors(draw: st.DrawFn, values: st.SearchStrategy[float] = mixed) -> Tensor:
    dtype = draw(st.sampled_from(FLOATS))
    wide = draw(st.lists(values, min_size=1, max_size=40))
    tensor = torch.tensor(wide, dtype=torch.float64).to(dtype)
    layout = draw(st.sampled_from(["flat", "scalar", "transposed", "expanded", "strided"]))
    if layout == "scalar":
        return tensor[0]
    if layout == "transposed":
        return tensor.repeat(3).view(3, -1).t()
    if layout == "expanded":
        return tensor[:, None].expand(-1, 3)
    return tensor[::2] if layout == "strided" else tensor


@given(float_tensors())
@example(torch.tensor([math.nan] * 3))
@example(torch.tensor([0.0, -INF, -INF]))
@example(torch.tensor([1e-30, 3e-30, 5e-30]))
@example(torch.tensor([3e38, -3e38, 1.0]))
@example(torch.tensor([1e308, 1e308, -1e308], dtype=torch.float64))
@example(torch.tensor([1e300, 2e300], dtype=torch.float64))
@example(torch.tensor([1e8, 0.5, 0.25, 0.5]))
@example(torch.full((7,), 10_000.0) + torch.arange(7))
def test_floats(tensor: Tensor) -> None:
    expected = twin(tensor.double().reshape(-1).tolist())
    check(facts_of(tensor), expected)
    check(on_device(tensor), expected)


@given(
    st.sampled_from(WHOLE).flatmap(
        lambda dtype: st.lists(
            st.integers(torch.iinfo(dtype).min, torch.iinfo(dtype).max), min_size=1, max_size=30
        ).map(lambda values: torch.tensor(values, dtype=dtype))
    )
)
@example(torch.tensor([2**62 + 1, 2**62 + 3, 2**53 + 1]))
def test_whole_numbers_are_exact(tensor: Tensor) -> None:
    expected = twin(tensor.tolist())
    check(facts_of(tensor), expected)
    check(on_device(tensor), expected)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_truth_values_count_as_0_and_1(values: list[bool]) -> None:
    expected = twin([int(v) for v in values])
    check(facts_of(torch.tensor(values)), expected)
    check(on_device(torch.tensor(values)), expected)


def test_additive_mask() -> None:
    mask = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1) > 0, -INF)
    facts = facts_of(mask)
    assert facts.additive_mask
    assert (facts.minimum, facts.maximum, facts.median, facts.std) == (0.0, 0.0, 0.0, 0.0)
    assert (facts.zeros, facts.negative_infs) == (10, 6)
    assert not facts_of(torch.zeros(3)).additive_mask
    assert not facts_of(torch.tensor([0.0, -INF, 1.0])).additive_mask
    assert not facts_of(torch.tensor([0.0, INF])).additive_mask


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_empty(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert facts_of(torch.empty(shape, dtype=dtype)) == Facts(count=0)


@pytest.mark.parametrize("columns", [1, 7, 128])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "expanded"])
def test_a_large_tensor_has_exact_bounds_and_a_median_of_a_sample(
    columns: int, layout: str
) -> None:
    rows = (3 * PIECE + 11) // columns
    generator = torch.Generator().manual_seed(0)
    # Columns differ by far: a sample that saw some columns only would be off.
    tensor = torch.randn(rows, columns, generator=generator) + 10 * torch.arange(columns)
    if layout == "transposed":
        tensor = tensor.t()
    elif layout == "expanded":
        tensor = tensor[:, :1].expand(-1, columns)
    facts = facts_of(tensor)
    values = np.sort(tensor.reshape(-1).double().numpy())
    assert facts.count == values.size
    assert (facts.minimum, facts.maximum) == (values[0], values[-1])
    assert facts.mean == pytest.approx(values.mean(), rel=1e-6, abs=1e-6)
    assert facts.std == pytest.approx(values.std(), rel=1e-6)
    # At 4,096 values the sd of the sample's quantile is 0.8 %.
    assert SAMPLED / 2 < facts.median_of < 2 * SAMPLED
    assert facts.median is not None
    assert 0.48 < np.searchsorted(values, facts.median) / values.size < 0.52
    check(on_device(tensor), facts)


def test_one_value_that_is_not_finite_in_a_large_tensor() -> None:
    tensor = torch.ones(2 * PIECE + 5)
    tensor[-1], tensor[PIECE] = math.nan, INF
    facts = facts_of(tensor)
    assert (facts.nans, facts.positive_infs, facts.minimum, facts.mean) == (1, 1, 1.0, 1.0)


@pytest.mark.parametrize("last", [0.5, math.nan, INF])
def test_facts_are_the_same_on_any_number_of_threads(
    last: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.randn(7 * 1000 + 3, generator=torch.Generator().manual_seed(0)) + 0.3
    tensor[::9], tensor[-1] = 0.0, last
    monkeypatch.setattr(pieces, "PIECE", 1000)
    monkeypatch.setattr(pieces, "SHARED", 2000)
    found, working = [], set()
    sums = pieces._Desk.sums

    def noted(desk: Any, values: Any, shift: float) -> Any:
        working.add(threading.get_ident())
        return sums(desk, values, shift)

    monkeypatch.setattr(pieces._Desk, "sums", noted)
    for threads in (1, 2, 3, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(facts_of(tensor))
    assert len(working) > 1
    assert len(set(found)) == 1
    check(found[0], twin(tensor.tolist()))


def test_small_spread_far_from_zero_survives() -> None:
    tensor = 1e6 + torch.arange(1000).float() % 2
    assert facts_of(tensor).std == pytest.approx(0.5, rel=1e-6)


def test_what_has_no_values_says_why() -> None:
    values = Values()
    tensors = [torch.empty(3, device="meta"), torch.ones(2, dtype=torch.complex64), torch.ones(2)]
    for i, tensor in enumerate(tensors):
        assert values.add(tensor) == i
    *reasons, facts = values.collect()
    assert [str(reason).split()[0] for reason in reasons] == ["meta", "complex"]
    assert isinstance(facts, Facts)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_all_their_values(layout: torch.layout) -> None:
    pieces = [torch.randn(n, 3) for n in (2, 5, 1)]
    nested = torch.nested.nested_tensor(pieces, layout=layout)
    assert facts_of(nested) == facts_of(torch.cat(pieces).reshape(-1))
    assert sizes_of(nested) == (3, 5, 3)
    assert ragged_axes(nested) == [False, True, False]


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.5, -2.0, 4.0]), min_size=1, max_size=24),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
@example([0.0], torch.float32)
@example([1.5, -2.0], torch.int64)
def test_sparse_tensors_count_the_zeros_that_they_do_not_store(
    numbers: list[float], dtype: torch.dtype
) -> None:
    dense = torch.tensor([numbers, numbers[::-1]]).to(dtype)
    expected = facts_of(dense)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some layouts are new
        stored = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()]
    for sparse in stored:
        facts = facts_of(sparse)
        for name in ("count", "minimum", "maximum", "zeros", "nans"):
            assert getattr(facts, name) == getattr(expected, name)
            assert type(getattr(facts, name)) is type(getattr(expected, name))
        assert facts.mean == pytest.approx(expected.mean, abs=1e-6)
        assert facts.std == pytest.approx(expected.std, abs=1e-6)
        if facts.zeros > facts.count / 2 and facts.zeros < facts.count:
            assert facts.median == 0
        elif facts.median is not None:
            assert facts.median == expected.median  # nothing was left out, or everything


class Tagged(Tensor):
    """A subclass of the user's own that knows none of our operations."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("contiguous", "view", "isfinite", "amin"):
            raise NotImplementedError("no such operation\nhere")
        known: Any = super()
        return known.__torch_function__(func, types, args, kwargs or {})


class Wrapped(Tensor):
    """One that holds another tensor, and has no values of its own."""

    @staticmethod
    def __new__(cls) -> "Wrapped":
        made: Wrapped = Tensor._make_wrapper_subclass(cls, (3,))
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError("no such operation\nhere")


def test_a_subclass_is_what_it_holds() -> None:
    tensor = torch.tensor([1.0, math.nan, -3.0])
    assert facts_of(tensor.as_subclass(Tagged)) == facts_of(tensor)


def test_a_subclass_that_cannot_be_read_says_why() -> None:
    values = Values()
    values.add(Wrapped())
    values.add(torch.ones(3))
    reason, facts = values.collect()
    assert reason == "values cannot be read: no such operation"
    assert facts == facts_of(torch.ones(3))


def test_nothing_is_changed_or_kept() -> None:
    tensor = torch.randn(5, requires_grad=True)
    before = tensor.detach().clone()
    facts_of(tensor)
    assert tensor._version == 0 and tensor.requires_grad
    assert torch.equal(tensor.detach(), before)


@given(
    st.lists(mixed, min_size=0, max_size=12),
    st.lists(mixed, min_size=0, max_size=12),
)
@example([1e300], [-1e300])
@example([], [1.0])
@example([math.nan], [1.0])
def test_merge_is_the_facts_of_the_concatenation(first: list[float], second: list[float]) -> None:
    one, other = (torch.tensor(v, dtype=torch.float64) for v in (first, second))
    merged = merge(facts_of(one), facts_of(other))
    whole = facts_of(torch.cat([one, other]))
    exact = ("count", "zeros", "nans", "positive_infs", "negative_infs", "minimum", "maximum")
    assert {n: getattr(merged, n) for n in exact} == {n: getattr(whole, n) for n in exact}
    if whole.minimum is None or whole.maximum is None:
        assert merged.mean is merged.std is merged.median is None
        return
    assert whole.mean is not None and whole.std is not None
    assert merged.mean is not None and merged.std is not None and merged.median is not None
    spread = whole.maximum / 2 - whole.minimum / 2
    size = max(abs(whole.maximum), abs(whole.minimum))
    assert abs(merged.mean - whole.mean) <= 1e-9 * spread + 1e-12 * size
    assert abs(merged.std - whole.std) <= 1e-6 * spread + 1e-7 * size
    assert whole.minimum <= merged.median <= whole.maximum


def test_merge_keeps_exact_whole_numbers() -> None:
    facts = facts_of(torch.tensor([2**62 + 1]))
    assert merge(facts, facts).median == 2**62 + 1
    assert merge(facts, facts).minimum == 2**62 + 1
