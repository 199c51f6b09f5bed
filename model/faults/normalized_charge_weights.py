"""Fault: charge-weighted pooling is weighted by normalised charges.

log10(charge + 1e-8) / 3 is negative below one photo-electron: weights of one DOM cancel, and their
sum can come arbitrarily close to 0.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from icediag.model.collate import Batch
from icediag.model.event import CHARGE
from icediag.model.network import Parts


def log_charges(
    batch: Batch,
    features: Float[Tensor, "pulses 3"],  # noqa: ARG001 - the part's interface
) -> Float[Tensor, "pulses"]:
    """Weights as in the case: log10(charge + 1e-8) / 3."""
    return torch.log10(batch.pulse_features[:, CHARGE] + 1e-8) / 3.0


def normalized_charge_weights(parts: Parts) -> Parts:
    """Weigh the pooling by logarithms."""
    return replace(parts, pooling_weights=log_charges)
