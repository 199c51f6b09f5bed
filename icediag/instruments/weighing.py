"""Weighing: weighted means, recognised from operations alone, whatever the code is called.

`sum(w * x) / sum(w)` over rows, slots or groups, and `sum(x * (w / sum(w)))`: what is multiplied
with the values and summed up beside them are weights. Each tensor is followed through views, casts
and clamps by its storage; a sum remembers how it was taken, and is taken again of the weights'
magnitudes and of their number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from icediag.pipeline import Pipeline
from icediag.records.weighing import WeighedMean, WeighingRecord

from .bounds.dispatch import name_of, named_of
from .bounds.places import line_of_user
from .recorder.following import (
    SAME_VALUES,
    FollowingMode,
    follow_values,
    key_of,
    storage_of,
    writes,
)

#: More samples do not tell more of how means are taken.
MOST_SAMPLES = 32
#: Tensors that are kept for the time of one forward, in bytes together.
MOST_BYTES = 1 << 28
#: From this share of the magnitudes on, a sum has cancelled.
CANCELLED = 0.1
#: Of a sum these may be taken too before something is divided by it.
SAME_SUM = {
    "index", "index_select", "gather", "select", "slice", "add", "where", "maximum", "masked_fill",
}  # fmt: skip
#: (argument that is summed, argument whose old values are in the result) of sums over groups.
SUMS: dict[str, tuple[str, str | None]] = {
    "sum": ("self", None),
    "mean": ("self", None),
    "index_add": ("source", "self"),
    "index_put": ("values", "self"),
    "scatter_add": ("src", "self"),
    "scatter_reduce": ("src", "self"),
    "segment_reduce": ("data", None),
    "torch_scatter::scatter_sum": ("src", None),
    "torch_scatter::segment_sum_coo": ("src", None),
    "torch_scatter::segment_sum_csr": ("src", None),
}
PRODUCTS = {"mm", "bmm", "mv"}


@dataclass(eq=False)
class _Sum:
    """A sum of values, the tensor that was summed, and how to take it of another like it."""

    of: "_Values"
    summed: Tensor
    again: Callable[[Tensor], Tensor] | None = None


@dataclass(eq=False)
class _Values:
    """What is known of the values of a tensor.

    Attributes:
        root: Where they were made.
        factors: Roots of what was multiplied.
        sum: How they were summed up, where they were.
        divided: Where they were divided by the sum of themselves.
        weights: Those that went in as fractions of their own sum, among the factors.
    """

    root: Tensor
    factors: tuple[Tensor, ...] = ()
    sum: _Sum | None = None
    divided: "_Taken | None" = None
    weights: tuple["_Taken", ...] = ()


@dataclass(eq=False)
class _Taken:
    """A weighted mean: its weights, and where it was taken."""

    sum: _Sum
    stage: str
    place: tuple[str, int] | None


def _known(tensor: Any) -> TypeGuard[Tensor]:
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_complex()
        and tensor.device.type != "meta"
    )


@dataclass(eq=False)
class _Book:
    """What is known of each tensor, while it is kept."""

    pages: dict[tuple[Any, ...], _Values] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    left: int = MOST_BYTES

    def of(self, tensor: Tensor) -> _Values:
        found = self.pages.get(key_of(tensor))
        if found is None:
            found = _Values(tensor)
            self.put(tensor, found)
        return found

    def put(self, tensor: Tensor, values: _Values) -> None:
        # A tensor that is kept keeps its storage from being given to another.
        self.left -= tensor.numel() * tensor.element_size()
        if self.left > 0:
            self.kept.append(tensor)
            self.pages[key_of(tensor)] = values

    def forget(self, tensor: Tensor) -> None:
        """Its storage was written into."""
        storage = storage_of(tensor)
        for key in [key for key in self.pages if key[0] == storage]:
            del self.pages[key]


class _Weighing(FollowingMode):  # type: ignore[no-untyped-call]
    """Follows products, sums and divisions while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[_Taken] = []
        self._book = _Book()
        self._names: dict[Any, tuple[str, bool]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        if not self.armed:
            return func(*args, **kwargs)
        known = self._names.get(func)
        if known is None:
            known = self._names[func] = (name_of(func), writes(func))
        name, mutable = known
        given = args[0] if args else None
        before = self._book.pages.get(key_of(given)) if mutable and _known(given) else None
        out = func(*args, **kwargs)
        if not _known(out):
            return out
        if mutable:
            self._book.forget(out)
            if before is not None and name in ("div", "mul", "add", "clamp", "clamp_min"):
                self._look(func, name, args, kwargs, out, before)
            elif name in SUMS:
                self._look(func, name, args, kwargs, out, None)
        else:
            self._look(func, name, args, kwargs, out, None)
        return out

    def _look(
        self, func: Any, name: str, args: Any, kwargs: Any, out: Tensor, before: _Values | None
    ) -> None:
        if name in SUMS:
            self._sum(func, name, named_of(func, args, kwargs), out)
            return
        a, b = [*args, None, None][:2]
        if name == "where":
            # What stands in for a sum of 0 may come first or last.
            a = next((t for t in args[1:] if _known(t) and self._summed(t)), None)
            b = None
        if not _known(a):
            return
        paired = _known(b)
        if name in PRODUCTS and paired:
            self._product_summed(a, b, out)
        elif name == "mul" and paired and a.numel() > 1 and b.numel() > 1:
            self._book.put(out, self._product(before or self._book.of(a), self._book.of(b), out))
        elif name == "div" and paired:
            self._divide(before or self._book.of(a), self._book.of(b), out)
        elif self._kept(name, a, out, before):
            self._book.put(out, before or self._book.of(a))

    def _kept(self, name: str, given: Tensor, out: Tensor, before: _Values | None) -> bool:
        """Whether what an operation gives stands for what it took."""
        if name in SAME_VALUES or (name == "slice" and given.shape == out.shape):
            return True
        return name in SAME_SUM and (before is not None or self._summed(given))

    def _summed(self, tensor: Tensor) -> bool:
        """Whether a tensor is known to be a sum."""
        found = self._book.pages.get(key_of(tensor))
        return found is not None and found.sum is not None

    def _product(self, one: _Values, other: _Values, out: Tensor) -> _Values:
        factors = (*(one.factors or (one.root,)), *(other.factors or (other.root,)))
        roots = (one.root, other.root, *factors)
        fractions = [values.divided for values in (one, other) if values.divided is not None]
        return _Values(
            out,
            factors=tuple({id(root): root for root in roots}.values()),
            weights=(*one.weights, *other.weights, *fractions),
        )

    def _sum(self, func: Any, name: str, named: dict[str, Any], out: Tensor) -> None:
        source, base = SUMS[name]
        summed: Any = named.get(source)
        if not _known(summed) or (base is None and out.numel() >= summed.numel()):
            return
        if named.get("reduce", "sum") != "sum" or named.get("alpha", 1) != 1:
            return
        if name == "index_put" and not named.get("accumulate"):
            return
        values = self._book.of(summed)
        arguments = func._schema.arguments  # noqa: SLF001 - it has no public name
        schema = [argument.name for argument in arguments]
        positional = sum(not argument.kwarg_only for argument in arguments)

        def again(other: Tensor) -> Tensor:
            """The same sum, of other values."""
            new = {**named, source: other.to(summed.dtype), "out": None}
            if base is not None:
                # In place or not: into zeros of its own.
                new[base] = torch.zeros_like(named[base])
            if "dtype" in new:
                new["dtype"] = None
            wanted = [new[key] for key in schema if key != "out"]
            rest = {key: new[key] for key in schema[positional:] if key != "out"}
            result: Tensor = func(*wanted[:positional], **rest)
            # Both means of a fraction divide by the same number.
            return result * (summed.numel() / result.numel()) if name == "mean" else result

        self._book.put(out, _Values(out, sum=_Sum(values, summed, again)))
        self.taken.extend(values.weights)

    def _product_summed(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        one, other = self._book.of(a), self._book.of(b)
        product = self._product(one, other, out)
        self._book.put(out, _Values(out, sum=_Sum(product, a)))
        self.taken.extend(product.weights)

    def _divide(self, one: _Values, other: _Values, out: Tensor) -> None:
        below = other.sum
        if below is None or below.again is None:
            return
        weights = below.of
        if one.root is weights.root:
            self._book.put(out, _Values(out, divided=self._here(below)))
            return
        if one.sum is None:
            return
        above = {id(root) for root in one.sum.of.factors}
        parts = {id(root) for root in weights.factors}
        if id(weights.root) in above or (parts and parts < above):
            self.taken.append(self._here(below))

    def _here(self, below: _Sum) -> _Taken:
        return _Taken(below, self.stage(), line_of_user())


def record_weighing(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> WeighingRecord:
    """Find the weighted means that a model takes, and look at their weights.

    The model, its gradients, flags and all random generators are left as they were found.

    Args:
        pipeline: What to look at.
        batch_size: Samples; without, that of the pipeline; no more than 32 are taken.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    mode = _Weighing()
    notes = follow_values(
        mode, pipeline, most=MOST_SAMPLES, batch_size=batch_size, device=device, seed=seed
    )
    found: dict[Any, WeighedMean] = {}
    for taken in mode.taken:
        facts, key = _facts(taken), (taken.stage, taken.place)
        if facts is not None:
            found[key] = _together(found[key], facts) if key in found else facts
    return WeighingRecord(means=tuple(found.values()), not_judged=notes)


def _together(one: WeighedMean, other: WeighedMean) -> WeighedMean:
    """Means of one line, as a loop takes them one by one."""
    rows = one.rows + other.rows
    return replace(
        one,
        rows=rows,
        groups=one.groups + other.groups,
        negative=(one.negative * one.rows + other.negative * other.rows) / rows,
        smallest_sum=_least(one.smallest_sum, other.smallest_sum),
        cancelled=_least(one.cancelled, other.cancelled),
        cancelled_groups=one.cancelled_groups + other.cancelled_groups,
    )


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


@torch.no_grad()
def _facts(taken: _Taken) -> WeighedMean | None:
    """What the weights of one mean are like."""
    weights = taken.sum.summed.detach()
    again = taken.sum.again
    assert again is not None
    if not weights.is_floating_point() or not weights.numel():
        return None
    weights = weights.double() if weights.device.type != "mps" else weights.float()
    try:
        summed = again(weights)
        magnitudes, number = again(weights.abs()), again((weights != 0).to(weights.dtype))
        # One weight alone cannot cancel.
        several = (number > 1.5) & (magnitudes > 0) & summed.isfinite()
    except (RuntimeError, TypeError, IndexError, ValueError):
        return None  # a form of the operation that was not thought of
    sums, sizes = summed[several].abs(), magnitudes[several]
    share = sums / sizes
    return WeighedMean(
        stage=taken.stage,
        rows=weights.numel(),
        groups=int(several.sum()),
        negative=float((weights < 0).double().mean()),
        smallest_sum=float(sums.min()) if sums.numel() else None,
        cancelled=float(share.min()) if share.numel() else None,
        cancelled_groups=int((share <= CANCELLED).sum()),
        file=taken.place[0] if taken.place else None,
        line=taken.place[1] if taken.place else None,
    )
