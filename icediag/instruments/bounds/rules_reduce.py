"""Rules for reductions: sums, means, spreads, norms, extremes, shares."""

import math
from typing import Any

import torch
from torch import Tensor

from .calls import Call, dims_of, rule
from .intervals import (
    INF,
    Interval,
    add,
    between,
    by_amount,
    clipped,
    finite_size,
    magnitude,
    mended,
    multiply,
    negated,
)
from .shadow import ROOT


def _axes(c: Call) -> list[int]:
    return dims_of(c.args.get("dim"), c.args["self"].ndim)


def _keep(c: Call) -> bool:
    return bool(c.args.get("keepdim", False))


def _over(x: Tensor, dims: list[int], keep: bool, f: Any) -> Tensor:
    """A reduction over axes; a tensor without axes is its own sum."""
    if x.ndim == 0 or not dims:
        return f(x.reshape(1), 0) if x.ndim == 0 else x.clone()
    found: Tensor = f(x, dims) if not keep else f(x, dims, keepdim=True)
    return found


def _count(x: Tensor, dims: list[int]) -> int:
    return math.prod(x.shape[d] for d in dims) if x.ndim else 1


def _sum(c: Call, dims: list[int], keep: bool) -> Interval:
    x = c["self"]
    lo, hi = (_over(end, dims, keep, torch.sum) for end in (x.lo, x.hi))
    size = finite_size(x)
    terms = min(_count(x.lo, dims), 100_000)
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    amount = _over(size, dims, keep, torch.sum) * terms * eps
    return by_amount(mended(Interval(lo, hi)), amount, c.dtype)


def _bind(c: Call, dims: list[int], keep: bool, factor: float) -> None:
    """A sum of values that are never negative bounds each of them, and a mean a multiple."""
    source = c.args["self"]
    if not c.dtype.is_floating_point or not bool((c["self"].lo >= 0).all()) or not source.ndim:
        return
    ids = c.shadows.groups(c.out.numel(), c.out.device).view(c.out.shape)
    members = ids
    if not keep:
        for d in sorted(dims):
            members = members.unsqueeze(d)
    members = members.expand(source.shape)

    def note() -> None:
        c.shadows.set_member(source, members)
        c.shadows.set_bound(c.out, ids, factor)
        shadow = c.shadows.of(source)
        origin = None if shadow is None else shadow.origin
        if origin is None or origin.tensor.shape != source.shape:
            return
        whole = source.is_contiguous() and origin.tensor.is_contiguous()
        if whole and origin.version == origin.tensor._version:  # noqa: SLF001 - the only way
            c.shadows.set_member(origin.tensor, members + ROOT if origin.square else members)

    c.after.append(note)


@rule("sum")
def _sum_rule(c: Call) -> Interval:
    dims, keep = _axes(c), _keep(c)
    _bind(c, dims, keep, 1.0)
    out = _sum(c, dims, keep)
    # No sum of values that are not negative is negative, however it is rounded.
    return clipped(out, 0, INF) if bool((c["self"].lo >= 0).all()) else out


@rule("mean")
def _mean(c: Call) -> Interval:
    dims, keep = _axes(c), _keep(c)
    x, n = c["self"], _count(c["self"].lo, dims)
    if n == 0:
        return c.anything()
    _bind(c, dims, keep, float(n))
    total = _sum(c, dims, keep)
    out = c.near(Interval(total.lo / n, total.hi / n))
    return clipped(out, 0, INF) if bool((x.lo >= 0).all()) else out


@rule("var", "std", "var_mean", "std_mean")
def _spread(c: Call) -> Any:
    """At most a quarter of the squared width (Popoviciu's inequality), times n / (n - 1)."""
    x = c["self"]
    dims, keep = _axes(c), _keep(c)
    n = _count(x.lo, dims)
    correction = c.args.get("correction", 1 if c.args.get("unbiased", True) else 0)
    correction = 1 if correction is None else float(correction)
    low, high = (_over(x.lo, dims, keep, torch.amin), _over(x.hi, dims, keep, torch.amax))
    if n - correction <= 0:
        spread = c.anything()
    else:
        top = (high - low).square() / 4 * (n / (n - correction))
        spread = clipped(c.near(mended(Interval(top * 0, top)), 64 + n), 0, INF)
        # In the type itself a mean is off by some roundings of the largest.
        size = finite_size(Interval(low, high))
        slack = size * 64 * torch.finfo(c.dtype).eps
        spread = Interval(
            spread.lo, spread.hi + slack.square() + 2 * slack * (top.sqrt().nan_to_num(posinf=0.0))
        )
    if c.name.startswith("std"):
        spread = Interval(spread.lo.sqrt(), c.near(Interval(spread.hi, spread.hi.sqrt())).hi)
    spread = Interval(torch.zeros_like(spread.hi), spread.hi)
    if not c.name.endswith("mean"):
        return spread
    total = _sum(c, dims, keep)
    return [spread, c.near(Interval(total.lo / n, total.hi / n))]


@rule("linalg_vector_norm", "norm")
def _norm(c: Call) -> Interval | None:
    order = c.first("ord", "p")
    p = 2.0 if order is None else float(order)
    x = magnitude(c["self"])
    dims, keep = _axes(c), _keep(c)
    if p < 1:
        return clipped(c.anything(), 0, INF)
    _bind_norm(c, dims, keep)
    if p == INF:
        return Interval(*(_over(end, dims, keep, torch.amax) for end in (x.lo, x.hi)))
    terms = min(_count(x.lo, dims), 100_000)

    def total(end: Tensor) -> Tensor:
        # Scaled by the largest, so that no power overflows.
        top = _over(end, dims, True, torch.amax) if end.numel() and end.ndim else end.new_ones(())
        scale = torch.where((top > 0) & top.isfinite(), top, 1.0)
        inner = _over((end / scale) ** p, dims, bool(end.ndim), torch.sum)
        found = inner ** (1 / p) * scale
        return found.reshape(c.out.shape)

    out = Interval(total(x.lo), total(x.hi))
    # Squares that underflow count as 0, which takes away at most the root of the smallest number.
    lost = math.sqrt(torch.finfo(c.dtype).tiny * terms) * 2
    return clipped(
        by_amount(c.near(mended(out), 4 + terms), x.lo.new_tensor(lost), c.dtype), 0, INF
    )


def _bind_norm(c: Call, dims: list[int], keep: bool) -> None:
    source = c.args["self"]
    if not source.ndim or not dims:
        return
    ids = c.shadows.groups(c.out.numel(), c.out.device).view(c.out.shape) + ROOT
    members = ids
    if not keep:
        for d in sorted(dims):
            members = members.unsqueeze(d)

    def note() -> None:
        c.shadows.set_member(source, members.expand(source.shape))
        c.shadows.set_bound(c.out, ids)

    c.after.append(note)


@rule("amax", "amin")
def _extreme(c: Call) -> Interval:
    x, f = c["self"], getattr(torch, c.name)
    dims, keep = _axes(c), _keep(c)
    if c.name == "amax":
        _bind(c, dims, keep, 1.0)
    return Interval(*(_over(end, dims, keep, f) for end in (x.lo, x.hi)))


@rule("max", "min", "median", "nanmedian")
def _max(c: Call) -> Any:
    """Of all entries, or along an axis with indices; `max` of two tensors is `maximum`."""
    x, f = c["self"], getattr(torch, c.name)
    if c.has("other"):
        g = torch.maximum if c.name == "max" else torch.minimum
        y = c["other"]
        return Interval(g(x.lo, y.lo), g(x.hi, y.hi))
    if c.args.get("dim") is None:
        if c.name == "max":
            _bind(c, dims_of(None, c.args["self"].ndim), False, 1.0)
        return Interval(f(x.lo), f(x.hi))
    dim, keep = int(c.args["dim"]), _keep(c)
    if c.name == "max":
        _bind(c, dims_of(dim, c.args["self"].ndim), keep, 1.0)
    zero = torch.zeros(c.outs[1].shape, dtype=torch.float64, device=c.out.device)
    n = c.args["self"].shape[dim] if c.args["self"].ndim else 1
    found = Interval(f(x.lo, dim, keep)[0], f(x.hi, dim, keep)[0])
    return [found, Interval(zero, zero + max(n - 1, 0))]


@rule("aminmax")
def _aminmax(c: Call) -> list[Interval | None]:
    x = c["self"]
    dims, keep = _axes(c), _keep(c)
    low = Interval(*(_over(end, dims, keep, torch.amin) for end in (x.lo, x.hi)))
    return [low, Interval(*(_over(end, dims, keep, torch.amax) for end in (x.lo, x.hi)))]


@rule("any", "all")
def _any(c: Call) -> Interval:
    x = c["self"]
    surely, never = (x.lo > 0) | (x.hi < 0), (x.lo == 0) & (x.hi == 0)
    low, high = surely.double(), (~never).double()
    f = torch.amax if c.name == "any" else torch.amin
    if not low.numel():
        value = torch.full(c.out.shape, float(c.name == "all"), dtype=torch.float64)
        return Interval(value, value.clone())
    dims, keep = _axes(c), _keep(c)
    return Interval(*(_over(end, dims, keep, f) for end in (low, high)))


@rule("count_nonzero")
def _count_nonzero(c: Call) -> Interval:
    x = c["self"]
    surely, never = (x.lo > 0) | (x.hi < 0), (x.lo == 0) & (x.hi == 0)
    dims = _axes(c)
    return Interval(*(_over(e.double(), dims, False, torch.sum) for e in (surely, ~never)))


@rule("prod")
def _prod(c: Call) -> Interval:
    x = c["self"]
    dims = _axes(c)
    keep = _keep(c)
    if len(dims) > 1 or not x.lo.ndim:
        x, dims = Interval(x.lo.reshape(-1), x.hi.reshape(-1)), [0]
    product: Interval | None = None
    if x.lo.shape[dims[0]] > 64:
        return c.anything()
    for lo, hi in zip(x.lo.unbind(dims[0]), x.hi.unbind(dims[0]), strict=True):
        factor = Interval(lo, hi)
        product = factor if product is None else mended(multiply(product, factor))
    if product is None:
        return between(1.0, 1.0, c.out)
    shape = c.out.shape if keep else product.lo.shape
    out = Interval(product.lo.reshape(shape), product.hi.reshape(shape))
    return c.near(out, 2 * x.lo.shape[dims[0]])


@rule("cumsum")
def _cumsum(c: Call) -> Interval:
    x, dim = c["self"], int(c.args["dim"])
    size = finite_size(x).cumsum(dim)
    n = x.lo.shape[dim] if x.lo.ndim else 1
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    return by_amount(mended(Interval(x.lo.cumsum(dim), x.hi.cumsum(dim))), size * n * eps, c.dtype)


@rule("linalg_cross", "cross")
def _cross(c: Call) -> Interval:
    x, y, dim = c["self"], c["other"], c.args.get("dim")
    dim = -1 if dim is None else int(dim)

    def part(i: Interval, k: int) -> Interval:
        return Interval(i.lo.roll(-k, dim), i.hi.roll(-k, dim))

    first, second = multiply(part(x, 1), part(y, 2)), multiply(part(x, 2), part(y, 1))
    out = add(first, negated(second))
    size = torch.maximum(finite_size(first), finite_size(second))
    return by_amount(mended(out), size * 8 * torch.finfo(c.dtype).eps, c.dtype)


@rule("logsumexp", "logcumsumexp")
def _logsumexp(c: Call) -> Interval:
    x = c["self"]
    if c.name == "logcumsumexp":
        dim = int(c.args["dim"])
        lo, hi = x.lo.logcumsumexp(dim), x.hi.logcumsumexp(dim)
    else:
        dims, keep = _axes(c), _keep(c)
        lo, hi = (torch.logsumexp(end, dims, keep) for end in (x.lo, x.hi))
    size = finite_size(Interval(lo, hi))
    terms = max(c.args["self"].numel() // max(c.out.numel(), 1), 1)
    amount = (size + 1) * (8 + terms) * torch.finfo(c.dtype).eps
    return by_amount(mended(Interval(lo, hi)), amount, c.dtype)


@rule("_softmax", "_safe_softmax", "softmax", kind="share")
def _softmax(c: Call) -> Interval:
    """Shares: each between 0 and 1, and 1 together."""
    x, dim = c["self"], int(c.args["dim"])
    if x.lo.ndim == 0:
        return between(0.0, 1.0, c.out)
    # An entry's share is smallest where it is lowest and all others are highest.
    low, high = _share(x.lo, x.hi, dim, 1), _share(x.hi, x.lo, dim, -1)
    n = x.lo.shape[dim]
    out = clipped(c.near(Interval(low.nan_to_num(nan=0.0), high.nan_to_num(nan=1.0)), 16 + n), 0, 1)
    if c.name == "_safe_softmax":
        out = Interval(torch.zeros_like(out.lo), out.hi)
    last = dim in (-1, x.lo.ndim - 1)

    def note() -> None:
        shadow = c.shadows.of(c.out)
        if last and shadow is not None and c.out.is_contiguous():
            shadow.runs = n

    c.after.append(note)
    eps = 16 * torch.finfo(c.dtype).eps
    return clipped(Interval(out.lo * (1 - eps) - eps, out.hi + eps), 0, 1)


def _share(own: Tensor, others: Tensor, dim: int, side: int) -> Tensor:
    """exp(own) / (exp(own) + the sum of exp over the other entries), for each entry.

    The sum over the others is that over all less one, which loses what is small beside it: it is
    taken for larger by that (`side` 1) or for smaller (`side` -1).
    """
    top = others.amax(dim, keepdim=True)
    raised = (others - top).exp()
    total = raised.sum(dim, keepdim=True)
    rest = (total - raised + side * total * 1e-14).clamp_min(0)
    return torch.sigmoid(own - (rest.log() + top))


@rule("_log_softmax", "log_softmax")
def _log_softmax(c: Call) -> Interval:
    x, dim = c["self"], int(c.args["dim"])
    dim = dim if x.lo.ndim else 0
    lo = x.lo - x.hi.logsumexp(dim, keepdim=bool(x.lo.ndim))
    size = finite_size(x)
    terms = x.lo.shape[dim] if x.lo.ndim else 1
    amount = (size + 1) * (8 + terms) * torch.finfo(c.dtype).eps
    if x.lo.ndim:
        amount = amount.amax(dim, keepdim=True)
    return clipped(by_amount(mended(Interval(lo, lo * 0)), amount, c.dtype), -INF, 0)
