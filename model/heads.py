"""Heads: the event's vector to a direction. Three of them behind one interface."""

# B events, F features

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, Lt, Unit
from jaxtyping import Float
from torch import Tensor, nn

from .directions import MAX_ZENITH, TWO_PI, to_angles, to_unit_vector, wrap_azimuth

#: Smallest concentration, and smallest length that a direction is divided by. Below it the density
#: is uniform to seven digits.
MIN_KAPPA = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What every head gives.

    Attributes:
        azimuth: `(B,)` radians, in [0, 2 pi).
        zenith: `(B,)` radians, in [0, pi].
        direction: `(B, 3)` unit vector to where the neutrino came from; losses work on this.
        kappa: `(B,)` concentration of a von Mises-Fisher distribution around it, > 0: large where
            the head is sure. None from heads that give angles alone. It means something only after
            training with a von Mises-Fisher loss.
    """

    azimuth: Annotated[Float[Tensor, "events"], Unit("rad"), Ge(0), Lt(TWO_PI)]
    zenith: Annotated[Float[Tensor, "events"], Unit("rad"), Ge(0), Le(math.pi)]
    direction: Float[Tensor, "events 3"]
    kappa: Annotated[Float[Tensor, "events"], Ge(0)] | None = None

    def __post_init__(self) -> None:
        n = self.direction.shape[0]
        for name, value in (("azimuth", self.azimuth), ("zenith", self.zenith)):
            if value.shape != (n,):
                raise ValueError(
                    f"Prediction.{name}: expected shape ({n},), got {tuple(value.shape)}"
                )


class UnitVectorHead(nn.Module):
    """A vector in space: its direction is the prediction, its length the concentration kappa.

    No seam at azimuth 0 = 2 pi and no pole: neighbours on the sphere are neighbours here.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.to_vector = nn.Linear(d_model, 3)

    def forward(self, event: Float[Tensor, "events features"]) -> Prediction:
        """Predict from `(B, F)`."""
        # Under autocast the vector comes in bfloat16, whose 8 bits are half a degree.
        vector = self.to_vector(event).float()
        # The floor keeps the zero vector from 0 / 0: its direction is 0, its gradient finite.
        kappa = torch.linalg.vector_norm(vector, dim=-1).clamp_min(MIN_KAPPA)
        direction = vector / kappa[:, None]
        azimuth, zenith = to_angles(direction)
        return Prediction(azimuth=azimuth, zenith=zenith, direction=direction, kappa=kappa)


class BoundedAnglesHead(nn.Module):
    """Two angles squashed into their domains: pi (1 + tanh) and pi sigmoid.

    Azimuth is bounded but not periodic: a truth near 0 and one near 2 pi are neighbours in the sky
    and far apart here.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.to_pair = nn.Linear(d_model, 2)

    def forward(self, event: Float[Tensor, "events features"]) -> Prediction:
        """Predict from `(B, F)`."""
        # Adam moves every weight by its rate at once: unscaled, some steps saturate both functions.
        scores = self.to_pair(event).float() * event.shape[-1] ** -0.5
        first, second = scores.unbind(-1)
        azimuth = wrap_azimuth(math.pi * (1 + first.tanh()))
        zenith = (math.pi * second.sigmoid()).clamp(0, MAX_ZENITH)
        return Prediction(azimuth=azimuth, zenith=zenith, direction=to_unit_vector(azimuth, zenith))


class AnglesHead(nn.Module):
    """Two angles from a bare linear layer, any real numbers, brought into their domains afterwards.

    The direction is that of the raw pair; folding only renames it. Many raw pairs mean the same
    direction, so the net can wander off without being told.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.to_pair = nn.Linear(d_model, 2)

    def forward(self, event: Float[Tensor, "events features"]) -> Prediction:
        """Predict from `(B, F)`."""
        first, second = self.to_pair(event).float().unbind(-1)
        direction = to_unit_vector(first, second)
        azimuth, zenith = to_angles(direction)
        return Prediction(azimuth=azimuth, zenith=zenith, direction=direction)


HeadName = Literal["unit_vector", "bounded_angles", "angles"]
HEADS: dict[HeadName, type[UnitVectorHead | BoundedAnglesHead | AnglesHead]] = {
    "unit_vector": UnitVectorHead,
    "bounded_angles": BoundedAnglesHead,
    "angles": AnglesHead,
}
