"""Rules for reductions by index: sums, means and extremes of the members of groups."""

from typing import Any

import torch
from torch import Tensor

from .calls import Call, rule
from .intervals import INF, Interval, by_amount, clipped, finite_size, mended, multiply
from .rules_structure import ends, from_anywhere, index_arguments, run, summed


@rule("scatter_add", "index_add")
def _scatter_add(c: Call) -> Interval | None:
    names = ("self", "src") if c.name == "scatter_add" else ("self", "source")
    if any(c.unknown(value) for value in index_arguments(c)):
        x, src = c["self"], c[names[1]]
        if c.args.get("alpha", 1) != 1:
            return None
        low, high = src.lo.clamp_max(0).sum(), src.hi.clamp_min(0).sum()
        slack = (high - low).nan_to_num(posinf=0.0) * 1e-3
        return c.near(Interval(x.lo + low - slack, x.hi + high + slack), 8)
    if c.args.get("alpha", 1) != 1:
        src = multiply(c[names[1]], c.of(c.args["alpha"]))
        lo, hi = (
            run(c, {"self": a, names[1]: b, "alpha": 1})
            for a, b in ((c["self"].lo, src.lo), (c["self"].hi, src.hi))
        )
        return c.near(mended(Interval(lo, hi)), 1000)
    out = Interval(*(ends(c, names, which) for which in ("lo", "hi")))
    group_by_index(c, c.args["self"], c.args[names[1]], c.args["index"], int(c.args["dim"]))
    if c.dtype.is_floating_point:
        count = run(
            c, {"self": torch.zeros_like(out.lo), names[1]: torch.ones_like(c[names[1]].lo)}
        )
        size = {n: finite_size(c[n]) for n in names}
        # Each entry has rounding of its own: as many additions as it has terms.
        amount = run(c, size) * (count + 1) * torch.finfo(c.dtype).eps
        positive = bool((c["self"].lo >= 0).all()) and bool((c[names[1]].lo >= 0).all())
        out = by_amount(mended(out), amount, c.dtype)
        # No sum of values that are not negative is negative, however it is rounded.
        return clipped(out, 0, INF) if positive else out
    return mended(out)


def group_by_index(
    c: Call, start: Tensor | None, src: Tensor, index: Tensor, dim: int, out: Tensor | None = None
) -> None:
    """Sums and maxima of values that are never negative bound each of them."""
    result = c.out if out is None else out
    if not c.dtype.is_floating_point or not bool((c.of(src).lo >= 0).all()):
        return
    if start is not None and not bool((c.of(start).lo >= 0).all()):
        return
    ids = c.shadows.groups(result.numel(), result.device).view(result.shape)
    if index.ndim == 1 and src.ndim > 1:
        members = ids.index_select(dim, index)
    elif index.shape == src.shape:
        members = ids.gather(dim, index)
    else:
        return

    def note() -> None:
        c.shadows.set_member(src, members)
        c.shadows.set_bound(result, ids)

    c.after.append(note)


@rule("scatter_reduce", "index_reduce")
def _scatter_reduce(c: Call) -> Any:
    names = ("self", "src") if c.name == "scatter_reduce" else ("self", "source")
    how = c.args["reduce"]
    if any(c.unknown(value) for value in index_arguments(c)):
        return from_anywhere(c, names) if how in ("amax", "amin") else None
    if how == "prod":
        return None
    out = Interval(*(ends(c, names, which) for which in ("lo", "hi")))
    if how in ("amax", "amin"):
        if how == "amax":
            start = c.args["self"] if c.args["include_self"] else None
            group_by_index(c, start, c.args[names[1]], c.args["index"], int(c.args["dim"]))
        return out
    return summed(c, out, names)
