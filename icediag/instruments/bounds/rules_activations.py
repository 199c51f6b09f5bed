"""Rules for activation functions: the rectifiers, and those with one minimum."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .calls import Call, rule
from .intervals import INF, Interval, add, clipped, everything, mended, multiply
from .rules_elementwise import rising

Function = Callable[[Tensor], Tensor]


@rule("softplus")
def _softplus(c: Call) -> Interval:
    beta, threshold = float(c.args["beta"]), float(c.args["threshold"])
    # Above the threshold the kernel gives x itself, which is smaller by log(1 + exp(-threshold)).
    gap = math.log1p(math.exp(-abs(threshold))) / abs(beta) if beta else INF
    x = c["self"]
    if beta <= 0:
        return c.anything()
    ends = (functional.softplus(v, beta, INF) for v in (x.lo, x.hi))
    out = c.near(mended(Interval(*ends)))
    return Interval((out.lo - gap).clamp_min(0), torch.maximum(out.hi, x.hi))


@rule("log_sigmoid_forward")
def _log_sigmoid(c: Call) -> list[Interval | None]:
    x = c["self"]
    out = c.near(Interval(functional.logsigmoid(x.lo), functional.logsigmoid(x.hi)))
    # The second result serves the backward pass alone.
    second = everything(c.outs[1].shape, c.out.device)
    return [clipped(out, -INF, 0), second]


@rule("elu")
def _elu(c: Call) -> Interval | None:
    alpha, scale = float(c.args["alpha"]), float(c.args["scale"])
    inner = float(c.args["input_scale"])
    if min(alpha, scale, inner) < 0:
        return None
    x = c["self"]

    def f(v: Tensor) -> Tensor:
        return torch.where(v > 0, v * scale, torch.expm1(v.clamp_max(0) * inner) * alpha * scale)

    return c.near(Interval(f(x.lo), f(x.hi)), 8)


@rule("celu")
def _celu(c: Call) -> Interval | None:
    alpha, x = float(c.args["alpha"]), c["self"]
    if alpha <= 0:
        return None

    def f(v: Tensor) -> Tensor:
        return torch.where(v > 0, v, torch.expm1(v.clamp_max(0) / alpha) * alpha)

    return c.near(Interval(f(x.lo), f(x.hi)), 8)


@rule("hardtanh", kind="clamp")
def _hardtanh(c: Call) -> Interval:
    low, high = c["min_val"], c["max_val"]
    x = c["self"]
    return Interval(x.lo.clamp(low.lo, high.lo), x.hi.clamp(low.hi, high.hi))


@rule("hardsigmoid", kind="squash")
def _hardsigmoid(c: Call) -> Interval:
    return rising(c, functional.hardsigmoid, 0, 1)


@rule("leaky_relu")
def _leaky(c: Call) -> Interval:
    slope, x = float(c.args["negative_slope"]), c["self"]
    if slope >= 0:
        return c.near(Interval(*(functional.leaky_relu(v, slope) for v in (x.lo, x.hi))))
    ends = [functional.leaky_relu(v, slope) for v in (x.lo, x.hi)]
    return c.near(_with_point(x, ends, 0.0, 0.0))


@rule("_prelu_kernel")
def _prelu(c: Call) -> Interval:
    x, weight = c["self"], c["weight"]
    negative = clipped(x, -INF, 0)
    return c.near(add(clipped(x, 0, INF), multiply(negative, weight)))


@rule("rrelu_with_noise")
def _rrelu(c: Call) -> list[Interval | None]:
    x, low, high = c["self"], float(c.args["lower"]), float(c.args["upper"])
    low, high = min(low, 0.0), max(high, 1.0)
    out = Interval(torch.minimum(x.lo * high, x.lo * low), torch.maximum(x.hi * high, x.hi * low))
    return [c.near(mended(out))]


@rule("threshold")
def _threshold(c: Call) -> Interval:
    x, value = c["self"], c["value"]
    passed = Interval(x.lo.clamp_min(float(c.args["threshold"])), x.hi)
    above = x.hi > float(c.args["threshold"])
    return Interval(
        torch.where(above, torch.minimum(passed.lo, value.lo), value.lo),
        torch.where(above, torch.maximum(passed.hi, value.hi), value.hi),
    )


@rule("softshrink", "hardshrink")
def _shrink(c: Call) -> Interval:
    f, by, x = getattr(functional, c.name), float(c.args["lambd"]), c["self"]
    return c.near(Interval(f(x.lo, by), f(x.hi, by)))


def _with_point(x: Interval, ends: list[Tensor], at: float, value: float) -> Interval:
    """The hull of two ends, and of an extreme value where the argument can be there."""
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    inside = (x.lo <= at) & (x.hi >= at)
    return Interval(
        torch.where(inside, low.clamp_max(value), low),
        torch.where(inside, high.clamp_min(value), high),
    )


def _valley(c: Call, f: Function, at: float) -> Interval:
    """A function that falls up to `at` and rises from there; -inf counts as its limit, 0."""
    x = c["self"]
    ends = [torch.nan_to_num(f(v), nan=0.0, posinf=INF, neginf=-INF) for v in (x.lo, x.hi)]
    lowest = float(f(torch.tensor(at, dtype=torch.float64)))
    out = c.near(_with_point(x, ends, at, lowest), 16)
    # Around the minimum the kernels are accurate to a unit of 1, not of the result.
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    return Interval(out.lo - 4 * eps, torch.where(out.hi.isinf(), out.hi, out.hi + 4 * eps))


@rule("gelu")
def _gelu(c: Call) -> Interval:
    how = c.args.get("approximate", "none")
    at = -0.7517915246935645 if how == "none" else -0.7524614
    return _valley(c, lambda v: functional.gelu(v, approximate=how), at)


@rule("silu")
def _silu(c: Call) -> Interval:
    return _valley(c, functional.silu, -1.2784645427610738)


@rule("mish")
def _mish(c: Call) -> Interval:
    return _valley(c, functional.mish, -1.1924312145154)


@rule("hardswish")
def _hardswish(c: Call) -> Interval:
    return _valley(c, functional.hardswish, -1.5)


@rule("glu")
def _glu(c: Call) -> Interval:
    x, dim = c["self"], c.args["dim"]
    (lo, gate_lo), (hi, gate_hi) = x.lo.chunk(2, dim), x.hi.chunk(2, dim)
    gate = clipped(Interval(gate_lo.sigmoid() - 1e-6, gate_hi.sigmoid() + 1e-6), 0, 1)
    return c.near(multiply(Interval(lo, hi), gate), 8)
