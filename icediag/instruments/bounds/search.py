"""Search: an input, or weights, with which an output leaves its domain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.preserve import unchanged
from icediag.instruments.trees.walk import held
from icediag.pipeline import Domain
from icediag.records.bounds import Witness

#: Gradient steps of a search; each is larger than the one before.
STEPS = 8
#: Weights are multiplied by these, one after the other.
FACTORS = (3.0, 10.0)

Columns = Callable[[Any], dict[str, Tensor]]
Forward = Callable[[Any, Any], Any]


def tolerance(domain: Domain, dtype: torch.dtype) -> float:
    """How far rounding in a type may carry a value over an end of its domain."""
    ends = [
        abs(end) for end in (domain.low, domain.high) if end not in (float("inf"), -float("inf"))
    ]
    return 8 * torch.finfo(dtype).eps * max([1e-6, *ends])


def outside(values: Tensor, domain: Domain) -> Tensor:
    """How far each value is outside of its domain; negative inside, NaN as far inside as can be."""
    slack = tolerance(domain, values.dtype)
    over = torch.maximum(values.double() - domain.high, domain.low - values.double()) - slack
    return torch.nan_to_num(over, nan=-float("inf"), posinf=float("inf"))


def floating_leaves(batch: Any) -> dict[str, Tensor]:
    """The batch's tensors whose values can be moved: path -> tensor."""
    return {path: thing for path, thing in held(batch) if _movable(thing)}  # type: ignore[misc]


def _movable(thing: Any) -> bool:
    return (
        isinstance(thing, Tensor)
        and thing.is_floating_point()
        and thing.layout == torch.strided
        and not thing.is_nested
        and thing.is_leaf
        and not thing.is_inference()
        and thing.numel() > 0
    )


class Search:
    """Looks for witnesses of the columns of one pipeline.

    Args:
        model: Called with the batch by `forward`.
        forward: (model, batch) -> predictions.
        columns: predictions -> output columns.
        moved: A real batch whose values are moved; they are put back.
        batch: The one that is sent through with other weights.
        last_modules: Names of modules with weights, in the order in which they ran.
    """

    def __init__(
        self,
        model: Any,
        forward: Forward,
        columns: Columns,
        moved: Any,
        batch: Any,
        last_modules: list[str],
    ) -> None:
        self._model = model
        self._forward = forward
        self._columns = columns
        self._moved = moved
        self._batch = batch
        self._last = last_modules

    def __call__(self, name: str, domain: Domain) -> tuple[Witness | None, str]:
        """Search for one column; gives a witness or none, and what was tried."""
        tried = []
        try:
            found = self._ascend(name, domain)
            tried.append(f"{STEPS} gradient steps on the batch")
            if found is None:
                found, module = self._scale(name, domain)
                if module:
                    factors = " and ".join(f"{factor:g}" for factor in FACTORS)
                    tried.append(f"weights of {module} times {factors}")
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            tried.append(f"the model failed on moved values ({type(error).__name__})")
            found = None
        return found, ", ".join(tried)

    def _worst(
        self, batch: Any, name: str, domain: Domain
    ) -> tuple[float, float, int, Tensor] | None:
        """Distance outside, value and row of the worst entry, and all of the column."""
        column = self._columns(self._forward(self._model, batch)).get(name)
        if column is None or not column.numel():
            return None
        over = outside(column.detach(), domain).reshape(column.shape[0] if column.ndim else 1, -1)
        row = int(over.amax(1).argmax())
        entry = int(over[row].argmax())
        value = float(column.detach().reshape(over.shape)[row, entry])
        return float(over[row, entry]), value, row, column

    def _ascend(self, name: str, domain: Domain) -> Witness | None:
        leaves = floating_leaves(self._moved)
        with unchanged([self._moved]), _asking(leaves):
            before = {path: leaf.detach().clone() for path, leaf in leaves.items()}
            scales = {path: _scale_of(leaf.detach()) for path, leaf in leaves.items()}
            moved = False
            for step in range(STEPS + 1):
                with torch.enable_grad():
                    worst = self._worst(self._moved, name, domain)
                    if worst is None:
                        return None
                    over, value, row, column = worst
                    if over > 0:
                        how = "ascent" if moved else "batch"
                        inputs = _ranges(leaves, before) if moved else {}
                        return Witness(how=how, value=value, row=row, inputs=inputs)  # type: ignore[arg-type]
                    if step == STEPS or not leaves or not column.requires_grad:
                        return None
                    away = (
                        torch.where(
                            domain.high - column.detach() < column.detach() - domain.low, 1.0, -1.0
                        )
                        if domain.high - domain.low < float("inf")
                        else _open_side(domain)
                    )
                    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                        (column * away).sum(), list(leaves.values()), allow_unused=True
                    )
                for (path, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                    if gradient is None:
                        continue
                    direction = torch.nan_to_num(gradient).sign()
                    with torch.no_grad():
                        leaf += (0.5 * 2**step * scales[path] * direction).to(leaf.dtype)
                    moved = True
        return None

    def _scale(self, name: str, domain: Domain) -> tuple[Witness | None, str]:
        """Multiply the weights of the module that ran last."""
        if not isinstance(self._model, nn.Module) or not self._last:
            return None, ""
        module = self._model
        path = self._last[-1]
        if path != "model":
            module = self._model.get_submodule(path)
        weights = [p for p in module.parameters(recurse=False) if p.is_floating_point()]
        kept = [weight.detach().clone() for weight in weights]
        try:
            for factor in FACTORS:
                with torch.no_grad():
                    for weight, value in zip(weights, kept, strict=True):
                        weight.copy_(value * factor)
                    worst = self._worst(self._batch, name, domain)
                if worst is not None and worst[0] > 0:
                    witness = Witness(
                        how="weights", value=worst[1], row=worst[2], module=path, factor=factor
                    )
                    return witness, path
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, kept, strict=True):
                    weight.copy_(value)
        return None, path


def _open_side(domain: Domain) -> float:
    """Which way leads out of a domain with one end."""
    return 1.0 if domain.high < float("inf") else -1.0


def _scale_of(leaf: Tensor) -> Tensor:
    """A step for each entry: the spread of its column."""
    if leaf.ndim > 1 and leaf.shape[0] > 1:
        spread = leaf.double().std(0, keepdim=True)
    else:
        spread = leaf.double().std(correction=0)
    size = leaf.double().abs().amax()
    return torch.where(spread > 0, spread, torch.where(size > 0, size, 1.0))


def _ranges(leaves: dict[str, Tensor], before: dict[str, Tensor]) -> dict[str, tuple[float, ...]]:
    return {
        path or "batch": (float(leaf.detach().min()), float(leaf.detach().max()))
        for path, leaf in leaves.items()
        if not torch.equal(leaf.detach(), before[path])
    }


@contextmanager
def _asking(leaves: dict[str, Tensor]) -> Iterator[None]:
    """Have tensors ask for gradients for a while."""
    asked = {path: leaf.requires_grad for path, leaf in leaves.items()}
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    try:
        yield
    finally:
        for path, leaf in leaves.items():
            leaf.requires_grad_(asked[path])
            leaf.grad = None
