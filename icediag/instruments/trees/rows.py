"""Rows: trees of predictions and batches whose rows are moved, repeated or set to 0."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .walk import held, leaves, refilled


def mapped(tree: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """The same tree with its tensors changed; what cannot be rebuilt stays as it is.

    Args:
        tree: Tensors, mappings, lists, tuples, named tuples, dataclasses.
        change: (path, tensor) -> tensor.
        path: Prefix of the paths, which are those of `leaves`.
    """

    def at(key: Any) -> str:
        return f"{path}.{key}" if path else str(key)

    if isinstance(tree, Tensor):
        return change(path, tree)
    if isinstance(tree, (str, bytes, int, float, bool, type(None))):
        return tree
    if isinstance(tree, Mapping):
        return refilled(tree, {key: mapped(value, change, at(key)) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        pairs = zip(tree._fields, tree, strict=True)
        return type(tree)(*(mapped(value, change, at(key)) for key, value in pairs))
    if isinstance(tree, (list, tuple)):
        items = [mapped(value, change, at(i)) for i, value in enumerate(tree)]
        return items if isinstance(tree, list) else tuple(items)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changes = {
            field.name: mapped(getattr(tree, field.name), change, at(field.name))
            for field in dataclasses.fields(tree)
            if field.init and any(True for _ in held(getattr(tree, field.name)))
        }
        return dataclasses.replace(tree, **changes) if changes else tree
    if callable(getattr(tree, "clone", None)) and any(True for _ in leaves(tree)):
        return _of_object(tree, change, path)
    return tree


def _of_object(tree: Any, change: Callable[[str, Tensor], Tensor], path: str) -> Any:
    """A copy of a graph batch, or another object that holds tensors under keys."""
    copy = tree.clone()
    for at, tensor in leaves(tree, path):
        name = at[len(path) + 1 :] if path else at
        if "." not in name:
            try:
                copy[name] = change(at, tensor)
            except Exception:
                setattr(copy, name, change(at, tensor))
    return copy


def floating(tree: Any) -> list[tuple[str, Tensor]]:
    """The floating-point tensors of a tree."""
    return [
        (path, tensor)
        for path, tensor in leaves(tree)
        if tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_nested
    ]


def table_of(predictions: Any, rows: int | None = None) -> Tensor | None:
    """The predictions where they are a single floating-point tensor with a row an event."""
    found = floating(predictions)
    if len(found) != 1 or found[0][1].ndim == 0:
        return None
    table = found[0][1]
    return table if rows is None or table.shape[0] == rows else None


def rolled(tree: Any, paths: tuple[str, ...], by: int = 1) -> Any:
    """The tree with the rows of some of its tensors moved on: targets of other events."""
    return mapped(tree, lambda path, t: t.roll(by, 0) if path in paths and t.ndim else t)


def spread_of(predictions: Any) -> tuple[float, float] | None:
    """Root mean square of the deviation from the mean row, and of the values themselves.

    Of all floating-point tensors with at least two rows together; None where there are none.
    """
    tables = [t.detach().double() for _, t in floating(predictions) if t.ndim and t.shape[0] > 1]
    if not tables:
        return None
    count = sum(t.numel() for t in tables)
    if not count:
        return None
    off = sum((t - t.mean(0, keepdim=True)).square().sum() for t in tables)
    size = sum(t.square().sum() for t in tables)
    together = torch.stack([torch.as_tensor(off), torch.as_tensor(size)]) / count
    deviation, whole = together.sqrt().tolist()
    return deviation, whole


def columns_of(predictions: Any, most: int) -> list[tuple[str, float, float]]:
    """Path, mean and standard deviation over the rows, of the first columns; one copy."""
    names: list[str] = []
    pairs: list[Tensor] = []
    for path, tensor in floating(predictions):
        if tensor.ndim not in (1, 2) or tensor.shape[0] < 2:
            continue
        table = tensor.detach().double().reshape(tensor.shape[0], -1)[:, : most - len(names)]
        several = tensor.ndim == 2 and tensor.shape[1] > 1
        names += [(f"{path}[{i}]" if several else path) or "output" for i in range(table.shape[1])]
        pairs.append(torch.stack([table.mean(0), table.std(0, correction=0)], 1).cpu())
    rows = torch.cat(pairs).tolist() if pairs else []
    return [(name, mean, sd) for name, (mean, sd) in zip(names, rows, strict=True)]
