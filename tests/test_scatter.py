"""Reductions over groups: both backends against plain loops, in values and gradients."""

import importlib.abc
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from icediag.model import scatter
from icediag.model.scatter import (
    Backend,
    group_count,
    group_max,
    group_mean,
    group_min,
    group_rank,
    group_softmax,
    group_std,
    group_sum,
    resolve_backend,
)
from tests.strategies import SEEDS, close, lengths, members

Reduction = Callable[[Tensor, Tensor, int, Backend], Tensor]

try:
    import torch_scatter  # noqa: F401

    PACKAGE = True
except ImportError:
    PACKAGE = False

needs_package = pytest.mark.skipif(not PACKAGE, reason="torch-scatter is not installed")
BACKENDS: tuple[Backend, ...] = ("native", "torch-scatter")
both_backends = pytest.mark.parametrize(
    "backend", ["native", pytest.param("torch-scatter", marks=needs_package)]
)

REDUCTIONS: dict[str, Reduction] = {
    "sum": group_sum,
    "mean": group_mean,
    "max": group_max,
    "min": group_min,
    "std": group_std,
}
every_reduction = pytest.mark.parametrize("name", REDUCTIONS)


def reduce_one(name: str, rows: Tensor) -> Tensor:
    """One group, `(n, *)` to `(*)`, with plain torch; amax and amin share the gradient of ties."""
    if not rows.numel():
        return rows.sum(0)
    if name == "std" and rows.shape[0] == 1:
        return 0 * rows[0]
    if name == "std":
        alike = (rows == rows[:1]).all(0)
        # The square root has no slope at 0: equal members are replaced by any that differ.
        spread = torch.arange(rows.shape[0]).view(-1, *(1,) * (rows.ndim - 1)).to(rows.dtype)
        return torch.where(alike, 0, torch.where(alike, spread, rows).std(0, correction=0))
    if name in ("max", "min"):
        return rows.amax(0) if name == "max" else rows.amin(0)
    return rows.sum(0) if name == "sum" else rows.mean(0)


def twin(name: str, src: Tensor, index: Tensor, n_groups: int) -> Tensor:
    groups = members(index, n_groups)
    if not groups:
        return src[:0]
    return torch.stack([reduce_one(name, src[rows]) for rows in groups])


def softmax_twin(src: Tensor, index: Tensor, n_groups: int) -> Tensor:
    out = src.clone()
    for rows in members(index, n_groups):
        out[rows] = src[rows].softmax(0)
    return out


def problem(
    counts: Sequence[int], seed: int, rest: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Rows of groups of these sizes, shuffled; halves of small integers, so that many tie."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    src = rng.integers(-4, 5, (index.size, *rest)) / 2
    return torch.from_numpy(src).to(dtype), torch.from_numpy(index)


def using(name: str, index: Tensor, n_groups: int, backend: Backend) -> Callable[[Tensor], Tensor]:
    return lambda src: REDUCTIONS[name](src, index, n_groups, backend)


def value_and_gradient(
    function: Callable[[Tensor], Tensor], src: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    leaf = src.clone().requires_grad_()
    out = function(leaf)
    weights = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 2, out.shape))
    (gradient,) = torch.autograd.grad((out * weights.to(out.dtype)).sum(), leaf)
    return out.detach(), gradient


RESTS = st.sampled_from([(), (3,), (2, 2), (0,), (2, 0)])


@both_backends
@every_reduction
@example(counts=[0], seed=0, rest=(3,))
@example(counts=[], seed=0, rest=())
@example(counts=[2, 0, 5, 1, 0], seed=1, rest=())
@given(counts=lengths(giant=60), seed=SEEDS, rest=RESTS)
def test_reductions_agree_with_a_loop(
    name: str, backend: Backend, counts: list[int], seed: int, rest: tuple[int, ...]
) -> None:
    src, index = problem(counts, seed, rest)
    n = len(counts)
    got = value_and_gradient(using(name, index, n, backend), src, seed)
    expected = value_and_gradient(lambda x: twin(name, x, index, n), src, seed)
    assert got[0].shape == (n, *rest)
    close(got[0], expected[0], 1e-12)
    close(got[1], expected[1], 1e-12)


@both_backends
@given(counts=lengths(giant=60), seed=SEEDS, rest=RESTS)
def test_softmax_agrees_with_a_loop(
    backend: Backend, counts: list[int], seed: int, rest: tuple[int, ...]
) -> None:
    src, index = problem(counts, seed, rest)
    n = len(counts)
    # Far from 0, where exp alone would overflow.
    src = src + 5_000
    got = value_and_gradient(lambda x: group_softmax(x, index, n, backend), src, seed)
    expected = value_and_gradient(lambda x: softmax_twin(x, index, n), src, seed)
    close(got[0], expected[0], 1e-12)
    close(got[1], expected[1], 1e-12)


@given(counts=lengths(giant=60), seed=SEEDS)
def test_counts_agree_with_a_loop(counts: list[int], seed: int) -> None:
    _, index = problem(counts, seed, ())
    assert group_count(index, len(counts)).tolist() == counts


@both_backends
@every_reduction
def test_gradients_agree_with_differences(name: str, backend: Backend) -> None:
    # No ties: differences tell nothing there.
    src = torch.from_numpy(np.random.default_rng(0).permutation(24) * 0.37).reshape(8, 3)
    src.requires_grad_()
    index = torch.tensor([4, 0, 4, 1, 1, 4, 0, 1])  # groups 2 and 3 have no members
    for rows in (src, src[:, 0], src.view(8, 3, 1)):
        assert torch.autograd.gradcheck(using(name, index, 5, backend), [rows])
        assert torch.autograd.gradcheck(lambda x: group_softmax(x, index, 5, backend), [rows])


@both_backends
def test_ties_share_the_gradient_evenly(backend: Backend) -> None:
    src = torch.tensor([3.0, 1.0, 3.0, 1.0, 1.0], requires_grad=True)
    index = torch.tensor([1, 1, 1, 1, 1])
    (gradient,) = torch.autograd.grad(group_max(src, index, 2, backend)[1], src)
    assert gradient.tolist() == [0.5, 0, 0.5, 0, 0]
    (gradient,) = torch.autograd.grad(group_min(src, index, 2, backend)[1], src)
    close(gradient, torch.tensor([0, 1, 0, 1, 1]) / 3, 1e-7)


@both_backends
def test_equal_members_have_no_spread_and_no_gradient(backend: Backend) -> None:
    src = torch.tensor([7.0, 7.0, 5.0], requires_grad=True)
    out = group_std(src, torch.tensor([0, 0, 2]), 3, backend)
    (gradient,) = torch.autograd.grad(out.sum(), src)
    assert out.tolist() == [0, 0, 0]
    assert gradient.tolist() == [0, 0, 0]


@both_backends
def test_a_spread_of_nanoseconds_survives_on_large_times(backend: Backend) -> None:
    times = torch.tensor([84_570.0, 84_572.0, 84_574.0, 84_576.0])
    out = group_std(times, torch.zeros(4, dtype=torch.int64), 1, backend)
    close(out, torch.tensor([5**0.5]), 1e-5)


@both_backends
@every_reduction
def test_a_nan_stays_in_its_group_and_shows_there(name: str, backend: Backend) -> None:
    index = torch.tensor([0, 2, 0, 2, 3])
    for rest in ((), (2,)):
        src = torch.tensor([1.0, 2.0, 4.0, 3.0, 5.0]).view(-1, *(1,) * len(rest)).repeat(1, *rest)
        clean = REDUCTIONS[name](src, index, 4, backend)
        spoilt = src.clone()
        spoilt[0] = torch.nan
        out, gradient = value_and_gradient(using(name, index, 4, backend), spoilt)
        assert out[0].isnan().all()
        assert torch.equal(out[1:], clean[1:])
        assert gradient[[1, 3, 4]].isfinite().all()


@both_backends
def test_an_extreme_may_be_infinite(backend: Backend) -> None:
    inf = torch.inf
    src = torch.tensor([-inf, -inf, inf, 1.0, inf, -inf])
    index = torch.tensor([0, 0, 1, 1, 2, 4])
    assert group_max(src, index, 5, backend).tolist() == [-inf, inf, inf, 0, -inf]
    assert group_min(src, index, 5, backend).tolist() == [-inf, 1, inf, 0, -inf]
    nan_too = torch.tensor([-inf, torch.nan])
    for reduce in (group_max, group_min):
        assert reduce(nan_too, torch.tensor([0, 0]), 1, backend).isnan().all()
    # The -inf of a mask weighs nothing.
    weights = group_softmax(src[[0, 3]], torch.tensor([0, 0]), 1, backend)
    assert weights.tolist() == [0, 1]


@both_backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_to_the_number_of_rows(
    dtype: torch.dtype, backend: Backend
) -> None:
    # 70,000 is beyond float16, 257 beyond bfloat16's integers, and 300 squared beyond float16.
    n = 70_000
    src = torch.tensor([300.0, -298.0]).repeat(n // 2).to(dtype)
    index = torch.zeros(n, dtype=torch.int64)
    expected = {"mean": 1.0, "std": 299.0, "max": 300.0, "min": -298.0}
    for name, value in expected.items():
        out = REDUCTIONS[name](src, index, 1, backend)
        assert out.dtype == dtype
        close(out.float(), torch.tensor([value]).to(dtype).float(), 1e-6)
    ones = torch.ones(60_000, dtype=dtype)
    total = group_sum(ones, index[:60_000], 1, backend)
    assert total.dtype == dtype
    assert total.item() == torch.tensor(60_000.0).to(dtype).item()
    weights = group_softmax(torch.ones(n, dtype=dtype), index, 1, backend)
    assert weights.dtype == dtype
    assert (weights == torch.tensor(1 / n).to(dtype)).all()


@both_backends
def test_half_precision_shares_the_gradient_of_thousands_of_ties(backend: Backend) -> None:
    src = torch.ones(4096, 2, dtype=torch.bfloat16)
    index = torch.zeros(4096, dtype=torch.int64)
    for reduce in (group_max, group_min):
        leaf = src.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(reduce(leaf, index, 1, backend).sum(), leaf)
        assert gradient.dtype == torch.bfloat16
        assert (gradient == 1 / 4096).all()


@needs_package
@every_reduction
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@given(counts=lengths(giant=60), seed=SEEDS, rest=RESTS)
def test_backends_agree(
    name: str, dtype: torch.dtype, counts: list[int], seed: int, rest: tuple[int, ...]
) -> None:
    src, index = problem(counts, seed, rest, dtype)
    rounding = 4 * torch.finfo(dtype).eps
    native, package = (
        value_and_gradient(using(name, index, len(counts), backend), src, seed)
        for backend in BACKENDS
    )
    assert native[0].dtype == native[1].dtype == dtype
    close(package[0], native[0], rounding)
    close(package[1], native[1], rounding)


@pytest.mark.parametrize("reduce", [*REDUCTIONS.values(), group_softmax])
def test_an_index_that_does_not_fit_is_refused(reduce: Reduction) -> None:
    src = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="index: expected one group number"):
        reduce(src, torch.zeros(2, dtype=torch.int64), 1, "native")
    with pytest.raises(ValueError, match="index: expected one group number"):
        reduce(src, torch.zeros(3, 2, dtype=torch.int64), 1, "native")
    with pytest.raises(ValueError, match="n_groups: expected 0 or more, got -1"):
        reduce(src, torch.zeros(3, dtype=torch.int64), -1, "native")


class TestRank:
    @staticmethod
    def twin(key: Tensor, index: Tensor) -> list[int]:
        rows = list(zip(key.tolist(), index.tolist(), strict=True))
        return [sum(g == group and k < own for k, g in rows) for own, group in rows]

    @example(counts=[0], seed=0)
    @example(counts=[3, 0, 2], seed=0)
    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_ranks_agree_with_a_loop(self, counts: list[int], seed: int) -> None:
        key, index = problem(counts, seed, ())
        ranks = group_rank(key, index, len(counts))
        assert ranks.dtype == torch.int64
        assert ranks.tolist() == self.twin(key, index)

    def test_equal_keys_share_a_rank_in_any_order(self) -> None:
        key = torch.tensor([5.0, 2.0, 5.0, 2.0, 9.0, 2.0])
        index = torch.tensor([1, 1, 1, 0, 1, 0])
        assert group_rank(key, index, 2).tolist() == [1, 0, 1, 0, 3, 0]


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The package is looked for anew, before and after."""
    scatter._torch_scatter.cache_clear()
    yield
    scatter._torch_scatter.cache_clear()


class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A package that is found and cannot be loaded."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "torch_scatter" else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        raise self.error


@pytest.mark.usefixtures("forgotten")
class TestBackend:
    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="backend: expected one of auto, nat.*'x'"):
            resolve_backend("x")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="backend: expected one of"):
            group_sum(torch.zeros(1), torch.zeros(1, dtype=torch.int64), 1, "x")  # type: ignore[arg-type]

    @needs_package
    def test_auto_takes_the_package_where_it_is(self) -> None:
        assert resolve_backend("auto") == "torch-scatter"
        assert resolve_backend("torch-scatter") == "torch-scatter"
        assert resolve_backend("native") == "native"

    @needs_package
    @pytest.mark.parametrize("name", ["sum", "max", "min"])
    def test_the_backend_asked_for_is_the_one_that_works(
        self, name: Literal["sum", "max", "min"], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        package = scatter._torch_scatter()
        plain = getattr(package, f"scatter_{name}")

        def counted(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return plain(*args, **kwargs)

        monkeypatch.setattr(package, f"scatter_{name}", counted)
        src, index = torch.ones(2), torch.zeros(2, dtype=torch.int64)
        REDUCTIONS[name](src, index, 1, "native")
        assert not calls
        either: tuple[Backend, ...] = ("auto", "torch-scatter")
        for backend in either:
            calls.clear()
            REDUCTIONS[name](src, index, 1, backend)
            assert name in calls

    def test_without_the_package_auto_is_native_and_says_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch_scatter", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert resolve_backend("auto") == "native"
        with pytest.raises(ValueError, match="torch-scatter is asked for .* icediag.scatter."):
            resolve_backend("torch-scatter")

    @pytest.mark.parametrize(
        "error",
        [
            OSError("libc10.so: undefined symbol: _ZN3c105Error\nand more"),
            ImportError("Could not find module '_version_cpu'"),
            RuntimeError("Detected that PyTorch and torch_scatter were compiled with different"),
            OSError(),
        ],
        ids=["other torch", "no library", "other CUDA", "no message"],
    )
    def test_a_broken_package_is_told_of_and_passed_by(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
        with pytest.warns(RuntimeWarning, match="torch-scatter is installed but cannot") as told:
            assert resolve_backend("auto") == "native"
        message = str(told[0].message)
        assert str(error).split("\n")[0] in message
        assert "\n" not in message
        # Told once, not at every call.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            out = group_max(torch.tensor([2.0, 3.0]), torch.tensor([0, 0]), 1)
        assert out.tolist() == [3]
        with pytest.raises(ValueError, match="torch-scatter is asked for"):
            resolve_backend("torch-scatter")
