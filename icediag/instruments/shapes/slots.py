"""Slots: which entries of a padded batch hold something, and which are padding."""

# B samples, L slots of a sample

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icediag.instruments.trees.walk import tables

Bools = npt.NDArray[np.bool_]


class Slots:
    """Padding of a batch, told from lengths.

    Lengths are those of the samples as the data set gave them, or a tensor of the batch that has
    one entry a sample, or a mask whose rows change once. Where no sample fills all slots, as with
    batches that are padded to one size, what lies before the lengths must tell them too.

    Attributes:
        of: Samples and slots -> which slots hold something, samples first.
        path: Samples and slots -> the tensor that told it.

    Args:
        batch: What collate gave.
        lengths: For tensors of a sample whose first axis differs: its size in each sample.
        n_samples: Number of samples.
    """

    def __init__(self, batch: Any, lengths: dict[str, list[int]], n_samples: int) -> None:
        self.of: dict[tuple[int, int], Bools] = {}
        self.path: dict[tuple[int, int], str] = {}
        tensors = [(path, tensor) for path, tensor in tables(batch) if tensor.numel()]
        given = [np.asarray(sizes) for sizes in lengths.values()]
        given += [_ints(tensor) for _, tensor in tensors if _counts(tensor, n_samples)]
        for sizes in given:
            # Collate functions for packed sequences sort by length.
            for order in (sizes, np.sort(sizes)[::-1]):
                for path, tensor in tensors:
                    if tensor.ndim < 2 or tensor.shape[0] != n_samples:
                        continue
                    # A language model is given all tokens but the last, and is to say the next.
                    n = tensor.shape[1]
                    if n < order.max() - 1:
                        continue
                    kept = np.arange(n) < order[:, None]
                    if kept.all() or not _constant_outside(tensor, kept):
                        continue
                    if n <= order.max() or _told_inside(tensor, order):
                        self._add((n_samples, n), path, kept)
        for path, tensor in tensors:
            kept_of_mask = _mask(tensor, n_samples)
            if kept_of_mask is not None:
                self._add((tensor.shape[0], tensor.shape[1]), path, kept_of_mask)

    def _add(self, sizes: tuple[int, int], path: str, kept: Bools) -> None:
        self.of.setdefault(sizes, kept)
        self.path.setdefault(sizes, path)

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


def _told_inside(tensor: Tensor, lengths: npt.NDArray[Any]) -> bool:
    """Whether most samples' last row is no padding: lengths that say nothing would miss it."""
    values = tensor.detach().cpu()
    rows = torch.from_numpy(np.flatnonzero(lengths > 0))
    if 2 * len(rows) <= len(values):
        return False
    last = torch.from_numpy(lengths.astype(np.int64))[rows] - 1
    empty = values[:, -1][int(np.argmin(lengths))]
    differs = (values[rows, last] != empty).reshape(len(rows), -1).any(1)
    return bool(2 * differs.sum() > len(values))


def _mask(tensor: Tensor, n_samples: int) -> Bools | None:
    """The slots that a mask keeps, where each of its rows changes once at most.

    Tokenizers give masks of whole numbers, 1 for a token and 0 for padding.
    """
    if tensor.ndim != 2 or tensor.shape[0] != n_samples or tensor.shape[1] < 2:
        return None
    if tensor.dtype in (torch.int64, torch.int32, torch.uint8):
        values = tensor.detach().cpu().numpy()
        of_numbers: Bools = values == 1
        ordered = bool((of_numbers[:, :-1] >= of_numbers[:, 1:]).all())
        masks = ordered and of_numbers[:, 0].all() and not of_numbers.all()
        return of_numbers if masks and ((values == 0) | of_numbers).all() else None
    if tensor.dtype != torch.bool:
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
    for path, tensor in tables(batch):
        if tensor.ndim >= 2 and tuple(tensor.shape[:2]) in slots.of:
            yield path, tensor, (tensor.shape[0], tensor.shape[1])
