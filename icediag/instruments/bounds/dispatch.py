"""Dispatch: names, schemas and arguments of operations, as torch's dispatcher has them."""

# ruff: noqa: SLF001 - schemas of operations have no public name

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def custom(func: Any) -> Any:
    """The overload of an operation that is not torch's own; None for all else."""
    if isinstance(func, torch._ops.OpOverloadPacket):
        names = func.overloads()  # type: ignore[no-untyped-call]
        func = getattr(func, names[0]) if len(names) == 1 else None
    if not isinstance(func, torch._ops.OpOverload):
        return None
    own = func.namespace in ("aten", "prim", "prims", "inductor", "profiler")
    return None if own else func


@functools.cache
def name_of(func: Any) -> str:
    """`tanh` for aten's `tanh`, `tanh_` and `tanh.out`; with its namespace for all others."""
    namespace, _, name = func._schema.name.partition("::")
    if name.startswith("__i") and name.endswith("__"):
        name = f"__{name[3:]}"
    elif name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return name if namespace == "aten" else f"{namespace}::{name}"


def functional_of(func: Any, name: str) -> Any:
    """The operation that gives what this one writes; None where there is none."""
    if func._schema.name.partition("::")[0] != "aten":
        return None
    packet = getattr(torch.ops.aten, name, None)
    overload = func._overloadname
    if packet is None or overload.endswith("out"):
        return None
    found = getattr(packet, overload, None)
    if found is None:
        # Its rule needs the schema alone: fill, zero, random numbers.
        return func
    return found


def named_of(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Every argument by its name in the schema."""
    named: dict[str, Any] = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            named[argument.name] = args[i]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor among arguments or results, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            # Mostly tensors and numbers, and this runs at every operation.
            if isinstance(item, Tensor):
                yield item
            elif isinstance(item, (list, tuple, dict)):
                yield from tensors_of(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
