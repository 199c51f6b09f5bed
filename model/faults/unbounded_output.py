"""Fault: azimuth and zenith are whatever a linear layer gives.

Nothing keeps azimuth in [0, 2 pi] or zenith in [0, pi].
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from icediag.model.directions import to_unit_vector
from icediag.model.heads import Prediction
from icediag.model.network import Parts


class UnboundedHead(nn.Module):
    """Two real numbers, called azimuth and zenith."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.to_pair = nn.Linear(d_model, 2)

    def forward(self, event: Float[Tensor, "events features"]) -> Prediction:
        """Predict from `(B, F)`."""
        azimuth, zenith = self.to_pair(event).float().unbind(-1)
        return Prediction(azimuth=azimuth, zenith=zenith, direction=to_unit_vector(azimuth, zenith))


def unbounded_output(parts: Parts) -> Parts:
    """Predict with a bare linear layer."""
    return replace(parts, head=UnboundedHead)
