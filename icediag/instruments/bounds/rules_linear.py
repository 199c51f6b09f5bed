"""Rules for what is linear in each of its arguments: matrix products and convolutions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .calls import Call, rule
from .intervals import (
    INF,
    Interval,
    add,
    by_amount,
    clipped,
    finite_size,
    magnitude,
    mended,
    multiply,
)
from .rules_structure import run

Bilinear = Callable[[Tensor, Tensor], Tensor]


def product(
    c: Call, a: Interval, b: Interval, f: Bilinear, terms: int, *, shape: torch.Size | None = None
) -> Interval:
    """Ends of f(a, b), linear in both, with `terms` products in each sum.

    By centre and radius: |f(a, b) - f(centre, centre)| <= f(r_a, |b|) + f(|centre_a|, r_b). Exact
    where b is constant: that is splitting it into its positive and negative part.
    """
    a_infinite, b_infinite = _infinite(a), _infinite(b)
    out_shape = c.out.shape if shape is None else shape
    a_any, b_any = bool(a_infinite.any()), bool(b_infinite.any())
    hopeless = (a_any and bool(a_infinite.all())) or (b_any and bool(b_infinite.all()))
    if terms and hopeless and not (_zeros(a) or _zeros(b)):
        infinite = torch.full(out_shape, INF, dtype=torch.float64, device=c.out.device)
        return Interval(-infinite, infinite)
    a_centre, a_radius = _centred(a, a_infinite, a_any)
    b_centre, b_radius = _centred(b, b_infinite, b_any)
    centre = f(a_centre, b_centre)
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 2**-52
    slack = (min(terms, 100_000) + 6) * max(eps, 2**-52)
    a_size, b_size = a_centre.abs(), b_centre.abs()
    if b_radius is None:
        radius = f(_grown(a_radius, a_size, slack), b_size)
    elif a_radius is None:
        radius = f(a_size, _grown(b_radius, b_size, slack))
    else:
        radius = f(_grown(a_radius, a_size, slack), b_size + b_radius)
        radius = radius + f(a_size, b_radius) * (1 + slack)
    if a_any or b_any:
        unbounded = f(a_infinite.double(), _touched(b)) + f(_touched(a), b_infinite.double())
        radius = torch.where(unbounded > 0.5, INF, radius)
    return by_amount(mended(Interval(centre - radius, centre + radius)), radius * 0, c.dtype)


def _infinite(x: Interval) -> Tensor:
    return x.lo.isinf() if x.constant else x.lo.isinf() | x.hi.isinf()


def _zeros(x: Interval) -> bool:
    return bool(((x.lo == 0) & (x.hi == 0)).any())


def _touched(x: Interval) -> Tensor:
    """1 where an entry can be other than 0."""
    return ((x.lo != 0) | (x.hi != 0)).double()


def _centred(x: Interval, infinite: Tensor, any_infinite: bool) -> tuple[Tensor, Tensor | None]:
    if x.constant:
        return (torch.where(infinite, 0.0, x.lo) if any_infinite else x.lo), None
    centre, radius = (x.lo + x.hi) / 2, (x.hi - x.lo) / 2
    if any_infinite:
        centre = torch.where(infinite, 0.0, centre)
        radius = torch.where(infinite, 0.0, radius)
    return centre, radius


def _grown(radius: Tensor | None, size: Tensor, slack: float) -> Tensor:
    if radius is None:
        return size * slack
    return radius * (1 + slack) + size * slack


@rule("mm", "bmm", "mv", "dot", "matmul", "inner", "vdot", "outer", "ger")
def _mm(c: Call) -> Interval:
    x, y = c.args["self"], c.first("mat2", "other", "vec", "tensor", "vec2")
    f = getattr(torch, "ger" if c.name == "outer" else c.name)
    terms = 1 if c.name in ("ger", "outer") else x.shape[-1]
    if c.name == "bmm" and c.shadows.shares(x):
        return mixed(c, c.of(y), terms)
    return product(c, c.of(x), c.of(y), f, terms)


def mixed(c: Call, values: Interval, terms: int) -> Interval:
    """Weighted means along the last axis but one: between the smallest and the largest value."""
    low = values.lo.amin(-2, keepdim=True)
    high = values.hi.amax(-2, keepdim=True)
    out = Interval(low.expand(c.out.shape), high.expand(c.out.shape))
    size = finite_size(Interval(low, high))
    return by_amount(out, size * (terms + 16) * torch.finfo(c.dtype).eps, c.dtype)


@rule("addmm", "addmv", "baddbmm", "addr")
def _addmm(c: Call) -> Interval:
    x, y = c.first("mat1", "mat", "batch1", "vec1"), c.first("mat2", "vec", "batch2")
    if c.name == "addr":
        y = c.args["vec2"]
    f: Any = {"addmm": torch.mm, "addmv": torch.mv, "baddbmm": torch.bmm, "addr": torch.ger}[c.name]
    terms = 1 if c.name == "addr" else x.shape[-1]
    main = product(c, c.of(x), c.of(y), f, terms)
    alpha, beta = float(c.args["alpha"]), float(c.args["beta"])
    start = c["self"]
    if alpha != 1:
        main = c.near(multiply(main, c.of(alpha)))
    if beta != 1:
        start = c.near(multiply(start, c.of(beta)))
    return _sum_with(c, main, start)


def _sum_with(c: Call, main: Interval, start: Interval) -> Interval:
    """The bias may be the first term of the sum: its rounding goes with it."""
    size = finite_size(start)
    out = add(main, start)
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    return by_amount(out, size * 4 * eps, c.dtype) if eps else out


def _apply_linear(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight)


@rule("linear")
def _linear(c: Call) -> Interval:
    main = product(c, c["input"], c["weight"], _apply_linear, c.args["input"].shape[-1])
    return _sum_with(c, main, c["bias"]) if c.has("bias") else main


@rule("_trilinear")
def _trilinear(c: Call) -> Interval | None:
    if c.args.get("sumdim") is None:
        return None
    first, second, third = c["i1"], c["i2"], c["i3"]
    # Sizes alone: |sum| <= sum of products of magnitudes.
    sizes = [magnitude(x).hi.contiguous() for x in (first, second, third)]
    if any(bool(s.isinf().any()) for s in sizes):
        return c.anything()
    radius = run(c, {"i1": sizes[0], "i2": sizes[1], "i3": sizes[2]}) * (1 + 1e-3)
    return c.exact(Interval(-radius, radius))


@rule("convolution", "_convolution", "mkldnn_convolution", "conv1d", "conv2d", "conv3d")
def _convolution(c: Call) -> Interval | None:
    x, weight = c.args["input"], c.args["weight"]
    if c.name in ("_convolution", "mkldnn_convolution"):
        transposed = bool(c.args.get("transposed", False))
    else:
        transposed = bool(c.args.get("transposed", False))

    def f(a: Tensor, b: Tensor) -> Tensor:
        settings: dict[str, Any] = {
            name: c.args[name] for name in ("stride", "padding", "dilation", "groups")
        }
        found: Tensor = torch.ops.aten.convolution.default(
            a,
            b,
            None,
            _many(settings["stride"], b.ndim - 2),
            _many(settings["padding"], b.ndim - 2),
            _many(settings["dilation"], b.ndim - 2),
            transposed,
            _many(c.args.get("output_padding", 0), b.ndim - 2),
            settings["groups"],
        )
        return found

    per_output = weight[0].numel() if not transposed else weight.numel() // max(weight.shape[1], 1)
    main = product(c, c.of(x), c.of(weight), f, per_output)
    if not c.has("bias"):
        return main
    bias = c["bias"]
    shape = (-1, *(1,) * (weight.ndim - 2))
    return _sum_with(c, main, Interval(bias.lo.view(shape), bias.hi.view(shape)))


def _many(value: Any, n: int) -> list[int]:
    return (
        [int(v) for v in value]
        if isinstance(value, (list, tuple)) and len(value) == n
        else ([int(value[0])] * n if isinstance(value, (list, tuple)) else [int(value)] * n)
    )


@rule("_cdist_forward", "cdist", "_pdist_forward")
def _distance(c: Call) -> Interval | None:
    """Distances of rows, between 0 and the norm of the largest differences."""
    if c.name == "_pdist_forward" or float(c.args.get("p", 2.0)) != 2.0:
        return clipped(c.anything(), 0, INF)
    x, y = c["x1"], c["x2"]
    apart = torch.maximum(
        (x.hi[..., :, None, :] - y.lo[..., None, :, :]).abs(),
        (y.hi[..., None, :, :] - x.lo[..., :, None, :]).abs(),
    )
    far = apart.square().sum(-1).sqrt()
    # By matrix products, as the kernel may do it, |x|^2 + |y|^2 - 2 x y loses half of the digits.
    size = max(float(finite_size(v).amax()) if v.lo.numel() else 0.0 for v in (x, y))
    slack = size * x.lo.shape[-1] * torch.finfo(c.dtype).eps ** 0.5 * 8
    return clipped(c.near(mended(Interval(far * 0, far + slack)), 64), 0, INF)
