"""Leave everything as it was found: weights, buffers, attributes, gradients, flags, random numbers.

Also the samples: a collate or model that works in place would otherwise change the data set, and
every run after the first would see other values than training does.
"""

import operator
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from icediag.instruments.trees.walk import held

#: Whole numbers of the same width.
BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16}


@contextmanager
def preserved(model: Any) -> Iterator[None]:
    """Restore a model and all global random generators at the end, also after an exception.

    Gradients that were there are put aside, not copied: within, every gradient starts as None.

    Args:
        model: An `nn.Module`; of anything else only the random generators are restored.
    """
    python, numeric, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the user's code may use the global generator
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameters: list[nn.Parameter] = (
        list(model.parameters()) if isinstance(model, nn.Module) else []
    )
    tensors = [*parameters, *model.buffers()] if isinstance(model, nn.Module) else []
    # A lazy parameter has no values yet; it is to be without them again.
    lazy = [(tensor, type(tensor)) for tensor in tensors if is_lazy(tensor)]
    training = [module.training for module in modules]
    asks = [parameter.requires_grad for parameter in parameters]
    gradients = [None if is_lazy(parameter) else parameter.grad for parameter in parameters]
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors if not is_lazy(tensor)]
    attributes = [_Attributes(module) for module in modules if _is_plain(module)]
    for parameter in parameters:
        if not is_lazy(parameter):
            parameter.grad = None
    try:
        yield
    finally:
        for attribute in attributes:
            attribute.restore()
        _restore(kept)
        for parameter, ask, gradient in zip(parameters, asks, gradients, strict=True):
            if not is_lazy(parameter):
                parameter.requires_grad_(ask)
                parameter.grad = gradient
        for tensor, kind in lazy:
            if not is_lazy(tensor):
                tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                tensor.__class__ = kind
        for module, flag in zip(modules, training, strict=True):
            # Not by train(): the user may have overridden it.
            module.training = flag
        random.setstate(python)
        np.random.set_state(numeric)  # noqa: NPY002 - as above
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def unchanged(samples: list[Any]) -> Iterator[None]:
    """Undo what the code within changes in place in the tensors and arrays of samples."""
    tensors, arrays = [], []
    for _, thing in held(samples):
        if isinstance(thing, np.ndarray):
            arrays.append((thing, thing.copy()))
        elif isinstance(thing, Tensor) and thing.layout == torch.strided and not thing.is_nested:
            tensors.append((thing, thing.detach().clone()))
    try:
        yield
    finally:
        _restore(tensors)
        for array, before in arrays:
            if array.flags.writeable and array.tobytes() != before.tobytes():
                array[...] = before


def is_lazy(tensor: Tensor) -> bool:
    """Whether this is a parameter or buffer of a lazy module that has no shape yet."""
    return isinstance(tensor, UninitializedTensorMixin)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module keeps its state in Python; a scripted one does not."""
    return not isinstance(module, torch.jit.ScriptModule)


class _Attributes:
    """What a module's `__dict__` holds, and its class, which a lazy module changes.

    Tensors are told apart by identity: a buffer that is assigned anew in `forward` goes back to the
    one that was there. Containers are restored one level deep.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._type = type(module)
        self._held = dict(vars(module))
        containers = [v for v in self._held.values() if isinstance(v, (dict, list, set, deque))]
        # Most are empty, and need no copy.
        self._empty: list[Any] = [container for container in containers if not container]
        self._containers: list[tuple[Any, Any]] = [
            (container, container.copy()) for container in containers if container
        ]

    def restore(self) -> None:
        if type(self._module) is not self._type:
            self._module.__class__ = self._type
        self._put_back(vars(self._module), self._held)
        for container in self._empty:
            if container:
                container.clear()
        for container, before in self._containers:
            if container or before:
                self._put_back(container, before)

    @staticmethod
    def _put_back(container: Any, before: Any) -> None:
        """Restore the contents of a container, and leave it alone where nothing changed."""
        if isinstance(container, set):
            changed = container != before
        elif isinstance(container, dict):
            changed = list(container) != list(before) or not all(
                map(operator.is_, container.values(), before.values())
            )
        else:
            changed = len(container) != len(before) or not all(map(operator.is_, container, before))
        if changed:
            container.clear()
            (container.update if isinstance(container, (dict, set)) else container.extend)(before)


def _restore(kept: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for tensor, value in kept:
            # Only where it changed, so that version counters stay as they were elsewhere.
            if not _same(tensor, value):
                if tensor.shape != value.shape:
                    tensor.data = value
                else:
                    tensor.copy_(value)


def _same(tensor: Tensor, value: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN counts as equal to itself, 0 as -0 does not."""
    if tensor.shape != value.shape or tensor.dtype != value.dtype:
        return False
    if tensor.is_meta:
        return True
    if tensor.is_floating_point():
        bits = BITS.get(tensor.dtype)
        if bits is not None and tensor.layout == torch.strided:
            # Bit by bit is one comparison; mostly nothing changed.
            try:
                if torch.equal(tensor.detach().view(bits), value.view(bits)):
                    return True
            except RuntimeError:  # a tensor of the user's own kind
                pass
        alike = (tensor == value) & (tensor.signbit() == value.signbit())
        return bool((alike | (tensor.isnan() & value.isnan())).all())
    return bool(torch.equal(tensor, value))
