"""DOM encoder (DeepSets): the pulses of a DOM, however many, to one vector.

Zaheer et al., "Deep Sets", NeurIPS 2017, arXiv:1703.06114: encode each element, pool with
symmetric functions, decode.
"""

# P pulses, D DOMs, F features, H hidden

from typing import Annotated

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .scatter import Backend, group_max, group_mean, group_sum


def mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Two linear layers with a normed GELU between them."""
    return nn.Sequential(
        nn.Linear(n_in, n_hidden), nn.LayerNorm(n_hidden), nn.GELU(), nn.Linear(n_hidden, n_out)
    )


def charge_weighted_mean(
    encoded: Float[Tensor, "pulses features"],
    weights: Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)],
    pulse_to_dom_idx: Int64[Tensor, "pulses"],
    num_doms: int,
    backend: Backend = "auto",
) -> Float[Tensor, "doms features"]:
    """Mean of each DOM's encoded pulses, weighted by charge.

    Args:
        encoded: `(P, F)`.
        weights: `(P,)` raw charges in p.e., >= 0. A negative weight would let the weights of a DOM
            sum to 0.
        pulse_to_dom_idx: `(P,)` DOM of each pulse.
        num_doms: D.
        backend: See `scatter`.

    Returns:
        `(D, F)`; 0 for a DOM whose charges are all 0.
    """
    total = group_sum(weights, pulse_to_dom_idx, num_doms, backend)
    # 0 / 1, not 0 / 0, where all charges are 0.
    share = weights / torch.where(total == 0, 1, total)[pulse_to_dom_idx]
    return group_sum(encoded * share[:, None], pulse_to_dom_idx, num_doms, backend)


class DomEncoder(nn.Module):
    """Encode pulses, pool by mean, maximum and charge-weighted mean, decode to one vector a DOM."""

    def __init__(
        self, n_in: int, n_hidden: int = 128, n_out: int = 128, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        self.encode = mlp(n_in, n_hidden, n_hidden)
        self.decode = mlp(3 * n_hidden, n_hidden, n_out)
        self.backend: Backend = backend

    def pool(
        self,
        encoded: Float[Tensor, "pulses features"],
        weights: Annotated[Float[Tensor, "pulses"], Ge(0)],
        pulse_to_dom_idx: Int64[Tensor, "pulses"],
        num_doms: int,
    ) -> Float[Tensor, "doms pooled"]:
        """Pool: `(P, F)` to `(D, 3 F)` = mean, maximum, charge-weighted mean."""
        dom, n, backend = pulse_to_dom_idx, num_doms, self.backend
        return torch.cat(
            [
                group_mean(encoded, dom, n, backend),
                group_max(encoded, dom, n, backend),
                charge_weighted_mean(encoded, weights, dom, n, backend),
            ],
            dim=1,
        )

    def forward(
        self,
        features: Float[Tensor, "pulses features"],
        weights: Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)],
        pulse_to_dom_idx: Int64[Tensor, "pulses"],
        num_doms: int,
    ) -> Float[Tensor, "doms embedding"]:
        """Encode DOMs.

        Args:
            features: `(P, F)` normalised and relative features.
            weights: `(P,)` raw charges, p.e., >= 0.
            pulse_to_dom_idx: `(P,)` DOM of each pulse.
            num_doms: D.

        Returns:
            `(D, n_out)`.
        """
        encoded = self.encode(features)
        # Under autocast the encoder gives bfloat16; sums over thousands of pulses want float32.
        pooled = self.pool(encoded.float(), weights, pulse_to_dom_idx, num_doms)
        embedding: Tensor = self.decode(pooled)
        return embedding
