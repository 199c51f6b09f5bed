"""Event summary: where and how fast the light moved through the detector, in closed form.

What a transformer would have to find out first, products of positions and times, is computed here
and put into each event's CLS token. Without it a run of this size sits at pi/2 for tens of
thousands of events before the loss begins to fall.
"""

# P pulses, D DOMs, B events

from typing import Annotated

import torch
from annotated_types import Ge, Le, Unit
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .geometry import LENGTH_SCALE_M
from .light import C_LIGHT
from .scatter import Backend, group_mean, group_sum

#: A pulse that took part in the trigger counts fully, an auxiliary one, mostly noise, this much: an
#: event that has no others still gets a summary.
AUXILIARY_WEIGHT = 1e-3
#: Added to the variance of times: below this spread no velocity can be told, and none is made up.
TIME_VARIANCE_FLOOR_NS2 = 1.0
#: A track crosses the detector in 3 us, noise fills the 10 us of a readout: in us, spreads of time
#: are of order 1.
TIME_SCALE_NS = 1_000.0


class EventSummary(nn.Module):
    """Eleven numbers an event: centroid, line fit, and sizes.

    The line fit is LineFit of arXiv:1308.5501, section 3: the velocity of the plane wave that fits
    positions to times with least squares, v = cov(r, t) / var(t). The neutrino came from -v.
    """

    n_features = 11

    def __init__(self, backend: Backend = "auto") -> None:
        super().__init__()
        self.backend: Backend = backend

    def forward(
        self,
        times: Annotated[Float[Tensor, "pulses"], Unit("ns")],
        charges: Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)],
        auxiliary: Annotated[Float[Tensor, "pulses"], Ge(0), Le(1)],
        positions: Float[Tensor, "doms 3"],
        pulse_to_dom_idx: Int64[Tensor, "pulses"],
        dom_to_event_idx: Int64[Tensor, "doms"],
        batch_size: int,
    ) -> Float[Tensor, "events 11"]:
        """Summarise.

        Args:
            times: `(P,)` ns, raw.
            charges: `(P,)` p.e., raw, >= 0.
            auxiliary: `(P,)` 0 or 1.
            positions: `(D, 3)` of the DOMs, in units of 500 m.
            pulse_to_dom_idx: `(P,)` DOM of each pulse.
            dom_to_event_idx: `(D,)` event of each DOM.
            batch_size: B.

        Returns:
            `(B, 11)`: centroid (3, units of 500 m); velocity v of the line fit over that of light,
            as v / (1 + |v|) (3); direction it came from (3, of length below 1); logarithm of 1 +
            total charge in p.e., over 10; spread of times in us. All 0 for an event without pulses.
        """
        event = dom_to_event_idx[pulse_to_dom_idx]
        position = positions[pulse_to_dom_idx]
        weight = 1 - (1 - AUXILIARY_WEIGHT) * auxiliary
        total = self._sum(weight, event, batch_size).clamp_min(AUXILIARY_WEIGHT)
        share = weight / total[event]
        # The unweighted mean first: subtracting it keeps nanoseconds in float32.
        apart = times - group_mean(times, event, batch_size, self.backend)[event]
        apart = apart - self._sum(share * apart, event, batch_size)[event]
        centroid = self._sum(share[:, None] * position, event, batch_size)
        offset = position - centroid[event]
        variance = self._sum(share * apart.square(), event, batch_size)
        covariance = self._sum((share * apart)[:, None] * offset, event, batch_size)
        metres = LENGTH_SCALE_M * covariance / (variance + TIME_VARIANCE_FLOOR_NS2)[:, None]
        velocity = metres / C_LIGHT
        speed = torch.linalg.vector_norm(velocity, dim=1, keepdim=True)
        # From 0 on, and with a finite slope there.
        spread = (variance + TIME_VARIANCE_FLOOR_NS2).sqrt() - TIME_VARIANCE_FLOOR_NS2**0.5
        charge = self._sum(charges, event, batch_size)
        return torch.cat(
            [
                centroid,
                # Scattered light and noise give lines at many times the speed of light, or none.
                velocity / (1 + speed),
                -velocity / (speed + 0.01),
                charge.log1p()[:, None] / 10,
                spread[:, None] / TIME_SCALE_NS,
            ],
            dim=1,
        )

    def _sum(self, values: Tensor, event: Tensor, batch_size: int) -> Tensor:
        return group_sum(values, event, batch_size, self.backend)
