"""Slots: which entries of a padded batch hold something, and which are padding."""

# B samples, L slots of a sample

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icediag.instruments.trees import leaves

Bools = npt.NDArray[np.bool_]


class Slots:
    """Padding of a batch, told from lengths.

    Lengths are those of the samples as the data set gave them, or a tensor of the batch that has
    one entry a sample and the number of slots as its largest, or a mask whose rows change once.

    Args:
        batch: What collate gave.
        lengths: For tensors of a sample whose first axis differs: its size in each sample.
        n_samples: Number of samples.
    """

    def __init__(self, batch: Any, lengths: dict[str, list[int]], n_samples: int) -> None:
        self.of: dict[tuple[int, int], Bools] = {}
        tensors = [(path, tensor) for path, tensor in leaves(batch) if tensor.numel()]
        given = [np.asarray(sizes) for sizes in lengths.values()]
        given += [_ints(tensor) for _, tensor in tensors if _counts(tensor, n_samples)]
        for sizes in given:
            # Collate functions for packed sequences sort by length.
            for order in (sizes, np.sort(sizes)[::-1]):
                for _, tensor in tensors:
                    if tensor.ndim < 2 or tensor.shape[0] != n_samples:
                        continue
                    # A language model is given all tokens but the last, and is to say the next.
                    n = tensor.shape[1]
                    if n not in (order.max(), order.max() - 1):
                        continue
                    kept = np.arange(n) < order[:, None]
                    if not kept.all() and _constant_outside(tensor, kept):
                        self.of.setdefault((n_samples, n), kept)
        for _, tensor in tensors:
            kept_of_mask = _mask(tensor, n_samples)
            if kept_of_mask is not None:
                self.of.setdefault((tensor.shape[0], tensor.shape[1]), kept_of_mask)

    def kept(self, shape: tuple[int, ...]) -> Bools | None:
        """For a table with these axes before flattening, which of its rows hold something.

        Args:
            shape: Of the table, columns last.

        Returns:
            One flag a row of the flattened table; None where there is no padding.
        """
        for (b, n), kept in self.of.items():
            if len(shape) > 2 and shape[:2] == (b, n):
                rest = int(np.prod(shape[2:-1]))
                return kept.reshape(-1).repeat(rest)
            if len(shape) > 2 and shape[:2] == (n, b):
                rest = int(np.prod(shape[2:-1]))
                return kept.T.reshape(-1).repeat(rest)
            if len(shape) <= 2 and shape[0] == b * n:
                return kept.reshape(-1)
        return None


def _ints(tensor: Tensor) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = tensor.detach().cpu().to(torch.int64).numpy()
    return found


def _counts(tensor: Tensor, n_samples: int) -> bool:
    """Whether this may hold the length of each sample."""
    whole = tensor.dtype in (torch.int64, torch.int32, torch.int16)
    if not whole or tensor.ndim != 1 or tensor.numel() != n_samples:
        return False
    return int(tensor.min()) >= 0 and int(tensor.max()) > 1


def _constant_outside(tensor: Tensor, kept: Bools) -> bool:
    """Whether what lies beyond the lengths is one and the same value throughout."""
    outside = tensor.detach().cpu()[torch.from_numpy(~kept)]
    return bool((outside == outside[:1]).all())


def _mask(tensor: Tensor, n_samples: int) -> Bools | None:
    """The slots that a boolean mask keeps, where each of its rows changes once at most."""
    if tensor.dtype != torch.bool or tensor.ndim != 2 or tensor.shape[0] != n_samples:
        return None
    mask: Bools = tensor.detach().cpu().numpy()
    if mask.shape[1] < 2 or mask.all() or not mask.any():
        return None
    for keeps in (mask, ~mask):
        # Full slots first: 1 1 1 0 0.
        if (keeps[:, :-1] >= keeps[:, 1:]).all() and keeps[:, 0].any() and keeps[:, 0].all():
            return keeps
    return None


def padded_leaves(batch: Any, slots: Slots) -> Iterator[tuple[str, Tensor, tuple[int, int]]]:
    """Tensors of a batch that have a slot axis, with the sizes of their first two axes."""
    for path, tensor in leaves(batch):
        if tensor.ndim >= 2 and tuple(tensor.shape[:2]) in slots.of:
            yield path, tensor, (tensor.shape[0], tensor.shape[1])
