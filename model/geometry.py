"""Geometry lookup: where each DOM stands."""

# D DOMs, M sensors of the detector

from typing import Annotated

import torch
from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor, nn

#: The detector reaches about 500 m from its centre along each axis; the field divides by this.
LENGTH_SCALE_M = 500.0


class GeometryLookup(nn.Module):
    """Positions of DOMs in units of 500 m, from a table indexed by sensor_id.

    The table is a registered buffer: it moves with the model and is saved with it.
    """

    def __init__(self, positions_m: Float[Tensor, "sensors 3"]) -> None:
        """Take the table.

        Args:
            positions_m: `(M, 3)` x, y, z of each sensor in metres, row = sensor_id.

        Raises:
            ValueError: The table has another shape or holds a position that is not finite.
        """
        super().__init__()
        if positions_m.ndim != 2 or positions_m.shape[1] != 3:
            raise ValueError(
                f"positions_m: expected shape (sensors, 3), got {tuple(positions_m.shape)}"
            )
        if not bool(positions_m.isfinite().all()):
            sensor = int((~positions_m.isfinite()).any(dim=1).nonzero()[0])
            raise ValueError(f"positions_m: expected finite metres, got {positions_m[sensor]}")
        self.register_buffer("table", (positions_m / LENGTH_SCALE_M).float())
        self.table: Tensor

    def forward(self, dom_ids: Annotated[Int64[Tensor, "doms"], Ge(0)]) -> Float[Tensor, "doms 3"]:
        """Look up `(D,)` sensor ids; gives `(D, 3)` positions, about -1.2..1.2."""
        return self.table[dom_ids]


def fourier_features(positions: Float[Tensor, "doms 3"], octaves: int) -> Float[Tensor, "doms f"]:
    """Positions beside their sines and cosines at `octaves` doubling frequencies.

    A linear layer on x, y, z alone cannot tell strings 125 m apart sharply. Mildenhall et al.,
    "NeRF", ECCV 2020, arXiv:2003.08934, section 5.1. At 5 octaves the shortest wavelength is
    2 * 500 m / 2**4 = 62.5 m.

    Args:
        positions: `(D, 3)` in units of 500 m.
        octaves: Number of frequencies.

    Returns:
        `(D, 3 + 6 * octaves)`.
    """
    frequencies = torch.pi * 2.0 ** torch.arange(octaves, device=positions.device)
    angles = (positions[:, :, None] * frequencies).flatten(1)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=1)
