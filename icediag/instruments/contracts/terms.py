"""Terms: what one annotation declares of a tensor.

Shapes and dtypes are jaxtyping's, ranges and units annotated-types', raw columns `Raw`. What is
neither is passed over: an annotation may be anything.
"""

import functools
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import annotated_types as at
import numpy as np
import torch
from jaxtyping import AbstractArray
from torch import Tensor

from icediag.pipeline import Raw

from .dims import Dim, parse_dims

Op = Literal[">=", ">", "<=", "<"]
#: Wrappers that say nothing of the values.
_TRANSPARENT = tuple(
    found
    for name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if (found := getattr(typing, name, None)) is not None
)


@dataclass(frozen=True)
class Limit:
    """An end of the allowed range."""

    op: Op
    value: float

    @property
    def text(self) -> str:
        """Such as `>= 0`."""
        return f"{self.op} {self.value:g}"


@dataclass(frozen=True)
class Terms:
    """What is declared of one tensor.

    Attributes:
        dims: Axes; None where the shape is not declared.
        array: The jaxtyping annotation, for the dtype; None where that is not declared.
        limits: Ends of the range.
        multiple_of: Every value is a multiple of this.
        finite: Which values are excluded: `nan`, `inf` or both.
        lengths: Smallest and largest size of the first axis.
        unit: Unit.
        raw: Raw column.
    """

    dims: tuple[Dim, ...] | None = None
    array: Any = None
    limits: tuple[Limit, ...] = ()
    multiple_of: float | None = None
    finite: frozenset[str] = frozenset()
    lengths: tuple[int, int | None] | None = None
    unit: str | None = None
    raw: Raw | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is declared."""
        return self == Terms()

    @property
    def text(self) -> str:
        """Such as `Float 'pulses 4', >= 0, ns`."""
        parts = []
        if self.array is not None:
            parts.append(f"{self.array.dtype.__name__} '{self.array.dim_str}'")
        parts += [limit.text for limit in self.limits]
        if self.multiple_of is not None:
            parts.append(f"a multiple of {self.multiple_of:g}")
        if self.finite:
            parts.append("no " + " or ".join(sorted(self.finite)))
        if self.lengths is not None:
            low, high = self.lengths
            parts.append(f"length {low} to {'any' if high is None else high}")
        if self.raw is not None:
            parts.append(f"raw {self.raw.column}")
        if self.unit is not None:
            parts.append(self.unit)
        return ", ".join(parts)


def unwrapped(annotation: Any) -> tuple[list[Any], list[Any]]:
    """The types that an annotation allows, None apart, and the metadata around all of them."""
    metadata: list[Any] = []
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            metadata += annotation.__metadata__
            annotation = annotation.__origin__
        elif origin in _TRANSPARENT:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            break
    if origin in (typing.Union, types.UnionType):
        allowed = [a for a in typing.get_args(annotation) if a is not type(None)]
        return allowed, metadata
    return [annotation], metadata


def terms_of(annotation: Any) -> tuple[Terms, ...]:
    """What an annotation declares of a tensor: one entry for each way in which it may come.

    Args:
        annotation: Of an argument, result or field; or a contract of a pipeline: an annotation, a
            `Raw`, a constraint of annotated-types, or several of these.

    Returns:
        Empty where nothing is declared.
    """
    try:
        return _terms_of(annotation)
    except TypeError:  # metadata that cannot be hashed
        return _read(annotation)


@functools.lru_cache(maxsize=4096)
def _terms_of(annotation: Any) -> tuple[Terms, ...]:
    return _read(annotation)


def _read(annotation: Any) -> tuple[Terms, ...]:
    if annotation is None or isinstance(annotation, str):
        return ()
    if isinstance(annotation, (list, tuple)):
        ways: tuple[Terms, ...] = ()
        metadata = []
        for item in annotation:
            if _is_metadata(item):
                metadata.append(item)
            else:
                ways = ways or _read(item)
        ways = tuple(_with(terms, metadata) for terms in ways or (Terms(),))
    elif _is_metadata(annotation):
        ways = (_with(Terms(), [annotation]),)
    else:
        allowed, metadata = unwrapped(annotation)
        found: list[Terms] = []
        for one in allowed:
            if _is_array(one):
                found.append(Terms(dims=parse_dims(one.dim_str), array=one))
            elif typing.get_origin(one) is typing.Annotated:
                found += _read(one)
            elif _may_be_array(one):
                found.append(Terms())
        ways = tuple(_with(terms, metadata) for terms in found)
    return () if all(terms.empty for terms in ways) else ways


def _is_array(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def _may_be_array(annotation: Any) -> bool:
    """Whether a tensor or an array of any shape may come."""
    kind = typing.get_origin(annotation) or annotation
    return (
        annotation is Any
        or isinstance(annotation, (str, typing.ForwardRef))
        or (isinstance(kind, type) and issubclass(kind, (Tensor, np.ndarray)))
    )


def _is_metadata(item: Any) -> bool:
    return isinstance(item, (Raw, at.BaseMetadata)) or _is_grouped(item)


def _is_grouped(item: Any) -> bool:
    return isinstance(item, at.GroupedMetadata) and not isinstance(item, type)


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        if _is_grouped(item):
            yield from _flat(item)
        else:
            yield item


def _with(terms: Terms, metadata: Iterable[Any]) -> Terms:
    """Terms with what annotated-types and `Raw` add."""
    for item in _flat(metadata):
        if isinstance(item, Raw):
            terms = replace(terms, raw=item, unit=item.unit or terms.unit)
        elif isinstance(item, at.Unit):
            terms = replace(terms, unit=item.unit)
        elif isinstance(item, (at.Ge, at.Gt, at.Le, at.Lt)):
            limit = _limit(item)
            terms = terms if limit is None else replace(terms, limits=(*terms.limits, limit))
        elif isinstance(item, at.MultipleOf):
            if isinstance(item.multiple_of, (int, float)) and item.multiple_of:
                terms = replace(terms, multiple_of=float(item.multiple_of))
        elif isinstance(item, (at.MinLen, at.MaxLen)):
            low, high = terms.lengths or (0, None)
            if isinstance(item, at.MinLen):
                terms = replace(terms, lengths=(item.min_length, high))
            else:
                terms = replace(terms, lengths=(low, item.max_length))
        elif isinstance(item, at.Predicate):
            terms = replace(terms, finite=terms.finite | _excluded(item.func))
    return terms


def _limit(item: Any) -> Limit | None:
    kinds: tuple[tuple[type, str, Op], ...] = (
        (at.Ge, "ge", ">="),
        (at.Gt, "gt", ">"),
        (at.Le, "le", "<="),
        (at.Lt, "lt", "<"),
    )
    for kind, name, op in kinds:
        if isinstance(item, kind):
            value = getattr(item, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return Limit(op, float(value)) if number and not math.isnan(value) else None
    return None


def _excluded(function: Any) -> frozenset[str]:
    if function is math.isfinite:
        return frozenset({"NaN", "infinity"})
    inner = function.func if isinstance(function, at.Not) else None
    if inner is math.isnan:
        return frozenset({"NaN"})
    return frozenset({"infinity"}) if inner is math.isinf else frozenset()


@functools.lru_cache(maxsize=4096)
def dtype_fits(array: Any, dtype: torch.dtype) -> bool:
    """Whether a jaxtyping annotation allows a dtype."""
    return isinstance(torch.empty((), dtype=dtype, device="meta"), array.dtype[Tensor, "..."])
