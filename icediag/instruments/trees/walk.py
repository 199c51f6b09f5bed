"""Trees of tensors: whatever a data set, a collate function or a model hands on."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: What is nested deeper than this is not looked for.
MAX_DEPTH = 12


#: What holds no data of a batch, whatever attributes it has.
OPAQUE = (
    *(str, bytes, int, float, complex, type(None), type),
    *(ModuleType, FunctionType, MethodType, BuiltinFunctionType, partial),
    *(nn.Module, torch.Generator, torch.dtype, torch.device),
)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a tree with its path, in order.

    Goes into mappings, lists, tuples, dataclasses and plain objects that hold tensors as
    attributes. A numpy array of numbers counts as a tensor: many data sets hand on nothing else.
    Paths read like attribute access: `pulses.times`, `0`, `edges.1`.

    Args:
        tree: Anything.
        path: Prefix of the paths.

    Yields:
        (path, tensor).
    """
    for at, thing in held(tree, path):
        if isinstance(thing, Tensor):
            yield at, thing
        elif thing.dtype.kind in "biuf":
            try:
                # A copy, because torch warns of arrays that cannot be written to.
                yield at, torch.from_numpy(np.array(thing, dtype=thing.dtype.newbyteorder("=")))
            except TypeError:
                continue  # a type that torch does not have, such as longdouble


def tables(tree: Any) -> Iterator[tuple[str, Tensor]]:
    """The leaves that have sizes and values in rows: neither nested ones nor sparse ones."""
    for path, tensor in leaves(tree):
        if tensor.layout == torch.strided and not tensor.is_nested:
            yield path, tensor


def held(
    tree: Any, path: str = "", within: tuple[int, ...] = ()
) -> Iterator[tuple[str, Tensor | np.ndarray[Any, Any] | np.generic]]:
    """Every tensor and every numpy array of a tree as it is, with its path, in order.

    Args:
        tree: Anything.
        path: Prefix of the paths.
        within: Identities of what the tree lies in: one that contains itself has an end too.
    """
    if isinstance(tree, (Tensor, np.ndarray, np.generic)):
        yield path, tree
        return
    if len(within) > MAX_DEPTH or id(tree) in within:
        return
    for key, value in children(tree):
        yield from held(value, f"{path}.{key}" if path else str(key), (*within, id(tree)))


def children(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and values of a container; nothing of what is none."""
    if isinstance(tree, OPAQUE):
        return
    if isinstance(tree, Mapping):
        yield from tree.items()
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        yield from zip(tree._fields, tree, strict=True)
    elif isinstance(tree, (list, tuple)):
        yield from enumerate(tree)
    elif dataclasses.is_dataclass(tree):
        for field in dataclasses.fields(tree):
            if hasattr(tree, field.name):
                yield field.name, getattr(tree, field.name)
    elif all(callable(getattr(type(tree), name, None)) for name in ("to", "to_dict")):
        # torch_geometric's Data and its kin, which keep their tensors out of sight. Only of things
        # that move to a device: a configuration has a to_dict too.
        try:
            content = tree.to_dict()
        except Exception:  # a to_dict() of other meaning is no reason to fail
            return
        if isinstance(content, Mapping):
            yield from content.items()
    else:
        yield from attributes_of(tree).items()


def attributes_of(thing: Any) -> dict[str, Any]:
    """What an object of the user's class holds, in its `__dict__` and its `__slots__`."""
    held = getattr(thing, "__dict__", None)
    found = dict(held) if isinstance(held, dict) else {}
    for kind in reversed(type(thing).__mro__):
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            # Not through a property of a class above it: what the slot itself holds.
            slot = vars(kind).get(name)
            if isinstance(slot, MemberDescriptorType):
                try:
                    found[name] = slot.__get__(thing)
                except AttributeError:
                    continue  # nothing was put there
    return {name: value for name, value in found.items() if not name.startswith("__")}


def put_attribute(thing: Any, name: str, value: Any) -> None:
    """Set one of `attributes_of`, past a frozen class's own `__setattr__` or a property."""
    held = getattr(thing, "__dict__", {})
    if name in held:
        held[name] = value
    else:
        object.__setattr__(thing, name, value)


def move(tree: Any, device: torch.device, depth: int = MAX_DEPTH) -> Any:
    """The same tree on `device`.

    Something with a `to` of its own moves itself; of other objects a shallow copy takes the
    tensors along, and the user's own stays where it is. What lies deeper than `depth` nobody sees.
    """
    if depth < 0:
        return tree
    below = depth - 1
    if isinstance(tree, (str, bytes, int, float, bool, type(None))):
        return tree
    tensors = [thing for _, thing in held(tree) if isinstance(thing, Tensor)]
    if all(tensor.device == device for tensor in tensors):
        return tree  # the user's own object, not a copy of it
    if callable(getattr(tree, "to", None)):
        return tree.to(device)
    if isinstance(tree, Mapping):
        return refilled(tree, {key: move(value, device, below) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(move(value, device, below) for value in tree))
    if isinstance(tree, (list, tuple)):
        items = [move(value, device, below) for value in tree]
        return items if isinstance(tree, list) else tuple(items)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changes = {
            field.name: move(getattr(tree, field.name), device, below)
            for field in dataclasses.fields(tree)
            if field.init
        }
        return dataclasses.replace(tree, **changes)
    twin = copy.copy(tree)
    for name, value in attributes_of(twin).items():
        put_attribute(twin, name, move(value, device, below))
    return twin


def refilled(tree: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """A mapping of the same type with other values; a plain dict of one that cannot be written to.

    What shows its items as attributes too, as the outputs of many libraries' models do, shows the
    new ones.
    """
    if type(tree) is dict:
        return values
    try:
        same: Any = copy.copy(tree)
        for key, value in values.items():
            same[key] = value
            shown = getattr(same, "__dict__", {})
            if isinstance(key, str) and key in shown and shown[key] is tree[key]:
                object.__setattr__(same, key, value)
    except (TypeError, AttributeError):
        return values
    return same


def mapped(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same tree with another tensor in the place of each.

    In containers of the same types; of other objects a shallow copy takes the attributes.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, OPAQUE) or not has_tensor(tree):
        return tree
    if isinstance(tree, Mapping):
        return refilled(tree, {key: mapped(value, function) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(value, function) for value in tree))
    if isinstance(tree, (list, tuple)):
        items = [mapped(value, function) for value in tree]
        return items if isinstance(tree, list) else tuple(items)
    twin = copy.copy(tree)
    if callable(getattr(twin, "apply", None)):
        # torch_geometric's Data, which keeps its tensors out of sight.
        return twin.apply(function)
    for name, value in attributes_of(twin).items():
        put_attribute(twin, name, mapped(value, function))
    return twin


def integers(tree: Any) -> Iterator[tuple[str, int]]:
    """The plain whole numbers that stand at the top of a tree, such as a batch's `num_doms`."""
    for key, value in children(tree):
        if isinstance(value, int) and not isinstance(value, bool):
            yield str(key), value


def has_tensor(tree: Any) -> bool:
    """Whether there is any tensor in a tree."""
    return next(leaves(tree), None) is not None
