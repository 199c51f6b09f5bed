"""Rules for functions of two and three values: arithmetic, comparisons, choices."""

import math

import torch
from torch import Tensor

from .calls import Call, rule
from .intervals import (
    INF,
    Interval,
    add,
    clipped,
    divide,
    finite_size,
    magnitude,
    mended,
    multiply,
    negated,
    number,
    square,
    union,
    widened,
    within,
)
from .rules_elementwise import kept_above, squared
from .shadow import INVERSE


def _together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in their common shape."""
    return tuple(torch.broadcast_tensors(*tensors))  # type: ignore[no-untyped-call]


def _scaled(c: Call, x: Interval) -> Interval:
    alpha = c.args.get("alpha", 1)
    return x if alpha == 1 else multiply(x, c.of(alpha))


@rule("add")
def _add(c: Call) -> Interval:
    x, other = c["self"], _scaled(c, c["other"])
    source = c.args["self"]
    if isinstance(source, Tensor) and bool((other.lo >= 0).all()):
        kept_above(c, source)
    elif (
        isinstance(c.args["other"], Tensor)
        and c.args.get("alpha", 1) == 1
        and bool((x.lo >= 0).all())
    ):
        kept_above(c, c.args["other"])
    units = 0 if c.args.get("alpha", 1) == 1 else 2
    out = add(x, other)
    return widened(out, c.dtype, units) if units else c.exact(out)


@rule("sub", "rsub")
def _sub(c: Call) -> Interval:
    x, other = c["self"], c["other"]
    if c.args["self"] is c.args["other"]:
        return Interval(x.lo * 0, x.lo * 0) if not bool(x.lo.isinf().any()) else c.anything()
    first, second = (x, other) if c.name == "sub" else (other, x)
    out = add(first, negated(_scaled(c, second)))
    return c.exact(out) if c.args.get("alpha", 1) == 1 else c.near(out, 2)


@rule("mul")
def _mul(c: Call) -> Interval:
    if c.args["self"] is c.args["other"]:
        return squared(c)
    out = c.exact(mended(multiply(c["self"], c["other"])))
    for x, y in (("self", "other"), ("other", "self")):
        out = _dominated(c, out, c.args[x], c.args[y], inverse=True)
    return out


def _dominated(c: Call, out: Interval, x: object, y: object, *, inverse: bool) -> Interval:
    """A number divided by what bounds its magnitude: at most 1, or the factor between them."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return out
    member, bound, shadow = c.shadows.member(x), c.shadows.bound(y), c.shadows.of(y)
    if member is None or bound is None or shadow is None:
        return out
    # A square that underflows bounds nothing: the divisor must be kept from there.
    floor = math.sqrt(torch.finfo(y.dtype).tiny) if y.dtype.is_floating_point else 0.0
    size = c.of(y)
    if inverse:
        bound = torch.where(bound >= INVERSE, bound - INVERSE, 0)
        guarded = size.hi < 1 / floor
    else:
        roots = bound >= (1 << 40)
        guarded = torch.where(roots, size.lo > floor, size.lo > 0)
    inside = (member > 0) & (member == bound) & guarded
    if not bool(inside.any()):
        return out
    n = shadow.factor * (1 + 6 * torch.finfo(c.dtype).eps)
    low = torch.where(inside, torch.where(c.of(x).lo >= 0, 0.0, -n), -INF)
    return within(out, Interval(low, torch.where(inside, n, INF)))


@rule("div", "true_divide", "floor_divide")
def _div(c: Call) -> Interval:
    if c.args["self"] is c.args["other"]:
        return Interval(*(torch.ones_like(c["self"].lo) for _ in range(2)))
    out = c.exact(mended(divide(c["self"], c["other"])))
    how = c.args.get("rounding_mode") or ("floor" if c.name == "floor_divide" else None)
    out = _dominated(c, out, c.args["self"], c.args["other"], inverse=False)
    if how == "floor":
        # The kernel goes by the remainder, which may come out one lower than the quotient's floor.
        return Interval((out.lo.floor() - 1), out.hi.floor())
    return Interval(out.lo.trunc(), out.hi.trunc()) if how == "trunc" else out


@rule("remainder", kind="periodic")
def _remainder(c: Call) -> Interval:
    """In [0, divisor), with the divisor's sign; a value already there stays."""
    x, by = c["self"], c["other"]
    outer = Interval(by.lo.clamp_max(0), by.hi.clamp_min(0))
    kept = (x.lo >= 0) & (by.lo > 0) & (x.hi < by.lo)
    return c.exact(
        Interval(
            torch.where(kept, x.lo, outer.lo),
            torch.where(kept, x.hi, outer.hi),
        )
    )


@rule("fmod", kind="periodic")
def _fmod(c: Call) -> Interval:
    """In (-|divisor|, |divisor|), with the value's own sign, and never larger than it."""
    x, by = c["self"], magnitude(c["other"]).hi
    inside = Interval(-by, by)
    return c.exact(within(inside, Interval(x.lo.clamp_max(0), x.hi.clamp_min(0))))


@rule("atan2", kind="periodic")
def _atan2(c: Call) -> Interval:
    y, x = c["self"], c["other"]
    y, x = (Interval(*_together(v.lo, v.hi)) for v in (y, x))
    shape = _together(y.lo, x.lo)[0].shape
    corners = [torch.atan2(a, b).expand(shape) for a in (y.lo, y.hi) for b in (x.lo, x.hi)]
    # Where the rectangle neither holds the origin nor crosses the cut, its corners are extreme.
    clear = (y.lo > 0) | (y.hi < 0) | (x.lo > 0)
    low, high = torch.stack(corners).amin(0), torch.stack(corners).amax(0)
    pi = max(math.pi, float(torch.tensor(math.pi, dtype=torch.float64).to(c.dtype)))
    low = torch.where(clear, low, torch.where(y.lo >= 0, 0.0, -pi))
    high = torch.where(clear, high, torch.where(y.hi < 0, 0.0, pi))
    out = clipped(c.near(Interval(low, high)), -pi, pi)
    # Exact: an angle of a point that is not below the axis is not negative.
    return Interval(torch.where(y.lo >= 0, out.lo.clamp_min(0), out.lo), out.hi)


@rule("hypot")
def _hypot(c: Call) -> Interval:
    x, y = magnitude(c["self"]), magnitude(c["other"])
    return clipped(c.near(Interval(torch.hypot(x.lo, y.lo), torch.hypot(x.hi, y.hi))), 0, INF)


@rule("maximum", "minimum", "fmax", "fmin", "max_of_two", "min_of_two")
def _extreme(c: Call) -> Interval:
    f = torch.maximum if "max" in c.name else torch.minimum
    x, y = c["self"], c["other"]
    return Interval(f(x.lo, y.lo), f(x.hi, y.hi))


@rule("clamp", "clamp_min", "clamp_max", "clip", kind="clamp")
def _clamp(c: Call) -> Interval:
    x = c["self"]
    lo, hi = x.lo, x.hi
    if c.has("min"):
        low = c["min"]
        lo, hi = torch.maximum(lo, low.lo), torch.maximum(hi, low.hi)
    if c.has("max"):
        high = c["max"]
        lo, hi = torch.minimum(lo, high.lo), torch.minimum(hi, high.hi)
    else:
        kept_above(c, c.args["self"])
    return Interval(lo, hi) if lo is not x.lo else Interval(lo.clone(), hi.clone())


@rule("pow")
def _pow(c: Call) -> Interval:
    base, exponent = c.args["self"], c.args["exponent"]
    if not isinstance(exponent, Tensor):
        if exponent == 2:
            return c.near(squared(c), 1)
        return _power(c, c["self"], float(exponent))
    return _general_power(c, c.of(base), c["exponent"])


def _power(c: Call, x: Interval, n: float) -> Interval:
    """X to a fixed power."""
    if n == 0:
        return Interval(torch.ones_like(x.lo), torch.ones_like(x.lo))
    if n < 0:
        positive = _power_of(x, -n)
        return c.near(mended(divide(number(1, torch.float64), positive)), 8)
    return c.near(_power_of(x, n), 8)


def _power_of(x: Interval, n: float) -> Interval:
    if n == 2:
        return square(x)
    if n.is_integer() and int(n) % 2 == 0:
        size = magnitude(x)
        return Interval(size.lo**n, size.hi**n)
    if not n.is_integer():
        # Of a negative number it is NaN.
        x = clipped(x, 0, INF)
    return Interval(x.lo**n, x.hi**n)


def _general_power(c: Call, base: Interval, n: Interval) -> Interval:
    """Both unknown: by corners for a positive base, else anything."""
    b = Interval(*_together(base.lo, base.hi))
    corners = torch.stack(_together(*(x**y for x in (b.lo, b.hi) for y in (n.lo, n.hi))))
    tame = (b.lo > 0) & corners.isfinite().all(0)
    low, high = corners.nan_to_num(nan=-INF).amin(0), corners.nan_to_num(nan=INF).amax(0)
    out = c.near(Interval(torch.where(tame, low, -INF), torch.where(tame, high, INF)), 16)
    positive = (b.lo > 0) | ((b.lo >= 0) & (n.lo > 0))
    return Interval(torch.where(positive, out.lo.clamp_min(0), out.lo), out.hi)


@rule("where")
def _where(c: Call) -> Interval | None:
    if not c.has("self"):
        return None  # the indices of what is True: how many there are depends on the values
    condition, x, y = c["condition"], c["self"], c["other"]
    never, surely = condition.hi == 0, condition.lo == 1
    both = union(x, y)
    picked = [
        torch.where(surely, a, torch.where(never, b, u))
        for a, b, u in ((x.lo, y.lo, both.lo), (x.hi, y.hi, both.hi))
    ]
    return c.exact(Interval(*picked))


@rule("masked_fill")
def _masked_fill(c: Call) -> Interval:
    mask, x, value = c["mask"], c["self"], c["value"]
    never, surely = mask.hi == 0, mask.lo == 1
    both = union(x, value)
    picked = [
        torch.where(surely, a, torch.where(never, b, u))
        for a, b, u in ((value.lo, x.lo, both.lo), (value.hi, x.hi, both.hi))
    ]
    return c.exact(Interval(*picked))


@rule("lerp")
def _lerp(c: Call) -> Interval:
    x, y, w = c["self"], c["end"], c["weight"]
    out = add(x, multiply(w, add(y, negated(x))))
    # For weights of 0 to 1 it lies between the two.
    tame = (w.lo >= 0) & (w.hi <= 1)
    both = widened(union(x, y), c.dtype, 8)
    size = torch.maximum(finite_size(x), finite_size(y))
    slack = size * 8 * torch.finfo(c.dtype).eps
    both = Interval(both.lo - slack, both.hi + slack)
    out = Interval(out.lo - slack, out.hi + slack)
    return c.near(
        mended(Interval(torch.where(tame, both.lo, out.lo), torch.where(tame, both.hi, out.hi))), 8
    )


@rule("addcmul", "addcdiv")
def _addc(c: Call) -> Interval:
    a, b = c["tensor1"], c["tensor2"]
    term = multiply(a, b) if c.name == "addcmul" else divide(a, b)
    term = multiply(mended(term), c["value"])
    x = c["self"]
    slack = finite_size(term) * 8
    slack = slack * torch.finfo(c.dtype).eps if c.dtype.is_floating_point else slack * 0
    out = add(x, term)
    return c.near(Interval(out.lo - slack, out.hi + slack), 2)


@rule("copysign")
def _copysign(c: Call) -> Interval:
    size = magnitude(c["self"])
    return Interval(-size.hi, size.hi.clone())


@rule("xlogy", "special_xlog1py")
def _xlogy(c: Call) -> Interval:
    x, y = c["self"], c["other"]

    def f(v: Tensor) -> Tensor:
        return v.clamp_min(0).log() if c.name == "xlogy" else v.clamp_min(-1).log1p()

    return c.near(mended(multiply(x, Interval(f(y.lo), f(y.hi)))), 8)


@rule("logaddexp", "logaddexp2")
def _logaddexp(c: Call) -> Interval:
    f, x, y = getattr(torch, c.name), c["self"], c["other"]
    out = c.near(mended(Interval(f(x.lo, y.lo), f(x.hi, y.hi))), 8)
    eps = 8 * torch.finfo(c.dtype).eps
    return Interval(out.lo - eps, out.hi + eps)


@rule("eq", "ne", "lt", "le", "gt", "ge")
def _compare(c: Call) -> Interval:
    x, y = c["self"], c["other"]
    name = c.name
    if name in ("eq", "ne"):
        apart = (x.lo > y.hi) | (x.hi < y.lo)
        alike = (x.lo == x.hi) & (y.lo == y.hi) & (x.lo == y.lo)
        surely, never = (alike, apart) if name == "eq" else (apart, alike)
    else:
        if name in ("gt", "ge"):
            x, y = y, x
        strict = name in ("lt", "gt")
        surely = x.hi < y.lo if strict else x.hi <= y.lo
        never = x.lo >= y.hi if strict else x.lo > y.hi
    return Interval(surely.double(), (~never).double())


@rule(
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
)
def _logic(c: Call) -> Interval:
    x, y = c["self"], c["other"]
    if c.dtype != torch.bool:
        return c.anything()
    if c.name.startswith("logical"):
        x, y = (_truth(v) for v in (x, y))
    if "and" in c.name:
        return Interval(torch.minimum(x.lo, y.lo), torch.minimum(x.hi, y.hi))
    if "xor" in c.name:
        known = (x.lo == x.hi) & (y.lo == y.hi)
        differ = (x.lo != y.lo).double()
        return Interval(torch.where(known, differ, 0.0), torch.where(known, differ, 1.0))
    return Interval(torch.maximum(x.lo, y.lo), torch.maximum(x.hi, y.hi))


def _truth(x: Interval) -> Interval:
    surely, never = (x.lo > 0) | (x.hi < 0), (x.lo == 0) & (x.hi == 0)
    return Interval(surely.double(), (~never).double())


@rule("isclose")
def _isclose(c: Call) -> Interval:
    zero = torch.zeros(c.out.shape, dtype=torch.float64, device=c.out.device)
    return Interval(zero, zero + 1)
