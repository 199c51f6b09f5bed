"""Normalisation of pulse features: once, at the door of the network, and nowhere else."""

# P pulses

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Unit
from jaxtyping import Float
from torch import Tensor, nn

#: Charges below this count as this before the logarithm. The smallest charge of the competition is
#: 0.025 p.e. (its grid starts there), so only a charge of exactly 0 is ever lifted.
CHARGE_FLOOR = 0.01

#: Half of the distance between these two quantiles is one standard deviation of a normal
#: distribution, and unlike the standard deviation it does not follow the tails.
LOW, HIGH = 0.1587, 0.8413


@dataclass(frozen=True, kw_only=True)
class NormalizerConfig:
    """Constants of `(t - time_shift) / time_scale` and `(log10 q - charge_shift) / charge_scale`.

    The defaults are those the field settled on in the public competition "IceCube - Neutrinos in
    Deep Ice": (t - 1e4) / 3e4 and log10(q) / 3. With them time comes out around 0.1 with a spread
    of 0.15; `fitted` gives constants with median 0 and unit spread instead.

    Attributes:
        time_shift: ns.
        time_scale: ns, > 0.
        charge_shift: Decades of p.e.
        charge_scale: Decades of p.e., > 0.
    """

    time_shift: float = 1e4
    time_scale: float = 3e4
    charge_shift: float = 0.0
    charge_scale: float = 3.0

    def __post_init__(self) -> None:
        for name in ("time_scale", "charge_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")

    @classmethod
    def fitted(
        cls, times: Float[Tensor, "pulses"], charges: Float[Tensor, "pulses"]
    ) -> "NormalizerConfig":
        """Constants that give these pulses median 0 and unit (robust) spread.

        Args:
            times: `(P,)` ns.
            charges: `(P,)` p.e.

        Raises:
            ValueError: No pulses, or all alike, so that no spread can be told.
        """
        if times.numel() == 0:
            raise ValueError("times: expected at least one pulse to fit the constants to, got none")
        found = {}
        for name, values in {
            "time": times.double(),
            "charge": charges.double().clamp_min(CHARGE_FLOOR).log10(),
        }.items():
            # numpy's quantile, because torch's refuses more than 16 million values.
            low, middle, high = np.quantile(values.numpy(), [LOW, 0.5, HIGH])
            if not high > low:
                raise ValueError(f"{name}s: expected values that differ, got {middle} throughout")
            found[f"{name}_shift"] = float(middle)
            found[f"{name}_scale"] = float(high - low) / 2
        return cls(**found)


class Normalizer(nn.Module):
    """Raw pulse features to network inputs.

    sensor_id is left out: it is a name, not a magnitude. Where a DOM is enters by `GeometryLookup`.
    """

    def __init__(self, config: NormalizerConfig | None = None) -> None:
        super().__init__()
        config = config or NormalizerConfig()
        shift = torch.tensor([config.time_shift, config.charge_shift, 0.0])
        scale = torch.tensor([config.time_scale, config.charge_scale, 1.0])
        # Buffers: they follow the model to its device and are saved with it, so that a model can
        # never be used with constants other than those it was trained with.
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.shift: Tensor
        self.scale: Tensor

    def forward(
        self,
        times: Annotated[Float[Tensor, "pulses"], Unit("ns")],
        charges: Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)],
        auxiliary: Annotated[Float[Tensor, "pulses"], Ge(0)],
    ) -> Float[Tensor, "pulses 3"]:
        """Normalise.

        Args:
            times: `(P,)` ns, raw.
            charges: `(P,)` p.e., raw, >= 0.
            auxiliary: `(P,)` 0 or 1.

        Returns:
            `(P, 3)`: time, log-charge, auxiliary; numbers around 0 of order 1.
        """
        features = torch.stack([times, charges.clamp_min(CHARGE_FLOOR).log10(), auxiliary], dim=1)
        return (features - self.shift) / self.scale
