"""Gradients: what the backward pass left at the parameters, by part of the model."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.preserve import is_lazy
from icediag.recording import ParameterRecord


def _groups(module: nn.Module, path: str = "") -> Iterator[tuple[str, list[nn.Parameter]]]:
    """Parameters by part: the model's children, and the members of lists of layers."""
    own = list(module.parameters(recurse=False))
    if own:
        yield path or "model", own
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        lists = (nn.ModuleList, nn.ModuleDict)
        if isinstance(child, lists) or any(isinstance(c, lists) for c in child.children()):
            yield from _groups(child, inner)
        else:
            parameters = list(child.parameters())
            if parameters:
                yield inner, parameters


def parameter_records(model: Any) -> tuple[ParameterRecord, ...]:
    """Gradients by part of the model, with one device-to-host copy."""
    if not isinstance(model, nn.Module):
        return ()
    groups = [
        # A lazy parameter that was never reached has no size.
        (name, [p for p in parameters if not is_lazy(p)])
        for name, parameters in _groups(model)
    ]
    norms = []
    seen = []
    for name, parameters in groups:
        weights = [p.detach() for p in parameters if p.is_floating_point() or p.is_complex()]
        gradients = [
            p.grad.coalesce().values() if p.grad.is_sparse else p.grad
            for p in parameters
            if p.grad is not None
        ]
        both = [_norm(weights), _norm(gradients)]
        # Of a wrapper of the user's own there may be nothing to read.
        if all(type(norm) is Tensor for norm in both):
            norms += both
            seen.append((name, parameters))
    found = torch.stack([norm.double().cpu() for norm in norms]).tolist() if norms else []
    return tuple(
        ParameterRecord(
            stage=name,
            parameters=sum(p.numel() for p in parameters),
            without_gradient=sum(
                p.numel() for p in parameters if p.requires_grad and p.grad is None
            ),
            frozen=sum(p.numel() for p in parameters if not p.requires_grad),
            weight_norm=found[2 * i],
            gradient_norm=found[2 * i + 1],
        )
        for i, (name, parameters) in enumerate(seen)
    )


def _norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all values together, as a double on the device of the first."""
    if not tensors:
        return torch.zeros(())
    norms = [
        # Half precision would overflow; doubles and complex values keep their own.
        torch.linalg.vector_norm(t if t.dtype.itemsize >= 8 else t.float()).double()
        for t in tensors
    ]
    whole: Tensor = torch.linalg.vector_norm(
        torch.stack([norm.to(norms[0].device) for norm in norms])
    )
    return whole
