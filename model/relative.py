"""Relative encoding: what a pulse is within its own DOM, computed on raw values, scaled afterwards.

Scaled first, differences of nanoseconds would be differences of 1e-5, and a logarithm of a charge
is neither a fraction nor a weight.
"""

# P pulses, D DOMs

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .scatter import (
    Backend,
    group_count,
    group_max,
    group_mean,
    group_min,
    group_rank,
    group_std,
    group_sum,
)

#: Time differences are compressed as log(1 + dt / TIME_UNIT): linear for the few ns between photons
#: of one wavefront (the timing jitter of a DOM is about 3 ns), logarithmic for the microseconds of
#: afterpulses and noise.
TIME_UNIT_NS = 10.0
#: log(1 + 3,000 ns / 10 ns) = 5.7; divided by this, scattered light (hundreds of ns) is of order 1.
TIME_LOG_SCALE = 4.0

Rank = Callable[[Tensor, Tensor, int], Tensor]


class RelativeEncoder(nn.Module):
    """Six features of a pulse relative to the other pulses of its DOM in its event."""

    n_features = 6

    def __init__(self, backend: Backend = "auto", rank: Rank = group_rank) -> None:
        super().__init__()
        self.backend: Backend = backend
        self.rank = rank

    def forward(
        self,
        times: Annotated[Float[Tensor, "pulses"], Unit("ns")],
        charges: Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)],
        pulse_to_dom_idx: Int64[Tensor, "pulses"],
        num_doms: int,
    ) -> Float[Tensor, "pulses 6"]:
        """Encode.

        Args:
            times: `(P,)` ns, raw.
            charges: `(P,)` p.e., raw, >= 0.
            pulse_to_dom_idx: `(P,)` DOM of each pulse, 0..num_doms-1.
            num_doms: D.

        Returns:
            `(P, 6)`, in order: time since the DOM's first pulse (compressed, >= 0); time from the
            DOM's mean (compressed, signed); spread of the DOM's times (compressed, >= 0); share of
            the DOM's charge (0..1); charge over the DOM's largest (0..1); share of the DOM's
            pulses that came earlier (0..1). A DOM with one pulse gives 0, 0, 0, 1, 1, 0.
        """
        dom, n, backend = pulse_to_dom_idx, num_doms, self.backend
        # All from the first pulse on: a mean of 10,000 ns in float32 would cost the nanosecond.
        since_first = times - group_min(times, dom, n, backend)[dom]
        from_mean = since_first - group_mean(since_first, dom, n, backend)[dom]
        spread = group_std(since_first, dom, n, backend)[dom]
        share = charges / self._not_0(group_sum(charges, dom, n, backend))[dom]
        ratio = charges / self._not_0(group_max(charges, dom, n, backend))[dom]
        earlier = self.rank(times, dom, n) / group_count(dom, n)[dom]
        return torch.stack(
            [
                self._compress(since_first),
                self._compress(from_mean),
                self._compress(spread),
                share,
                ratio,
                earlier.to(times.dtype),
            ],
            dim=1,
        )

    @staticmethod
    def _compress(nanoseconds: Tensor) -> Tensor:
        return nanoseconds.sign() * (nanoseconds.abs() / TIME_UNIT_NS).log1p() / TIME_LOG_SCALE

    @staticmethod
    def _not_0(charge_D: Tensor) -> Tensor:
        """A DOM whose charges are all 0 gives share 0 / 1, not 0 / 0."""
        return torch.where(charge_D == 0, 1, charge_D)
