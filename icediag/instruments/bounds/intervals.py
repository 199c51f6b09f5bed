"""Intervals: a lower and an upper end for every entry of a tensor, and sound arithmetic on them.

Ends are float64 whatever the tensor holds. An end that is infinite stands for "any finite number"
as much as for infinity itself: 0 times anything is 0. NaN lies in no interval. After each operation
the ends are moved outward by what rounding in the tensor's own type can add.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

INF = float("inf")


@dataclass(frozen=True, slots=True)
class Interval:
    """Entry by entry, `lo <= value <= hi`.

    Attributes:
        lo: float64, any shape that broadcasts with `hi`.
        hi: float64.
    """

    lo: Tensor
    hi: Tensor

    @property
    def constant(self) -> bool:
        """Whether both ends are the same tensor: nothing about it is unknown."""
        return self.lo is self.hi


def number(value: float | int | bool, dtype: torch.dtype) -> Interval:
    """A Python number in an operation on `dtype`: itself or rounded, as the kernel likes."""
    wide = torch.tensor(float(value), dtype=torch.float64)
    if not dtype.is_floating_point or dtype == torch.float64:
        return Interval(wide, wide)
    narrow = wide.to(dtype if dtype == torch.float32 else torch.float32).double()
    if bool(narrow == wide):
        return Interval(wide, wide)
    return Interval(torch.minimum(wide, narrow), torch.maximum(wide, narrow))


def everything(shape: tuple[int, ...] | torch.Size, device: torch.device) -> Interval:
    """Any number at all."""
    return Interval(
        torch.full(shape, -INF, dtype=torch.float64, device=device),
        torch.full(shape, INF, dtype=torch.float64, device=device),
    )


def between(low: float, high: float, like: Tensor) -> Interval:
    """The same two ends for every entry, in the shape of `like`."""
    return Interval(
        torch.full(like.shape, low, dtype=torch.float64, device=like.device),
        torch.full(like.shape, high, dtype=torch.float64, device=like.device),
    )


def mended(interval: Interval) -> Interval:
    """An end that came out as NaN says nothing: it is infinite instead."""
    lo, hi = interval.lo, interval.hi
    return Interval(
        torch.nan_to_num(lo, nan=-INF, posinf=INF, neginf=-INF),
        torch.nan_to_num(hi, nan=INF, posinf=INF, neginf=-INF),
    )


def rounded(interval: Interval, dtype: torch.dtype) -> Interval:
    """Ends of an operation that is correctly rounded in `dtype`.

    Rounding never turns the order of two numbers round, so rounding the ends is enough. Computed in
    float64 they are off by half a unit themselves, hence one step outward first; where the type is
    float64 the operation on the ends is the operation on the values.
    """
    if not dtype.is_floating_point or dtype == torch.float64:
        return interval
    down = torch.nextafter(interval.lo, torch.full_like(interval.lo, -INF))
    up = torch.nextafter(interval.hi, torch.full_like(interval.hi, INF))
    return Interval(down.to(dtype).double(), up.to(dtype).double())


def widened(interval: Interval, dtype: torch.dtype, units: float) -> Interval:
    """Ends moved outward by `units` roundings of `dtype`, relative, and by as many of its smallest.

    For what is accurate but not correctly rounded: transcendental functions, sums of many terms.
    """
    if not dtype.is_floating_point:
        return interval
    # Flushed to zero, a subnormal result is off by the smallest normal number.
    # One unit more, because the ends themselves are rounded to the type.
    eps, tiny = (units + 1) * torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    lo, hi = interval.lo, interval.hi
    # An infinite end stays; -inf - inf would, +inf - inf would be NaN.
    lo = torch.where(lo.isinf(), lo, lo - (lo.abs() * eps + tiny))
    hi = torch.where(hi.isinf(), hi, hi + (hi.abs() * eps + tiny))
    return _cast(Interval(lo, hi), dtype)


def _cast(interval: Interval, dtype: torch.dtype) -> Interval:
    """Ends rounded to the type: what is above its largest number is infinite."""
    if dtype == torch.float64:
        return interval
    return Interval(interval.lo.to(dtype).double(), interval.hi.to(dtype).double())


def by_amount(interval: Interval, amount: Tensor, dtype: torch.dtype) -> Interval:
    """Ends moved outward by an absolute amount, of at least one rounding of the value."""
    if not dtype.is_floating_point:
        return interval
    amount = amount + torch.finfo(dtype).tiny
    return _cast(mended(Interval(interval.lo - amount, interval.hi + amount)), dtype)


def clipped(interval: Interval, low: float, high: float) -> Interval:
    """What is left of an interval within two limits that the operation keeps in any case."""
    return Interval(interval.lo.clamp(low, high), interval.hi.clamp(low, high))


def union(a: Interval, b: Interval) -> Interval:
    """The smallest interval that holds both."""
    return Interval(torch.minimum(a.lo, b.lo), torch.maximum(a.hi, b.hi))


def within(a: Interval, b: Interval) -> Interval:
    """What lies in both, where both are true of the same value."""
    return Interval(torch.maximum(a.lo, b.lo), torch.minimum(a.hi, b.hi))


def add(a: Interval, b: Interval) -> Interval:
    """A + b."""
    return mended(Interval(a.lo + b.lo, a.hi + b.hi))


def negated(a: Interval) -> Interval:
    """-a."""
    return Interval(-a.hi, -a.lo)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.nan_to_num(a * b, nan=0.0, posinf=INF, neginf=-INF)


def multiply(a: Interval, b: Interval) -> Interval:
    """A * b, where 0 times infinity is 0."""
    ends = [_product(a.lo, b.lo), _product(a.hi, b.lo)]
    if not b.constant:
        ends += [_product(a.lo, b.hi), _product(a.hi, b.hi)]
    return _hull(ends)


def _hull(ends: list[Tensor]) -> Interval:
    low = high = ends[0]
    for end in ends[1:]:
        low, high = torch.minimum(low, end), torch.maximum(high, end)
    return Interval(low, high)


def divide(a: Interval, b: Interval) -> Interval:
    """A / b; anything where b can be 0."""
    zero = (b.lo <= 0) & (b.hi >= 0)
    low = torch.where(zero, 1.0, b.lo)
    high = torch.where(zero, 1.0, b.hi)
    # inf / inf: the other quotients of the same ends already reach as far.
    ends = [
        torch.nan_to_num(x / y, nan=0.0, posinf=INF, neginf=-INF)
        for x in (a.lo, a.hi)
        for y in (low, high)
    ]
    hull = _hull(ends)
    return Interval(torch.where(zero, -INF, hull.lo), torch.where(zero, INF, hull.hi))


def magnitude(a: Interval) -> Interval:
    """|a|."""
    low = torch.maximum(a.lo, -a.hi).clamp_min(0)
    return Interval(low, torch.maximum(-a.lo, a.hi))


def square(a: Interval) -> Interval:
    """A * a."""
    size = magnitude(a)
    return Interval(size.lo * size.lo, size.hi * size.hi)


def finite_size(a: Interval) -> Tensor:
    """The larger magnitude of the ends that are finite, 0 where none is: what rounding is to.

    Rounding keeps the order of sums, so the rounding of an end is in proportion to that end.
    """
    low = torch.where(a.lo.isinf(), 0.0, a.lo.abs())
    return torch.maximum(low, torch.where(a.hi.isinf(), 0.0, a.hi.abs()))
