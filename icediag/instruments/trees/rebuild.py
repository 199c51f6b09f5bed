"""Rebuild: the same tree with other leaves, the original untouched."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .walk import MAX_DEPTH, OPAQUE, attributes_of, put_attribute, refilled

#: (path, value) -> value: of a tensor or a plain number.
Change = Callable[[str, Any], Any]


def rebuilt(tree: Any, change: Change, path: str = "", depth: int = 0) -> Any:
    """A copy of a tree whose leaves went through `change`.

    Leaves are tensors and plain whole numbers; numpy arrays are handed over as tensors and come
    back as arrays. Paths are those of `leaves`. What is no container is handed on as it is.

    Args:
        tree: Anything.
        change: (path, leaf) -> leaf.
        path: Of the tree itself.
        depth: How deep it lies in a larger one.
    """
    if isinstance(tree, Tensor) or (isinstance(tree, int) and not isinstance(tree, bool)):
        return change(path, tree)
    if isinstance(tree, (np.ndarray, np.generic)):
        return _array(tree, change, path)
    if depth > MAX_DEPTH or isinstance(tree, OPAQUE):
        return tree

    def inner(key: Any, value: Any) -> Any:
        return rebuilt(value, change, f"{path}.{key}" if path else str(key), depth + 1)

    if isinstance(tree, Mapping):
        return refilled(tree, {key: inner(key, value) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(inner(k, v) for k, v in zip(tree._fields, tree, strict=True)))
    if isinstance(tree, (list, tuple)):
        items = [inner(i, value) for i, value in enumerate(tree)]
        return items if isinstance(tree, list) else tuple(items)
    if dataclasses.is_dataclass(tree):
        return _dataclass(tree, inner)
    if all(callable(getattr(type(tree), name, None)) for name in ("to", "to_dict", "__setitem__")):
        # torch_geometric's Data and its kin.
        same = copy.copy(tree)
        for key, value in tree.to_dict().items():
            same[key] = inner(key, value)
        return same
    attributes = attributes_of(tree)
    if not attributes:
        return tree
    same = copy.copy(tree)
    for key, value in attributes.items():
        put_attribute(same, key, inner(key, value))
    return same


def _array(array: Any, change: Change, path: str) -> Any:
    if array.dtype.kind not in "biuf":
        return array
    try:
        tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except TypeError:
        return array
    made = change(path, tensor)
    if not isinstance(made, Tensor):
        return made
    values = made.detach().numpy().astype(array.dtype)
    return array.dtype.type(values[()]) if isinstance(array, np.generic) else values


def _dataclass(tree: Any, inner: Callable[[Any, Any], Any]) -> Any:
    fields = [field for field in dataclasses.fields(tree) if hasattr(tree, field.name)]
    values = {field.name: inner(field.name, getattr(tree, field.name)) for field in fields}
    given = {field.name: values[field.name] for field in fields if field.init}
    same = dataclasses.replace(tree, **given)
    for field in fields:
        if not field.init:
            object.__setattr__(same, field.name, values[field.name])
    return same


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """The same tree with every floating-point tensor as `dtype`, in memory of its own."""

    def change(_: str, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().to(dtype) if leaf.is_floating_point() else leaf

    return rebuilt(tree, change)
