"""Declared: which annotation stands for each tensor of a tree.

An argument's own annotation, what a `list`, `dict` or `tuple` annotation says of its members, and
the fields of dataclasses, named tuples and typed dicts.
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from icediag.instruments.trees.walk import MAX_DEPTH, children

from .signatures import fields_of
from .terms import unwrapped


@dataclass(frozen=True)
class Declared:
    """What is declared of one tensor of a tree.

    Attributes:
        annotation: The annotation.
        holder: The class whose field it is; None where the signature declares it.
        scope: Path of that object: within it a name of an axis means one size.
    """

    annotation: Any
    holder: type | None = None
    scope: str = ""


def declared_in(tree: Any, annotation: Any, path: str = "") -> dict[str, Declared]:
    """What is declared of the tensors of a tree, by the paths that `leaves` gives them.

    Args:
        tree: Anything.
        annotation: Of the whole tree.
        path: Prefix of the paths.
    """
    if isinstance(tree, (Tensor, np.ndarray, np.generic)):
        return {} if annotation is None else {path: Declared(annotation)}
    return dict(_walk(tree, Declared(annotation), path, ()))


def _walk(
    tree: Any, whole: Declared, path: str, within: tuple[int, ...]
) -> Iterator[tuple[str, Declared]]:
    if isinstance(tree, (Tensor, np.ndarray, np.generic)):
        if whole.annotation is not None:
            yield path, whole
        return
    if len(within) > MAX_DEPTH or id(tree) in within:
        return
    parts: Mapping[Any, Any] | None = None
    for key, value in children(tree):
        if parts is None:
            parts, holder = parts_of(tree, whole.annotation)
        inner = f"{path}.{key}" if path else str(key)
        found = parts.get(key)
        if holder is None:
            one = Declared(found, whole.holder, whole.scope)
        else:
            one = Declared(found, holder, path or ".")
        yield from _walk(value, one, inner, (*within, id(tree)))


def parts_of(tree: Any, annotation: Any) -> tuple[Mapping[Any, Any], type | None]:
    """Annotations of what a container holds, by key, and the class that declares them.

    Args:
        tree: The container.
        annotation: What is declared of it as a whole.
    """
    for one in unwrapped(annotation)[0] if annotation is not None else ():
        if isinstance(tree, Mapping) and _is_typed_dict(one):
            return fields_of(one), one
        origin, arguments = typing.get_origin(one), typing.get_args(one)
        if not isinstance(origin, type) or not arguments:
            continue
        if isinstance(tree, Mapping) and issubclass(origin, Mapping) and len(arguments) == 2:
            return dict.fromkeys(tree, arguments[1]), None
        if origin is tuple and isinstance(tree, tuple):
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return dict.fromkeys(range(len(tree)), arguments[0]), None
            if len(arguments) == len(tree):
                return dict(enumerate(arguments)), None
        elif isinstance(tree, (list, tuple)) and len(arguments) == 1:
            return dict.fromkeys(range(len(tree)), arguments[0]), None
    kind: Any = type(tree)
    if kind.__module__ == "builtins":
        return {}, None
    try:
        declared = fields_of(kind)
    except TypeError:  # a class that cannot be hashed
        return {}, None
    return declared, kind if declared else None


def _is_typed_dict(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__required_keys__")
