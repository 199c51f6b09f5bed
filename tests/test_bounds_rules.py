"""Interval rules: no value leaves its interval, intervals say something, every rule is met."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from icediag.instruments.bounds.calls import RULES, Call
from icediag.instruments.bounds.intervals import INF, Interval
from icediag.instruments.bounds.propagate import Propagation
from tests.bounds_programs import PROGRAMS, Encoder

#: Rules that no small program on a CPU comes by: kernels of other devices, and names that torch
#: takes apart before they are dispatched, kept because other versions of torch do not.
ELSEWHERE = {
    "unsafe_split",
    "contiguous",
    "lift",
    "to",
    "reshape",
    "matmul",
    "inner",
    "softmax",
    "log_softmax",
    "layer_norm",
    "rms_norm",
    "clip",
    "true_divide",
    "max_of_two",
    "min_of_two",
    "median_whole",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "_native_batch_norm_legit_no_training",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "scaled_dot_product_attention",
    "cdist",
    "_pdist_forward",
    "conv1d",
    "conv2d",
    "conv3d",
    "_convolution",
    "mkldnn_convolution",
    "mkldnn_adaptive_avg_pool2d",
    "cross",
    "tril_indices",
    "nonzero",
    "nonzero_static",
    "unique",
    "_unique2",
    "bincount",
    "_pin_memory",
    "alias",
    "detach",
    "lift_fresh",
    "positive",
    "linear",
    "norm",
    "square",
    "outer",
    "ger",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "adaptive_max_pool1d",
    "_adaptive_avg_pool3d",
    "take_along_dim",
    "unfold",
    "repeat_interleave",
    "isfinite",
    "isclose",
    "argsort",
    "_fused_rms_norm",
    "_unsafe_view",
    "_native_batch_norm_legit",
    "_unsafe_index_put",
    "special_xlog1py",
}


def flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)


def ends(
    program: Callable[..., Any], inputs: list[Interval], dtype: torch.dtype = torch.float32
) -> tuple[list[Interval], Propagation]:
    """Intervals of what a program gives for inputs within these."""
    propagation = Propagation()
    tensors = []
    for interval in inputs:
        middle = torch.nan_to_num((interval.lo + interval.hi) / 2).clamp(interval.lo, interval.hi)
        tensor = middle.to(dtype)
        propagation.bound(tensor, interval.lo, interval.hi)
        tensors.append(tensor)
    with propagation.running():
        results = list(flat(program(*tensors)))
        with propagation.aside():
            found = [propagation.shadows.interval(result) for result in results]
            found = [Interval(i.lo.clone(), i.hi.clone()) for i in found]
    return found, propagation


def assert_inside(results: list[Tensor], intervals: list[Interval], what: str) -> None:
    assert len(results) == len(intervals)
    for number, (result, interval) in enumerate(zip(results, intervals, strict=True)):
        value = result.detach().double()
        outside = ((value < interval.lo) | (value > interval.hi)) & ~value.isnan()
        if bool(outside.any()):
            at = outside.nonzero()[0].tolist()
            lo, hi = (
                end.expand(value.shape)[tuple(at)].item() for end in (interval.lo, interval.hi)
            )
            raise AssertionError(
                f"{what}[{number}] at {at}: {value[tuple(at)].item()!r} not in [{lo!r}, {hi!r}]"
            )


def samples(interval: Interval, dtype: torch.dtype, seed: int) -> Tensor:
    """Values within an interval: ends, zeros where there are, and points between."""
    generator = torch.Generator().manual_seed(seed)
    lo, hi = interval.lo.clamp_min(-30), interval.hi.clamp_max(30)
    share = torch.rand(lo.shape, generator=generator, dtype=torch.float64)
    pick = torch.randint(0, 4, lo.shape, generator=generator)
    value = torch.where(pick == 0, lo, torch.where(pick == 1, hi, lo + share * (hi - lo)))
    value = torch.where((pick == 3) & (lo <= 0) & (hi >= 0), 0.0, value)
    out = value.to(dtype)
    # Rounded, a value may lie outside of ends that the type does not have.
    return torch.where(out.double() < interval.lo, interval.hi.to(dtype), out).clamp(
        interval.lo.to(dtype), interval.hi.to(dtype)
    )


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    """A (4, 6) interval: wide, narrow, points, of one sign, or without ends."""
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    scale = draw(st.sampled_from([0.05, 0.5, 1.0, 4.0]))
    shift = draw(st.sampled_from([0.0, 0.0, 0.7, -1.5, 3.0]))
    width = draw(st.sampled_from([0.0, 0.01, 1.0, 5.0]))
    centre = torch.randn(4, 6, generator=generator, dtype=torch.float64) * scale + shift
    half = torch.rand(4, 6, generator=generator, dtype=torch.float64) * width
    lo, hi = centre - half, centre + half
    kind = draw(st.sampled_from(["as is", "as is", "positive", "one end", "free"]))
    if kind == "positive":
        lo, hi = lo.abs(), lo.abs() + 2 * half
    elif kind == "one end":
        hi = torch.full_like(hi, INF)
    elif kind == "free":
        lo, hi = torch.full_like(lo, -INF), torch.full_like(hi, INF)
    return Interval(lo.float().double(), hi.float().double())


def check(
    program: Callable[..., Any],
    x: Interval,
    y: Interval,
    what: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    found, _ = ends(program, [x, y], dtype)
    for seed in range(3):
        a, b = samples(x, dtype, seed), samples(y, dtype, seed + 100)
        torch.manual_seed(0)
        with torch.no_grad():
            results = list(flat(program(a, b)))
        assert_inside(results, found, what)


@pytest.mark.parametrize("name", PROGRAMS)
@given(x=intervals(), y=intervals())
def test_no_value_leaves_its_interval(name: str, x: Interval, y: Interval) -> None:
    check(PROGRAMS[name], x, y, name)


#: Programs of one result of the shape they take, to be put one behind the other.
STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y.abs() + 0.1),
    "tanh": lambda x, y: x.tanh(),
    "gelu": lambda x, y: f.gelu(x),
    "norm": lambda x, y: f.layer_norm(x, (6,)),
    "normalize": lambda x, y: f.normalize(x),
    "linear": lambda x, y: x @ torch.linspace(-1, 1, 36).view(6, 6),
    "softmax": lambda x, y: x.softmax(1),
    "square": lambda x, y: x * x,
    "sqrt": lambda x, y: x.abs().sqrt(),
    "log1p": lambda x, y: x.abs().log1p(),
    "sin": lambda x, y: x.sin(),
    "where": lambda x, y: torch.where(x > y, x, -y),
    "swap": lambda x, y: x.flip(0),
    "write": lambda x, y: put_row(x, y),
    "group": lambda x, y: torch.zeros(4, 6).index_add(0, torch.tensor([0, 0, 3, 1]), x),
    "share": lambda x, y: x.abs() / x.abs().sum(0, keepdim=True).clamp_min(1e-6),
    "centre": lambda x, y: x - x.mean(1, keepdim=True),
    "product": lambda x, y: (x @ y.t()) @ x,
    "remainder": lambda x, y: x % 2.5,
    "atan2": lambda x, y: torch.atan2(x, y),
    "pick": lambda x, y: x.gather(1, y.argsort(1)),
    "cummax": lambda x, y: x.cummax(1).values,
    "clamp": lambda x, y: x.clamp(-2, 2),
}


def put_row(x: Tensor, y: Tensor) -> Tensor:
    out = x.clone()
    out[1] = y[2]
    out[:, 3].mul_(2)
    return out


@given(
    x=intervals(),
    y=intervals(),
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=6),
    swaps=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_no_value_leaves_its_interval_in_random_programs(
    x: Interval, y: Interval, steps: list[str], swaps: list[bool]
) -> None:
    def program(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        seen = []
        for step, swap in zip(steps, swaps, strict=False):
            a, b = (STEPS[step](a, b), a) if swap else (STEPS[step](a, b), b)
            seen.append(a)
        return tuple(seen)

    x, y = (Interval(i.lo.clamp(-20, 20), i.hi.clamp(-20, 20)) for i in (x, y))
    check(program, x, y, " ".join(steps))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name", ["add", "mul", "tanh", "sigmoid", "softmax", "gelu", "sums", "products", "exp", "casts"]
)
def test_other_types(name: str, dtype: torch.dtype) -> None:
    program: Callable[..., Any] = PROGRAMS.get(name, lambda x, y: x.softmax(1))
    if name == "products":
        program = lambda x, y: (x @ y.t(), x[0].dot(y[0]))  # noqa: E731
    if name == "sums":
        program = lambda x, y: (x.sum(1), x.mean(), x.cumsum(1), x.std(1))  # noqa: E731
    lo = torch.linspace(-2, 1, 24, dtype=torch.float64).view(4, 6).to(dtype).double()
    check(program, Interval(lo, (lo + 0.5).to(dtype).double()), Interval(lo, lo), name, dtype)


def free(shape: tuple[int, ...] = (4, 6)) -> Interval:
    return Interval(torch.full(shape, -INF).double(), torch.full(shape, INF).double())


@pytest.mark.parametrize(
    ("program", "low", "high"),
    [
        (lambda x: math.pi * (1 + x.tanh()), 0, 2 * math.pi),
        (lambda x: math.pi * x.sigmoid(), 0, math.pi),
        (lambda x: x.softmax(1), 0, 1),
        (lambda x: f.layer_norm(x, (6,)), -math.sqrt(5), math.sqrt(5)),
        (lambda x: f.normalize(x), -1, 1),
        (lambda x: x / x.norm(dim=1, keepdim=True).clamp_min(1e-6), -1, 1),
        (lambda x: x / (x * x).sum(1, keepdim=True).sqrt().clamp_min(1e-6), -1, 1),
        (lambda x: x / (1 + x.abs()), -1, 1),
        (lambda x: x / x.abs().amax(1, keepdim=True).clamp_min(1e-6), -1, 1),
        (lambda x: (a := x.abs()) / a.sum(1, keepdim=True).clamp_min(1e-6), 0, 1),
        (lambda x: torch.atan2(x[:, 0], x[:, 1]), -math.pi, math.pi),
        (lambda x: torch.atan2(x[:, 0], x[:, 1]) % (2 * math.pi), 0, 2 * math.pi),
        (lambda x: x.norm(dim=1).atan2(x[:, 0]), 0, math.pi),
        (lambda x: x.sin(), -1, 1),
        (lambda x: f.gelu(x.tanh()), -0.1701, 0.8414),
        (lambda x: torch.bmm(x.softmax(1)[None], x.sigmoid().t()[None].contiguous()), 0, 1),
        (lambda x: f.cosine_similarity(x, x.flip(0)), -6.001, 6.001),
        (lambda x: x.acos(), 0, math.pi),
    ],
)  # fmt: skip
def test_bounds_for_any_input_are_tight(
    program: Callable[[Tensor], Tensor], low: float, high: float
) -> None:
    (found,), propagation = ends(program, [free()])
    assert not propagation.unproved
    slack = 1e-5 * max(1, abs(low), abs(high))
    assert low - slack <= float(found.lo.min()) <= low + slack + 0.01 * (high - low)
    assert high - slack - 0.01 * (high - low) <= float(found.hi.max()) <= high + slack


def test_a_linear_layer_of_anything_is_unbounded() -> None:
    (found,), _ = ends(lambda x: x @ torch.ones(6, 2), [free()])
    assert bool((found.lo == -INF).all()) and bool((found.hi == INF).all())


def test_a_linear_layer_is_exact_up_to_rounding() -> None:
    x = Interval(torch.full((4, 6), -1.0).double(), torch.full((4, 6), 2.0).double())
    (found,), _ = ends(lambda x: x @ torch.tensor([[1.0], [-2.0], [0.0], [0.5], [0.0], [1.0]]), [x])
    assert float(found.lo[0, 0]) == pytest.approx(-1 - 4 - 0.5 - 1, rel=1e-4)
    assert float(found.hi[0, 0]) == pytest.approx(2 + 2 + 1 + 2, rel=1e-4)


def test_dominance_ends_when_either_side_changes() -> None:
    def divisor_changed(x: Tensor) -> Tensor:
        n = x.norm(dim=1, keepdim=True).clamp_min(1e-3)
        n.mul_(0.1)
        found: Tensor = x / n
        return found

    def value_changed(x: Tensor) -> Tensor:
        x = x.clone()
        n = x.norm(dim=1, keepdim=True).clamp_min(1e-3)
        x.mul_(3)
        found: Tensor = x / n
        return found

    for program in (divisor_changed, value_changed):
        (found,), _ = ends(program, [free()])
        assert float(found.hi.max()) > 2.9


def test_no_rule_is_named_and_proves_nothing() -> None:
    (found, bounded), propagation = ends(
        lambda x: ((y := torch.special.bessel_j0(x)), y.tanh()), [free()]
    )
    assert {place.op for place in propagation.unproved} == {"aten::special_bessel_j0"}
    assert float(found.lo.min()) == -INF
    assert float(bounded.hi.max()) == 1  # whatever it was
    (place,) = {place.file for place in propagation.unproved}
    assert place is not None and place.endswith("test_bounds_rules.py")


@pytest.mark.parametrize(
    "program",
    [
        lambda x: x * float(x.sum() > 0),
        lambda x: x * x.sum().item(),
        lambda x: torch.ones(2) if bool((x > 0).any()) else x,
        lambda x: torch.from_numpy(x.numpy().copy()),
        lambda x: torch.tensor(x.tolist()),
    ],
)
def test_values_that_escape_are_noted(program: Callable[[Tensor], Tensor]) -> None:
    _, propagation = ends(program, [free()])
    assert propagation.escaped


def test_looking_at_constants_is_no_escape() -> None:
    _, propagation = ends(lambda x: x * torch.arange(3).sum().item() * x.shape[0], [free()])
    assert not propagation.escaped


@pytest.mark.parametrize("name", ["scatter_sum", "scatter_mean", "scatter_max", "scatter_min"])
@given(x=intervals())
def test_torch_scatter(name: str, x: Interval) -> None:
    torch_scatter = pytest.importorskip("torch_scatter")
    index = torch.tensor([0, 2, 2, 0])

    def program(x: Tensor, y: Tensor) -> Any:
        found = getattr(torch_scatter, name)(x, index, dim=0, dim_size=4)
        return found[0] if isinstance(found, tuple) else found

    check(program, x, x, name)
    found, propagation = ends(lambda a: program(a, a), [x])
    assert not propagation.unproved


def test_torch_scatter_kernels_are_seen() -> None:
    torch_scatter = pytest.importorskip("torch_scatter")
    x = torch.ones(4, 6)
    propagation = Propagation()
    propagation.free(x)
    index = torch.tensor([0, 1, 1, 0])
    with propagation.running():
        out, _ = torch_scatter.scatter_max(x, index, dim=0, dim_size=2)
        product = torch.ops.torch_scatter.scatter_mul(x, index, 0, None, 2) if hasattr(
            torch.ops.torch_scatter, "scatter_mul") else out  # fmt: skip
    assert float(propagation.shadows.interval(out).hi.max()) == INF
    assert float(propagation.shadows.interval(product).hi.max()) == INF


def test_torch_transformers_are_followed() -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    x = Interval(torch.full((4, 6), -2.0).double(), torch.full((4, 6), 2.0).double())
    found, propagation = ends(model, [x])
    assert not propagation.unproved and not propagation.escaped
    assert bool(found[0].lo.isfinite().all())
    with torch.no_grad():
        assert_inside([model(samples(x, torch.float32, 1))], found, "encoder")


@pytest.mark.parametrize("layer", [nn.LSTM(6, 3), nn.GRU(6, 3), nn.RNN(6, 3)])
def test_recurrent_layers_are_sound_or_named(layer: nn.Module) -> None:
    x = Interval(torch.full((4, 6), -2.0).double(), torch.full((4, 6), 2.0).double())

    def program(x: Tensor) -> Tensor:
        out: Tensor = layer(x)[0]
        return out

    found, propagation = ends(program, [x])
    with torch.no_grad():
        assert_inside([program(samples(x, torch.float32, 1))], found, "recurrent")
    assert propagation.unproved or bool(found[0].hi.isfinite().all())


@pytest.mark.parametrize("layer", [nn.LSTM(2, 3, batch_first=True), nn.GRU(2, 3, batch_first=True)])
def test_lengths_of_packed_sequences_are_known(layer: nn.Module) -> None:
    x = Interval(torch.full((4, 3, 2), -2.0).double(), torch.full((4, 3, 2), 2.0).double())

    def program(x: Tensor) -> Tensor:
        rows = pack_padded_sequence(x, torch.tensor([1, 3, 2, 2]), True, enforce_sorted=False)
        states, lengths = pad_packed_sequence(layer(rows)[0], batch_first=True)
        return states[torch.arange(4), lengths - 1]

    found, propagation = ends(program, [x])
    with torch.no_grad():
        assert_inside([program(samples(x, torch.float32, 1))], found, "recurrent")
    assert not propagation.escaped
    assert bool(found[0].lo.isfinite().all()) and bool(found[0].hi.isfinite().all())


def test_random_numbers_are_no_constants() -> None:
    def program(x: Tensor) -> Any:
        return (
            torch.rand(3),
            torch.randn(3),
            torch.rand_like(x),
            torch.randn_like(x),
            torch.randint(2, 5, (3,)),
            torch.randint_like(x, 4),
            torch.randperm(4),
            torch.empty(3).uniform_(-1, 2),
            torch.empty(3).normal_(),
            torch.empty(3).exponential_(),
            torch.empty(3).bernoulli_(0.5),
            torch.empty(3).cauchy_(),
            torch.empty(3).log_normal_(),
            torch.empty(3).geometric_(0.5),
            torch.empty(3).random_(4),
            torch.bernoulli(torch.full((3,), 0.5)),
            torch.normal(torch.zeros(3), 1.0),
            torch.poisson(torch.ones(3)),
            torch.multinomial(torch.ones(3), 2),
            f.dropout(x, 0.5, training=True),
        )

    found, propagation = ends(
        program, [Interval(*(torch.zeros(2, 2).double() + v for v in (-1, 1)))]
    )
    assert not propagation.unproved
    for seed in range(20):
        torch.manual_seed(seed)
        assert_inside(list(flat(program(torch.ones(2, 2)))), found, "random")


def test_every_rule_is_met() -> None:
    met: set[str] = set()

    def note(call: Call) -> None:
        met.add(call.name)

    x, y = torch.linspace(0.1, 0.9, 24).view(4, 6), torch.linspace(0.2, 0.8, 24).view(4, 6)
    for program in PROGRAMS.values():
        propagation = Propagation(on_call=note)
        propagation.free(x)
        propagation.free(y)
        with propagation.running():
            program(x, y)
    test_names = {"bernoulli", "rand", "rand_like", "uniform", "randn", "randn_like", "normal"}
    test_names |= {"exponential", "cauchy", "log_normal", "geometric", "multinomial", "poisson"}
    test_names |= {"randint", "randint_like", "randperm", "random", "native_dropout"}
    test_names |= {name for name in RULES if name.startswith("torch_scatter::")}
    missing = set(RULES) - met - test_names - ELSEWHERE
    assert not missing


def test_every_program_has_rules() -> None:
    x, y = torch.linspace(0.1, 0.9, 24).view(4, 6), torch.linspace(0.2, 0.8, 24).view(4, 6)
    without = set()
    for name, program in PROGRAMS.items():
        propagation = Propagation()
        propagation.bound(x, torch.tensor(0.0), torch.tensor(1.0))
        propagation.bound(y, torch.tensor(0.0), torch.tensor(1.0))
        with propagation.running():
            program(x, y)
        without |= {(name, place.op) for place in propagation.unproved}
    assert not without
