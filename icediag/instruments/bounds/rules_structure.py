"""Rules for what only moves entries, and for what never falls when an argument entry rises.

Both act on lower and upper ends alike: the operation itself is run on the ends.
"""

from typing import Any

import torch
from torch import Tensor

from .calls import Call, rule
from .intervals import Interval, by_amount, finite_size, mended
from .rules_elementwise import copied

#: Operations that give entries of their arguments as they are: name -> arguments that hold them.
COPIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        [
            "clone",
            "contiguous",
            "index_select",
            "gather",
            "index",
            "take",
            "take_along_dim",
            "repeat",
            "flip",
            "roll",
            "tril",
            "triu",
            "unfold",
            "im2col",
            "reshape",
            "rot90",
            "diag_embed",
            "_unsafe_index",
            "pixel_shuffle",
            "pixel_unshuffle",
            "channel_shuffle",
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "constant_pad_nd",
            "replication_pad2d",
            "replication_pad3d",
            "repeat_interleave",
            "masked_select",
            "_unsafe_view",
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "_pin_memory",
            "unsafe_split",
        ],
        ("self",),
    ),
    "cat": ("tensors",),
    "stack": ("tensors",),
    "scatter": ("self", "src", "value"),
    "index_copy": ("self", "source"),
    "index_fill": ("self", "value"),
    "index_put": ("self", "values"),
    "masked_scatter": ("self", "source"),
    "embedding": ("weight",),
    "slice_scatter": ("self", "src"),
    "select_scatter": ("self", "src"),
    "diagonal_scatter": ("self", "src"),
    "copy": ("src",),
}
#: Of these the order of the entries is all that changes, so groups go with them.
GROUPED = {
    "clone", "contiguous", "index_select", "gather", "index", "repeat", "flip", "roll",
    "_unsafe_index", "_unsafe_view", "reshape", "take_along_dim",
}  # fmt: skip

#: Operations that never fall when an entry of these arguments rises.
RISING: dict[str, tuple[str, ...]] = {
    "max_pool1d": ("self",),
    "max_pool2d": ("self",),
    "max_pool3d": ("self",),
    "median_whole": ("self",),
    "upsample_linear1d": ("self",),
    "upsample_bilinear2d": ("self",),
    "upsample_trilinear3d": ("self",),
    "_upsample_bilinear2d_aa": ("self",),
    "avg_pool1d": ("self",),
    "avg_pool2d": ("self",),
    "avg_pool3d": ("self",),
    "_adaptive_avg_pool2d": ("self",),
    "_adaptive_avg_pool3d": ("self",),
    "mkldnn_adaptive_avg_pool2d": ("self",),
}
#: The same, and the second result says where the entry was found.
RISING_WITH_INDEX: dict[str, tuple[str, ...]] = {
    "max_pool2d_with_indices": ("self",),
    "max_pool3d_with_indices": ("self",),
    "adaptive_max_pool1d": ("self",),
    "adaptive_max_pool2d": ("self",),
    "adaptive_max_pool3d": ("self",),
    "sort": ("self",),
    "topk": ("self",),
    "kthvalue": ("self",),
    "cummax": ("self",),
    "cummin": ("self",),
    "mode": ("self",),
}


def ends(c: Call, names: tuple[str, ...], which: str, **changes: Any) -> Any:
    """The operation run on the ends of its values."""

    def end(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [end(item) for item in value]
        if isinstance(value, Tensor):
            return getattr(c.shadows.interval(value), which)
        return value

    return run(c, {name: end(c.args[name]) for name in names if name in c.args} | changes)


def run(c: Call, changes: dict[str, Any]) -> Any:
    """The operation, not in place, with some arguments replaced."""
    positional, named = [], {}
    for argument in c.function._schema.arguments:  # noqa: SLF001 - the only way to its schema
        if argument.is_out:
            continue
        value = changes.get(argument.name, c.args.get(argument.name))
        if argument.kwarg_only:
            if argument.name not in ("dtype", "layout", "device", "pin_memory"):
                named[argument.name] = value
        else:
            positional.append(value)
    return c.function(*positional, **named)


def index_arguments(c: Call) -> list[Any]:
    """Arguments that say where entries come from or go to."""
    names = ("index", "indices", "mask", "repeats")
    return [c.args[name] for name in names if c.has(name)]


def _copy(c: Call, names: tuple[str, ...]) -> Any:
    if any(c.unknown(value) for value in index_arguments(c)):
        return from_anywhere(c, names)
    lo, hi = ends(c, names, "lo"), ends(c, names, "hi")
    _mapped_last(c, names)
    if c.name in GROUPED:
        _mapped_groups(c)
    if isinstance(lo, (list, tuple)):
        return [c.exact(Interval(a, b)) for a, b in zip(lo, hi, strict=True)]
    return c.exact(Interval(lo, hi))


def _values(c: Call, names: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for name in names:
        value = c.args.get(name)
        if value is not None:
            found += list(value) if isinstance(value, (list, tuple)) else [value]
    return found


def from_anywhere(c: Call, names: tuple[str, ...]) -> Interval | None:
    """Where the index is unknown: anything that is among the values."""
    if c.name in ("masked_select", "repeat_interleave", "masked_scatter"):
        return None  # even the shape depends on the values
    if c.args.get("accumulate"):
        return None
    if c.name == "gather" or c.name == "index_select":
        dim, x = c.args["dim"], c["self"]
        if x.lo.ndim:
            low = x.lo.amin(dim, keepdim=True).expand(c.out.shape) if c.name != "gather" else None
            if low is not None:
                return Interval(low, x.hi.amax(dim, keepdim=True).expand(c.out.shape))
    lows = [c.of(value).lo.amin() for value in _values(c, names) if _some(value)]
    highs = [c.of(value).hi.amax() for value in _values(c, names) if _some(value)]
    if not lows:
        return c.anything()
    low, high = torch.stack(lows).amin(), torch.stack(highs).amax()
    return Interval(low.expand(c.out.shape), high.expand(c.out.shape))


def _some(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.numel() > 0


def _mapped_last(c: Call, names: tuple[str, ...]) -> None:
    """Where entries come from different bounding operations, each keeps its own."""
    values = [value for value in _values(c, names) if isinstance(value, Tensor)]
    lasts = [c.shadows.last(value) for value in values]
    if all(not isinstance(last, Tensor) and last == lasts[0] for last in lasts):
        return

    def numbers(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [numbers(item) for item in value]
        if not isinstance(value, Tensor):
            return 0
        last = c.shadows.last(value)
        if isinstance(last, Tensor):
            return last
        return torch.full(value.shape, last, dtype=torch.int64, device=value.device)

    found = run(c, {name: numbers(c.args[name]) for name in names if name in c.args})
    c.last = found if isinstance(found, Tensor) else None


def _mapped_groups(c: Call) -> None:
    source = c.args["self"]
    if c.name in ("clone", "contiguous"):
        copied(c, source)
        return
    member, bound, shadow = c.shadows.member(source), c.shadows.bound(source), c.shadows.of(source)
    if shadow is None or (member is None and bound is None):
        return
    factor = shadow.factor
    if member is not None:
        of_members = run(c, {"self": member})
        c.after.append(lambda: c.shadows.set_member(c.out, of_members))
    if bound is not None:
        of_bounds = run(c, {"self": bound})
        c.after.append(lambda: c.shadows.set_bound(c.out, of_bounds, factor))


def _enter() -> None:
    for name, names in COPIES.items():
        if name in ("copy", "index_put"):
            continue
        rule(name)(lambda c, names=names: _copy(c, names))  # type: ignore[misc]
    for name, names in RISING.items():
        rule(name)(lambda c, names=names: _rising(c, names))  # type: ignore[misc]
    for name, names in RISING_WITH_INDEX.items():
        rule(name)(lambda c, names=names: _rising_with_index(c, names))  # type: ignore[misc]


@rule("_pack_padded_sequence")
def _packed_rows(c: Call) -> list[Interval | None] | None:
    """Rows of sequences in order of time; how many there are at each step, the lengths tell."""
    if c.unknown(c.args["lengths"]):
        return None
    lo, hi = (ends(c, ("input",), end)[0] for end in ("lo", "hi"))
    return [c.exact(Interval(lo, hi)), None]


def _rising(c: Call, names: tuple[str, ...]) -> Interval:
    """Averages: the ends of an average with -inf and +inf among them are NaN, which is mended."""
    x = c["self"]
    # An average over padding and interpolation weights are accurate to a few units of the largest.
    size = finite_size(x)
    largest = size.amax() if size.numel() else size.sum()
    lo, hi = ends(c, names, "lo"), ends(c, names, "hi")
    units = 64 * torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    return by_amount(mended(Interval(lo, hi)), largest * units, c.dtype)


def _rising_with_index(c: Call, names: tuple[str, ...]) -> list[Interval | None]:
    lo, hi = ends(c, names, "lo")[0], ends(c, names, "hi")[0]
    source, found = c.args["self"], c.outs[-1]
    zero = torch.zeros(found.shape, dtype=torch.float64, device=found.device)
    axis = c.args.get("dim")
    n = source.numel() if axis is None or not source.ndim else source.shape[axis]
    if c.name == "mode":
        x = c["self"]
        lo = x.lo.amin(c.args["dim"], keepdim=c.args["keepdim"])
        hi = x.hi.amax(c.args["dim"], keepdim=c.args["keepdim"])
    return [Interval(lo, hi), Interval(zero, zero + max(n - 1, 0))]


@rule("copy")
def _copy_over(c: Call) -> Interval:
    """`a.copy_(b)`: what b holds, in a's shape and type."""
    x = c["src"]
    shape = c.out.shape
    lo, hi = x.lo.expand(shape).clone(), x.hi.expand(shape).clone()
    if not c.dtype.is_floating_point:
        if c.dtype == torch.bool:
            never = (lo == 0) & (hi == 0)
            return Interval(((lo > 0) | (hi < 0)).double(), (~never).double())
        return Interval(lo.trunc(), hi.trunc())
    return Interval(lo.to(c.dtype).double(), hi.to(c.dtype).double())


@rule("index_put", "_unsafe_index_put")
def _index_put(c: Call) -> Any:
    if not c.args.get("accumulate"):
        return _copy(c, ("self", "values"))
    if any(c.unknown(value) for value in index_arguments(c)):
        return None
    lo, hi = (ends(c, ("self", "values"), which) for which in ("lo", "hi"))
    return summed(c, Interval(lo, hi), ("self", "values"))


def summed(c: Call, out: Interval, names: tuple[str, ...]) -> Interval:
    """Room for rounding in sums: the number of terms times the sum of their magnitudes."""
    sizes = {name: finite_size(c[name]) for name in names if c.has(name)}
    total = run(c, sizes)
    longest = sum(value.numel() for value in (c.args[name] for name in names))
    eps = torch.finfo(c.dtype).eps if c.dtype.is_floating_point else 0.0
    return by_amount(mended(out), total * eps * min(longest, 100_000), c.dtype)


@rule("tril_indices", "nonzero", "nonzero_static", "unique", "_unique2", "bincount")
def _by_value(_: Call) -> None:
    """The shape of the result depends on the values: no rule."""
    return


@rule("zero", "fill", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
def _constant(c: Call) -> Interval:
    """Whatever was there, it is a constant now."""
    value: Any = c.args.get("value", c.args.get("fill_value", float("one" in c.name)))
    found = c.of(value)
    return c.exact(Interval(found.lo.expand(c.out.shape), found.hi.expand(c.out.shape)))


@rule("argmax", "argmin", "argsort", "searchsorted", "bucketize")
def _indices(c: Call) -> Interval:
    source = c.first("self", "sorted_sequence", "boundaries")
    if c.name == "bucketize":
        source = c.args["boundaries"]
    n = source.numel() if c.args.get("dim") is None else source.shape[c.args["dim"]]
    if c.name == "searchsorted":
        n = source.shape[-1]
    top = n if c.name in ("searchsorted", "bucketize") else max(n - 1, 0)
    zero = torch.zeros(c.out.shape, dtype=torch.float64, device=c.out.device)
    return Interval(zero, zero + top)


_enter()
