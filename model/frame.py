"""Event frame: an event seen from its own middle, in closed form.

A track is a line of light, a shower a ball of it, brighter and earlier in front than behind. Both
show in where DOMs lie and when they are lit *relative to the event's middle*: distances and
products that a transformer on absolute positions and times has to find out first. Without them it
stays at the line fit that `EventSummary` gives it.
"""

# P pulses, D DOMs, B events

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Le, Unit
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .geometry import LENGTH_SCALE_M
from .light import C_LIGHT, COS_CHERENKOV, N_GROUP, SIN_CHERENKOV
from .scatter import Backend, group_max, group_mean, group_min, group_sum
from .summary import AUXILIARY_WEIGHT

#: A charge counts as this at most, p.e.: one bright DOM is not to be the middle of its event.
CHARGE_LIMIT = 3.0
#: Later than any pulse, ns: moves auxiliary pulses behind all others of their DOM.
_BEHIND = 1e5
#: Rounds of reweighting, and the distance from the line, m, from which on a DOM counts less, by the
#: square of it: as improved LineFit's, arXiv:1308.5501, section 5.2, which counts linearly and then
#: drops what is far.
_ROUNDS = 3
_FAR = 100.0
#: ns^2, added to variances of time: below 10 ns of spread no velocity is made up.
_TIME_FLOOR = 100.0
#: Light of a track reaches a DOM at distance d this much after the particle has passed it, ns/m:
#: t = (along + 0.9173 d) / c [van Eijndhoven et al., Astropart. Phys. 28 (2007) 456].
_CHERENKOV_DELAY = (N_GROUP - COS_CHERENKOV) / (SIN_CHERENKOV * C_LIGHT)

#: Scales, m and ns, that make the numbers of order 1: strings are 125 m apart; light needs 600 ns
#: for that, and scattering makes some of it hundreds of ns late.
_LENGTH = 200.0
_WIDE = 300.0
_SPREAD = 1_000.0
_LATE = 30.0

#: Knots of distance from the middle, m, and of time after a flash there would have been seen, ns:
#: light is summed up in 4 x 4 bins of them. Bins overlap like hats, so that nothing jumps.
_DISTANCES = (20.0, 60.0, 120.0, 240.0)
_DELAYS = (-800.0, -400.0, -100.0, 300.0)


def _compressed(values: Tensor, unit: float) -> Tensor:
    """Linear for values far below `unit`, logarithmic far above."""
    return values.sign() * (values.abs() / unit).log1p()


def _hats(values: Tensor, knots: tuple[float, ...]) -> Tensor:
    """`(P,)` to `(P, knots)`: how near each value is to each knot; they sum to 1."""
    beyond = [((values - low) / (high - low)).clamp(0, 1) for low, high in pairwise(knots)]
    ones = torch.ones_like(values)
    edges = [ones, *beyond, torch.zeros_like(values)]
    return torch.stack([a - b for a, b in pairwise(edges)], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """What an event looks like from its own middle.

    Attributes:
        doms: `(D, 14)`: offset from the middle of light (3, in 200 m) and its direction (3);
            distance; time of the first pulse after the mean time, and after light of a flash in
            the middle; time after the light of the fitted line, place along it, distance from it;
            whether a pulse that is not auxiliary is among its pulses (0 or 1); charge.
        events: `(B, 72)`: direction that the line came from (3, of length below 1), its speed, how
            far DOMs lie from it; first moments of place and time (3); and of light, in 4 bins of
            distance by 4 of delay, its share and the sum of its directions (64). Times,
            distances and charges are compressed by logarithms.
    """

    doms: Float[Tensor, "doms 14"]
    events: Float[Tensor, "events 72"]


class EventFrame(nn.Module):
    """Middle, line and distribution of the light of each event."""

    dom_features = 14
    event_features = 72

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
    ) -> Frame:
        """Look.

        Args:
            times: `(P,)` ns, raw.
            charges: `(P,)` p.e., raw, >= 0.
            auxiliary: `(P,)` 0 or 1.
            positions: `(D, 3)` of the DOMs, in units of 500 m.
            pulse_to_dom_idx: `(P,)` DOM of each pulse.
            dom_to_event_idx: `(D,)` event of each DOM.
            batch_size: B.
        """
        dom, of_dom, n_doms = pulse_to_dom_idx, dom_to_event_idx, positions.shape[0]
        event = of_dom[dom]
        places = positions * LENGTH_SCALE_M
        # The unweighted mean first: subtracting it keeps nanoseconds in float32.
        since = times - group_mean(times, event, batch_size, self.backend)[event]
        weight = 1 - (1 - AUXILIARY_WEIGHT) * auxiliary
        light = weight * charges.clamp_max(CHARGE_LIMIT)
        share = self._share(light, event, batch_size)
        here = torch.cat([places[dom], since[:, None]], dim=1)
        middle = self._sum(share[:, None] * here, event, batch_size)
        pattern = self._pattern(share, here - middle[event], event, batch_size)

        lit = group_max(1 - auxiliary, dom, n_doms, self.backend)
        first = group_min(since + _BEHIND * auxiliary, dom, n_doms, self.backend)
        first = first - _BEHIND * (1 - lit)
        lights = torch.cat([places, first[:, None]], dim=1)
        start, velocity = self._line(lit + (1 - lit) * AUXILIARY_WEIGHT, lights, of_dom, batch_size)
        speed = self._length(velocity, floor=1e-3)
        heading = velocity / speed[:, None]
        from_start = lights - start[of_dom]
        along, apart, late = self._beside(from_start[:, :3], from_start[:, 3], heading[of_dom])
        miss = from_start[:, :3] - velocity[of_dom] * from_start[:, 3:]
        residual = self._sum(
            self._share(lit, of_dom, batch_size) * _compressed(self._length(miss), _LATE),
            of_dom,
            batch_size,
        )

        from_middle = lights - middle[of_dom]
        offset, after = from_middle[:, :3], from_middle[:, 3]
        distance = self._length(offset)
        charge = group_sum(charges, dom, n_doms, self.backend)
        doms = torch.cat(
            [
                offset / _LENGTH,
                offset / (distance + 10)[:, None],
                torch.stack(
                    [
                        ((distance + 25) / _WIDE).log(),
                        _compressed(after, _LATE) / 3,
                        _compressed(after - distance * (N_GROUP / C_LIGHT), _LATE) / 3,
                        _compressed(late, _LATE) / 3,
                        along / _LENGTH,
                        _compressed(apart, _LATE) / 2,
                        lit,
                        charge.log1p() / 2,
                    ],
                    dim=1,
                ),
            ],
            dim=1,
        )
        # No line where there are no times to tell one: the direction's length falls to 0 there.
        came_from = -velocity / (speed + 0.003)[:, None]
        events = torch.cat(
            [came_from, speed.log1p()[:, None] * 3, residual[:, None], pattern], dim=1
        )
        return Frame(doms=doms, events=events)

    def _sum(self, values: Tensor, group: Tensor, n: int) -> Tensor:
        return group_sum(values, group, n, self.backend)

    def _share(self, weight: Tensor, group: Tensor, n: int) -> Tensor:
        """Weights over the sum of their group's; a group without weight has shares of 0."""
        return weight / self._sum(weight, group, n).clamp_min(AUXILIARY_WEIGHT)[group]

    @staticmethod
    def _length(vectors: Tensor, floor: float = 1.0) -> Tensor:
        """`(N, 3)` to `(N,)`, at least `floor`, with a slope everywhere."""
        return (vectors.square().sum(dim=1) + floor**2).sqrt()

    def _line(self, weight: Tensor, lights: Tensor, event: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Line through first pulses: `(B, 4)` where (m) and when (ns), `(B, 3)` velocity (m/ns)."""
        counts = weight
        for round_ in range(_ROUNDS + 1):
            share = self._share(counts, event, n)[:, None]
            start = self._sum(share * lights, event, n)
            apart = lights - start[event]
            moments = self._sum(share * apart * apart[:, 3:], event, n)
            velocity = moments[:, :3] / (moments[:, 3:] + _TIME_FLOOR)
            if round_ < _ROUNDS:
                miss = apart[:, :3] - velocity[event] * apart[:, 3:]
                counts = weight * (_FAR / self._length(miss, floor=_FAR)).square()
        return start, velocity

    def _beside(
        self, offset: Tensor, since: Tensor, heading: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Place along a line, distance from it (m), and time after its light (ns)."""
        along = (offset * heading).sum(dim=1)
        apart = self._length(offset - along[:, None] * heading)
        return along, apart, since - along / C_LIGHT - apart * _CHERENKOV_DELAY

    def _pattern(self, share: Tensor, apart: Tensor, event: Tensor, n: int) -> Tensor:
        """`(B, 67)`: moments of place and time; light by distance and delay, and where it lies."""
        offset, delay = apart[:, :3], apart[:, 3]
        distance = self._length(offset)
        towards = offset / (distance + 10)[:, None]
        after = delay - distance * (N_GROUP / C_LIGHT)
        bins = (_hats(distance, _DISTANCES)[:, :, None] * _hats(after, _DELAYS)[:, None]).flatten(1)
        ones_and_vectors = torch.cat([torch.full_like(share, 4)[:, None], 12 * towards], dim=1)
        shares = (bins[:, :, None] * ones_and_vectors[:, None]).flatten(1)
        moments = towards * (delay / _SPREAD).clamp(-3, 3)[:, None]
        return self._sum(share[:, None] * torch.cat([moments, shares], dim=1), event, n)
