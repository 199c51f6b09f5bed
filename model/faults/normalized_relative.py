"""Fault: the relative encoder gets normalised values.

A difference of 10 ns becomes 3e-4, the logarithm of a charge is taken for a charge, and the
encoder, which was made for ns and p.e., flattens what is left.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from icediag.model.collate import Batch
from icediag.model.event import CHARGE
from icediag.model.network import Parts


def normalized_values(
    batch: Batch, features: Float[Tensor, "pulses 3"]
) -> tuple[Float[Tensor, "pulses"], Float[Tensor, "pulses"]]:
    """Times as the normaliser gives them, and log10(charge + 1e-8) / 3, as in the case."""
    return features[:, 0], torch.log10(batch.pulse_features[:, CHARGE] + 1e-8) / 3.0


def normalized_relative(parts: Parts) -> Parts:
    """Feed the relative encoder with normalised values."""
    return replace(parts, relative_inputs=normalized_values)
