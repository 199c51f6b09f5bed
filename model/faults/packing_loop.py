"""Fault: DOMs are packed one by one into one rectangle as long as the longest event.

For every DOM two values are read back from the device and one row is written in place; on the way
back each of these writes copies the gradient of the whole rectangle.
"""

# D DOMs, B events, L longest event (CLS included), F features

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from icediag.model.collate import Batch
from icediag.model.network import Parts
from icediag.model.packing import Bucket, Packed


def pack_one_by_one(
    doms: Float[Tensor, "doms features"], cls: Float[Tensor, "*events features"], batch: Batch
) -> Packed:
    """Fill a zeroed (B, L, F) rectangle in a Python loop over DOMs."""
    n_events, n_features = batch.batch_size, doms.shape[1]
    counts = torch.bincount(batch.dom_to_event_idx, minlength=n_events)
    length = int(counts.max().item()) + 1
    tokens_BLF = doms.new_zeros(n_events, length, n_features)
    padding_BL = torch.ones(n_events, length, dtype=torch.bool, device=doms.device)
    filled_B = torch.zeros(n_events, dtype=torch.long, device=doms.device)
    tokens_BLF[:, 0] = cls
    padding_BL[:, 0] = False
    for row in range(doms.shape[0]):
        event = int(batch.dom_to_event_idx[row].item())
        slot = int(filled_B[event].item()) + 1
        tokens_BLF[event, slot, :] = doms[row]
        padding_BL[event, slot] = False
        filled_B[event] += 1
    return Packed(
        tokens=tokens_BLF.view(-1, n_features),
        padding_mask=padding_BL.view(-1),
        slot_of_cls=torch.arange(n_events, device=doms.device) * length,
        buckets=(Bucket(start=0, rows=n_events, length=length, padded=True),),
    )


def packing_loop(parts: Parts) -> Parts:
    """Pack DOM by DOM."""
    return replace(parts, pack=pack_one_by_one)
