"""Reads: which tensors of a batch the model looks at, and which the loss does."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from icediag.instruments.running.operations import MADE, OperationMode
from icediag.instruments.running.preserve import is_lazy

from .walk import leaves

Key = tuple[int, int, tuple[int, ...], tuple[int, ...]]


def _key(tensor: Tensor) -> Key | None:
    """Where a tensor lies; None of one without memory of its own."""
    if is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta:
        return None
    try:
        at = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return None
    return (at, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


class Reads(OperationMode):
    """Notes which of some tensors are handed to an operation; their shapes alone are no reading.

    What leaves torch, by `.numpy()` for instance, is not seen.

    Args:
        tree: Whose tensors.
    """

    def __init__(self, tree: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()
        self._paths: dict[Key, list[str]] = {}
        for path, tensor in leaves(tree):
            key = _key(tensor)
            if key is not None and tensor.numel():
                self._paths.setdefault(key, []).append(path)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the arguments and run the operation."""
        made = func._schema.name.partition("::")[2] in MADE  # noqa: SLF001 - no public name
        for thing in tree_leaves((args, kwargs or {})) if not made else ():
            if isinstance(thing, Tensor):
                key = _key(thing)
                if key in self._paths:
                    self.seen.update(self._paths[key])
        return func(*args, **(kwargs or {}))
