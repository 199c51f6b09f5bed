"""What is known of tensors: a view of values that were looked at is not looked at again."""

from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

Known = TypeVar("Known")
#: Entries after which those of storages that are gone are dropped.
SWEEP = 4096


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count."""
    return -1 if tensor.is_inference() else tensor._version  # noqa: SLF001 - the only way


class Looked(Generic[Known]):
    """Keeps something for each tensor, until it is changed in place.

    Plain tensors are told by where their values lie, so that each `x[:, 0]` of a model is the same;
    a storage that is gone is not taken for the next one at its address. Others are told by
    identity.
    """

    def __init__(self) -> None:
        self._views: dict[Any, tuple[Any, int, Known]] = {}
        self._others: Any = WeakTensorKeyDictionary()

    def get(self, tensor: Tensor) -> Known | None:
        """What was put for this tensor, unless it was changed since."""
        key = _key_of(tensor)
        if key is None:
            version, known = self._others.get(tensor, (None, None))
            return known if version == version_of(tensor) else None
        alive, version, found = self._views.get(key, (None, None, None))
        if alive is None or alive.expired() or version != version_of(tensor):
            return None
        return found

    def put(self, tensor: Tensor, known: Known) -> None:
        """Keep something for a tensor as it is now."""
        key = _key_of(tensor)
        if key is None:
            self._others[tensor] = (version_of(tensor), known)
            return
        if len(self._views) % SWEEP == SWEEP - 1:
            self._views = {k: v for k, v in self._views.items() if not v[0].expired()}
        alive = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self._views[key] = (alive, version_of(tensor), known)


def _key_of(tensor: Tensor) -> Any:
    """Where the values of a tensor lie; None where that does not tell them."""
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        return None
    if tensor.is_nested or tensor.is_meta:
        return None
    try:
        storage = tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):  # within vmap
        return None
    return (
        storage._cdata,  # noqa: SLF001 - its identity
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
    )
