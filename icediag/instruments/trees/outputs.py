"""Outputs: which part of what a model gives is the column that `Pipeline.outputs` names."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from icediag.recording import Unjudged

from .walk import leaves


def output_columns(
    predictions: Any, outputs: Iterable[str]
) -> tuple[dict[str, Tensor], tuple[Unjudged, ...]]:
    """Find the output columns.

    Of a prediction tensor they are its columns, along the last axis and in order; one that is named
    alone is the whole tensor. Of a tree they are the leaves, by path or by its last part; where a
    tree holds a single tensor, that is taken for a prediction tensor.

    Args:
        predictions: What the model gives.
        outputs: Names, in order.

    Returns:
        Name -> a view of the predictions; and why others could not be found.
    """
    names = list(outputs)
    found = [(path, tensor) for path, tensor in leaves(predictions) if _real(tensor)]
    if not names:
        return {}, ()
    if not found:
        what = type(predictions).__name__
        reason = f"expected floating-point predictions, got none in {what}"
        return {}, tuple(Unjudged(name=name, reason=reason) for name in names)
    named = {name: _by_name(name, found) for name in names}
    if len(found) == 1 and not any(len(matches) == 1 for matches in named.values()):
        return _of_table(found[0][1], names)
    columns: dict[str, Tensor] = {}
    missing = []
    for name, matches in named.items():
        if len(matches) == 1:
            columns[name] = matches[0]
            continue
        paths = ", ".join(path or "the tensor" for path, _ in found[:6])
        problem = "none of that name" if not matches else f"{len(matches)} of that name"
        missing.append(Unjudged(name=name, reason=f"{problem} among the predictions ({paths})"))
    return columns, tuple(missing)


def _real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_nested


def _by_name(name: str, found: list[tuple[str, Tensor]]) -> list[Tensor]:
    exact = [tensor for path, tensor in found if path == name]
    return exact or [tensor for path, tensor in found if path.rpartition(".")[2] == name]


def _of_table(tensor: Tensor, names: list[str]) -> tuple[dict[str, Tensor], tuple[Unjudged, ...]]:
    if len(names) == 1:
        return {names[0]: tensor}, ()
    width = tensor.shape[-1] if tensor.ndim else 0
    if width != len(names):
        got = f"predictions of shape {tuple(tensor.shape)}"
        reason = f"expected {len(names)} columns ({', '.join(names)}), got {got}"
        return {}, tuple(Unjudged(name=name, reason=reason) for name in names)
    return {name: tensor[..., i] for i, name in enumerate(names)}, ()


def numbers_of(given: Any) -> dict[str, float]:
    """The numbers of a metric: one, or several by name.

    Raises:
        TypeError: It is neither a number, a tensor of one value nor a mapping to such.
    """
    if isinstance(given, Mapping):
        return {str(name): _number(value) for name, value in given.items()}
    return {"metric": _number(given)}


def _number(value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach())
    if hasattr(value, "item") and not isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise TypeError(f"expected a number or a tensor of one value, got {type(value).__name__}")


#: What fields with targets are called.
TARGETS = ("target", "targets", "label", "labels", "truth", "y")


def target_column(batch: Any, name: str, names: list[str], rows: int) -> Tensor | None:
    """The true values of an output column, where the batch shows which they are.

    A field of the column's own name, or a field called `targets`, `labels`, `y` and the like with
    one column for each output, or the last of a (inputs, targets) pair.

    Args:
        batch: What the collate function gives.
        name: Of the column.
        names: Of all columns, in order.
        rows: How many predictions there are.

    Returns:
        `(rows,)` values, None where they cannot be told.
    """
    found = [(path, tensor) for path, tensor in leaves(batch) if _real(tensor)]
    for path, tensor in found:
        if path.rpartition(".")[2] == name and tensor.numel() == rows:
            return tensor.reshape(-1)
    tables = [tensor for path, tensor in found if path.rpartition(".")[2] in TARGETS]
    if not tables and isinstance(batch, (list, tuple)) and len(batch) == 2:
        tables = [batch[1]] if isinstance(batch[1], Tensor) and _real(batch[1]) else []
    for tensor in tables:
        if tensor.ndim == 2 and tuple(tensor.shape) == (rows, len(names)):
            return tensor[:, names.index(name)]
        if len(names) == 1 and tensor.numel() == rows:
            return tensor.reshape(-1)
    return None
