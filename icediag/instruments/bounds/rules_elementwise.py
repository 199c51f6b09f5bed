"""Rules for functions of one value: monotone ones, those with one minimum, waves."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .calls import Call, rule
from .intervals import (
    INF,
    Interval,
    between,
    clipped,
    divide,
    magnitude,
    mended,
    negated,
    number,
    square,
    union,
    widened,
)
from .shadow import INVERSE, ROOT, Origin

Function = Callable[[Tensor], Tensor]
TOP = math.pi / 2


def rising(c: Call, f: Function, low: float = -INF, high: float = INF) -> Interval:
    """A function that never falls: its values at the ends, within limits it keeps in any case."""
    x = c["self"]
    return clipped(c.near(mended(Interval(f(x.lo), f(x.hi)))), low, high)


def _enterrising() -> None:
    """Functions that never fall: name -> (function, smallest and largest value)."""
    table: dict[str, tuple[Function, float, float]] = {
        "exp": (torch.exp, 0, INF),
        "exp2": (torch.exp2, 0, INF),
        "expm1": (torch.expm1, -1, INF),
        "sinh": (torch.sinh, -INF, INF),
        "asinh": (torch.asinh, -INF, INF),
        # Outside of its domain a function gives NaN, so the argument was inside.
        "log": (lambda x: x.clamp_min(0).log(), -INF, INF),
        "log2": (lambda x: x.clamp_min(0).log2(), -INF, INF),
        "log10": (lambda x: x.clamp_min(0).log10(), -INF, INF),
        "log1p": (lambda x: x.clamp_min(-1).log1p(), -INF, INF),
        "acosh": (lambda x: x.clamp_min(1).acosh(), 0, INF),
        "atanh": (lambda x: x.clamp(-1, 1).atanh(), -INF, INF),
        "erfinv": (lambda x: x.clamp(-1, 1).erfinv(), -INF, INF),
        "logit": (lambda x: x.clamp(0, 1).logit(), -INF, INF),
        "deg2rad": (torch.deg2rad, -INF, INF),
        "rad2deg": (torch.rad2deg, -INF, INF),
    }
    for name, (f, low, high) in table.items():
        rule(name)(lambda c, f=f, low=low, high=high: rising(c, f, low, high))  # type: ignore[misc]
    bounded: dict[str, tuple[Function, float, float]] = {
        "tanh": (torch.tanh, -1, 1),
        "sigmoid": (torch.sigmoid, 0, 1),
        "erf": (torch.erf, -1, 1),
        "atan": (torch.atan, -TOP * (1 + 1e-7), TOP * (1 + 1e-7)),
        "asin": (lambda x: x.clamp(-1, 1).asin(), -TOP * (1 + 1e-7), TOP * (1 + 1e-7)),
    }
    for name, (f, low, high) in bounded.items():
        rule(name, kind="squash")(
            lambda c, f=f, low=low, high=high: rising(c, f, low, high)  # type: ignore[misc]
        )


_enterrising()


@rule("sign", "floor", "ceil", "round", "trunc", "relu")
def _stepwise(c: Call) -> Interval | None:
    if c.name == "round" and c.args.get("decimals"):
        x, n = c["self"], int(c.args["decimals"])
        return c.near(Interval(*(torch.round(end, decimals=n) for end in (x.lo, x.hi))), 8)
    return _alike(c)


def _alike(c: Call) -> Interval:
    x, f = c["self"], getattr(torch, c.name)
    return Interval(f(x.lo), f(x.hi))


@rule("sgn", "positive", "alias", "detach", "lift", "lift_fresh")
def _same(c: Call) -> Interval:
    x = c["self"]
    return Interval(x.lo.sign(), x.hi.sign()) if c.name == "sgn" else Interval(x.lo, x.hi)


@rule("nan_to_num")
def _nan_to_num(c: Call) -> Interval:
    # NaN lies in no interval, but here it becomes a number: that number is in it from now on.
    x, top = c["self"], torch.finfo(c.dtype).max if c.dtype.is_floating_point else INF
    nan = 0.0 if c.args.get("nan") is None else float(c.args["nan"])
    high = top if c.args.get("posinf") is None else float(c.args["posinf"])
    low = -top if c.args.get("neginf") is None else float(c.args["neginf"])
    # An infinite end stands for large finite numbers too, which stay.
    reach_high = torch.where(x.hi.isinf(), max(high, top), x.hi)
    reach_low = torch.where(x.lo.isinf(), min(low, -top), x.lo)
    return c.exact(Interval(reach_low.clamp_max(nan), reach_high.clamp_min(nan)))


@rule("neg")
def _neg(c: Call) -> Interval:
    return negated(c["self"])


@rule("acos", kind="squash")
def _acos(c: Call) -> Interval:
    x = c["self"]
    ends = (x.hi.clamp(-1, 1).acos(), x.lo.clamp(-1, 1).acos())
    return clipped(c.near(Interval(*ends)), 0, math.pi * (1 + 1e-7))


@rule("erfc")
def _erfc(c: Call) -> Interval:
    x = c["self"]
    return clipped(c.near(Interval(torch.erfc(x.hi), torch.erfc(x.lo))), 0, 2)


@rule("reciprocal")
def _reciprocal(c: Call) -> Interval:
    result = c.exact(divide(number(1, torch.float64), c["self"]))
    _inverse_groups(c)
    return result


@rule("sqrt")
def _sqrt(c: Call) -> Interval:
    x = c["self"]
    source, groups = c.args["self"], c.shadows.bound(c.args["self"])
    if groups is not None:
        shadow = c.shadows.of(source)
        factor = math.sqrt(shadow.factor) if shadow is not None else 1.0
        ids = torch.where((groups > 0) & (groups < ROOT), groups + ROOT, 0)
        c.after.append(lambda: c.shadows.set_bound(c.out, ids, factor))
    return clipped(c.near(Interval(x.lo.clamp_min(0).sqrt(), x.hi.clamp_min(0).sqrt()), 1), 0, INF)


@rule("rsqrt")
def _rsqrt(c: Call) -> Interval:
    x = c["self"]
    source, groups = c.args["self"], c.shadows.bound(c.args["self"])
    if groups is not None:
        shadow = c.shadows.of(source)
        factor = math.sqrt(shadow.factor) if shadow is not None else 1.0
        ids = torch.where((groups > 0) & (groups < ROOT), groups + ROOT + INVERSE, 0)
        c.after.append(lambda: c.shadows.set_bound(c.out, ids, factor))
    return clipped(c.near(Interval(*(v.clamp_min(0).rsqrt() for v in (x.hi, x.lo)))), 0, INF)


def _inverse_groups(c: Call) -> None:
    groups = c.shadows.bound(c.args["self"])
    shadow = c.shadows.of(c.args["self"])
    if groups is not None and shadow is not None:
        ids = torch.where((groups > 0) & (groups < INVERSE), groups + INVERSE, 0)
        factor = shadow.factor
        c.after.append(lambda: c.shadows.set_bound(c.out, ids, factor))


@rule("cosh")
def _cosh(c: Call) -> Interval:
    x = magnitude(c["self"])
    return clipped(c.near(Interval(x.lo.cosh(), x.hi.cosh())), 1, INF)


@rule("abs")
def _abs(c: Call) -> Interval:
    x = c.args["self"]
    if c.dtype.is_floating_point:
        ids = c.shadows.groups(x.numel(), x.device).view(x.shape)
        c.after.append(lambda: _related(c, ids, square_of=False))
    return magnitude(c["self"])


def _related(c: Call, ids: Tensor | None, *, square_of: bool) -> None:
    """Remember what a magnitude or a square was taken of; a magnitude bounds its argument."""
    x, shadow = c.args["self"], c.shadows.of(c.out)
    if shadow is None or x is c.out:
        return
    shadow.origin = Origin(x.detach(), x._version, square_of)  # noqa: SLF001 - the only way
    if ids is not None:
        c.shadows.set_member(x, ids)
        c.shadows.set_bound(c.out, ids)


def squared(c: Call) -> Interval:
    """X * x of one and the same tensor."""
    c.after.append(lambda: _related(c, None, square_of=True))
    return c.exact(square(c["self"]))


@rule("square")
def _square(c: Call) -> Interval:
    return squared(c)


@rule("sin", kind="wave")
def _sin(c: Call) -> Interval:
    return _wave(c, torch.sin, TOP)


@rule("cos", kind="wave")
def _cos(c: Call) -> Interval:
    return _wave(c, torch.cos, 0.0)


def _wave(c: Call, f: Function, crest: float) -> Interval:
    """Sine or cosine, whose crests are at `crest` + 2 pi k and troughs half a turn further."""
    x, turn = c["self"], 2 * math.pi
    # Far from 0 float64 does not tell where in the turn a number is; an end stands for its
    # neighbours too.
    far = ~((x.lo.abs() < 1e7) & (x.hi.abs() < 1e7))
    lo, hi = torch.where(far, 0.0, x.lo), torch.where(far, 0.0, x.hi)
    slack = 1e-8

    def holds(point: float) -> Tensor:
        first = torch.ceil((lo - slack - point) / turn)
        return far | (first * turn + point <= hi + slack)

    ends = (f(lo), f(hi))
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    out = Interval(
        torch.where(holds(crest + math.pi), -1.0, low), torch.where(holds(crest), 1.0, high)
    )
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    return clipped(widened(Interval(out.lo - eps, out.hi + eps), c.dtype, 4), -1, 1)


@rule("tan")
def _tan(c: Call) -> Interval:
    x = c["self"]
    tame = (x.lo > -1.5) & (x.hi < 1.5)
    out = c.near(Interval(x.lo.tan(), x.hi.tan()), 8)
    return Interval(torch.where(tame, out.lo, -INF), torch.where(tame, out.hi, INF))


@rule("sinc")
def _sinc(c: Call) -> Interval:
    return between(-0.2173, 1.0, c.out)


@rule("frac")
def _frac(c: Call) -> Interval:
    x = c["self"]
    small = (x.lo > -1) & (x.hi < 1)
    wide = union(clipped(x, -1, 0), clipped(x, 0, 1))
    return Interval(torch.where(small, x.lo, wide.lo), torch.where(small, x.hi, wide.hi))


@rule("logical_not", "isnan", "isinf", "isfinite")
def _logic(c: Call) -> Interval | None:
    x = c["self"]
    if c.name == "logical_not":
        surely, never = (x.lo > 0) | (x.hi < 0), (x.lo == 0) & (x.hi == 0)
        return Interval(never.double(), (~surely).double())
    zero = torch.zeros_like(x.lo)
    if c.name == "isnan":
        return Interval(zero, zero + 1)
    infinite = x.lo.isinf() | x.hi.isinf()
    high = torch.where(infinite, 1.0, 0.0)
    return Interval(zero, high) if c.name == "isinf" else Interval(zero, zero + 1)


@rule("bitwise_not")
def _not(c: Call) -> Interval:
    x = c["self"]
    return Interval(1 - x.hi, 1 - x.lo) if c.dtype == torch.bool else Interval(-1 - x.hi, -1 - x.lo)


@rule("_to_copy", "to")
def _to_copy(c: Call) -> Interval:
    """A cast. To whole numbers it cuts off; to bool it asks whether there is anything."""
    x, source = c["self"], c.args["self"]
    lo, hi = x.lo.to(c.out.device).clone(), x.hi.to(c.out.device).clone()
    copied(c, source)
    if c.dtype == torch.bool:
        surely, never = (lo > 0) | (hi < 0), (lo == 0) & (hi == 0)
        return Interval(surely.double(), (~never).double())
    if not c.dtype.is_floating_point:
        info = torch.iinfo(c.dtype)
        lo, hi = lo.trunc(), hi.trunc()
        # What does not fit wraps around, or becomes anything.
        fits = (lo >= info.min) & (hi <= info.max)
        return Interval(
            torch.where(fits, lo, float(info.min)), torch.where(fits, hi, float(info.max))
        )
    if c.dtype == torch.float64:
        return Interval(lo, hi)
    return Interval(lo.to(c.dtype).double(), hi.to(c.dtype).double())


def copied(c: Call, source: Tensor) -> None:
    """A copy, entry by entry, is in the groups that its source is in."""
    member, bound, shadow = c.shadows.member(source), c.shadows.bound(source), c.shadows.of(source)
    if shadow is None or not (source.is_floating_point() and c.out.is_floating_point()):
        return
    factor, runs = shadow.factor, c.shadows.shares(source)
    # A narrower type rounds; groups are compared with some slack, but not with that much.
    if torch.finfo(c.out.dtype).eps > torch.finfo(source.dtype).eps:
        return

    def note() -> None:
        if member is not None:
            c.shadows.set_member(c.out, member.to(c.out.device))
        if bound is not None:
            c.shadows.set_bound(c.out, bound.to(c.out.device), factor)
        new = c.shadows.of(c.out)
        if runs and new is not None and c.out.is_contiguous():
            new.runs = c.out.shape[-1]

    c.after.append(note)


def kept_above(c: Call, source: Tensor) -> None:
    """What is never smaller than its source bounds what that bounds."""
    bound, shadow = c.shadows.bound(source), c.shadows.of(source)
    if bound is None or shadow is None or bound.shape != c.out.shape:
        return
    factor = shadow.factor
    ids = torch.where(bound < INVERSE, bound, 0)
    c.after.append(lambda: c.shadows.set_bound(c.out, ids, factor))
