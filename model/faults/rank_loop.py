"""Fault: ranks are computed DOM by DOM, each with a mask over all pulses.

The work grows with pulses times DOMs: with the square of the batch size.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from icediag.model.network import Parts


def rank_dom_by_dom(
    key: Float[Tensor, "rows"], index: Int64[Tensor, "rows"], n_groups: int
) -> Int64[Tensor, "rows"]:
    """The same ranks as `group_rank`, slowly."""
    rank = torch.zeros_like(index)
    for group in range(n_groups):
        members = index == group
        values = key[members]
        rank[members] = (values[:, None] > values[None, :]).sum(dim=1)
    return rank


def rank_loop(parts: Parts) -> Parts:
    """Rank DOM by DOM."""
    return replace(parts, rank=rank_dom_by_dom)
