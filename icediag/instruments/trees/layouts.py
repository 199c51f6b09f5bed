"""Layouts: sizes and values of tensors that are not plain ones: nested, sparse, of a subclass."""

import torch
from torch import Tensor

#: Layouts of sparse tensors whose stored values `values()` gives.
COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def pieces_of(nested: Tensor) -> list[Tensor]:
    """The tensors that a nested tensor is made of, detached."""
    return [piece.detach() for piece in nested.detach().unbind()]


def sizes_of(tensor: Tensor) -> tuple[int, ...]:
    """Sizes of a tensor, of any layout; along a ragged axis the longest."""
    if not tensor.is_nested:
        return tuple(int(size) for size in tensor.shape)
    pieces = pieces_of(tensor)
    if not pieces:
        return (0,) * tensor.dim()
    longest = (max(sizes) for sizes in zip(*(piece.shape for piece in pieces), strict=True))
    return (len(pieces), *longest)


def ragged_axes(tensor: Tensor) -> list[bool]:
    """For each axis whether its size differs within the tensor."""
    if not tensor.is_nested:
        return [False] * tensor.dim()
    pieces = pieces_of(tensor)
    if not pieces:
        return [False] * tensor.dim()
    return [False, *(len(set(s)) > 1 for s in zip(*(p.shape for p in pieces), strict=True))]


def stored_values(tensor: Tensor) -> tuple[Tensor, int]:
    """All values of a tensor as a plain one, and how many zeros there are beside these.

    Args:
        tensor: Nested, sparse or plain; not followed by autograd.

    Raises:
        RuntimeError: torch cannot give its values.
    """
    if tensor.is_nested:
        pieces = pieces_of(tensor)
        return torch.cat([piece.reshape(-1) for piece in pieces or [torch.empty(0)]]), 0
    if tensor.layout == torch.sparse_coo:
        stored = tensor.coalesce().values()
    elif tensor.layout in COMPRESSED:
        stored = tensor.values()
    else:
        return tensor, 0
    return stored, tensor.numel() - stored.numel()
