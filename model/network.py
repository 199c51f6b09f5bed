"""The network: raw batch in, direction out. Its parts, in the order of the flow.

normalise -> relative encoder -> DOM encoder -> geometry -> packing -> event transformer -> head
"""

# P pulses, D DOMs, B events

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float
from torch import Tensor, nn

from .array import icecube86
from .collate import Batch
from .dom_encoder import DomEncoder, mlp
from .event import AUXILIARY, CHARGE, TIME
from .frame import EventFrame
from .geometry import GeometryLookup, fourier_features
from .heads import HEADS, HeadName, Prediction
from .normalize import Normalizer, NormalizerConfig
from .packing import Packed, pack
from .relative import Rank, RelativeEncoder
from .scatter import Backend, group_rank
from .summary import EventSummary
from .transformer import EventTransformer


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes and choices.

    Attributes:
        d_model: Width of DOM and event vectors; a multiple of `n_heads`.
        n_heads: Attention heads.
        n_layers: Transformer layers.
        dropout: On the residual branches, 0..1.
        octaves: Frequencies of the position encoding, see `fourier_features`.
        head: `unit_vector`, `bounded_angles` or `angles`.
        backend: See `scatter`.
        normalizer: Constants of the normalisation.
    """

    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 4
    dropout: float = 0.0
    octaves: int = 5
    head: HeadName = "unit_vector"
    backend: Backend = "auto"
    normalizer: NormalizerConfig = field(default_factory=NormalizerConfig)

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {self.head!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected 0 <= dropout < 1, got {self.dropout}")
        for name in ("d_model", "n_heads", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")


def raw_values(
    batch: Batch,
    features: Float[Tensor, "pulses 3"],  # noqa: ARG001 - a replacement may want them
) -> tuple[
    Annotated[Float[Tensor, "pulses"], Unit("ns")],
    Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)],
]:
    """What the relative encoder works on: raw times (ns) and raw charges (p.e.)."""
    return batch.pulse_features[:, TIME], batch.pulse_features[:, CHARGE]


def raw_charges(
    batch: Batch,
    features: Float[Tensor, "pulses 3"],  # noqa: ARG001 - as above
) -> Annotated[Float[Tensor, "pulses"], Unit("p.e."), Ge(0)]:
    """What charge-weighted pooling weighs by: raw charges (p.e.), never negative."""
    return batch.pulse_features[:, CHARGE]


def pack_batch(
    doms: Float[Tensor, "doms features"], cls: Float[Tensor, "events features"], batch: Batch
) -> Packed:
    """Pack by the plan that came with the batch."""
    return pack(doms, cls, batch.packing)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of the network that can be replaced without touching it; `faults` does.

    Attributes:
        relative_inputs: (batch, normalised features) -> times, charges for the relative encoder.
        pooling_weights: (batch, normalised features) -> weights of the pooling.
        rank: Rank of each pulse's time within its DOM.
        pack: (DOM vectors, CLS vector, batch) -> packed tokens.
        head: d_model -> the module that predicts; None takes the one that the configuration names.
    """

    relative_inputs: Callable[[Batch, Tensor], tuple[Tensor, Tensor]] = raw_values
    pooling_weights: Callable[[Batch, Tensor], Tensor] = raw_charges
    rank: Rank = group_rank
    pack: Callable[[Tensor, Tensor, Batch], Packed] = pack_batch
    head: Callable[[int], nn.Module] | None = None


class DirectionNetwork(nn.Module):
    """Directions of ragged events.

    Called as `network(batch)`; gives a `Prediction`.
    """

    def __init__(
        self,
        config: NetworkConfig | None = None,
        *,
        positions_m: Float[Tensor, "sensors 3"] | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Build.

        Args:
            config: Sizes and choices.
            positions_m: `(sensors, 3)` DOM positions in metres; without, those of IceCube-86.
            parts: Replacements.

        Raises:
            ValueError: `positions_m` is no table of positions, or a size is off.
        """
        super().__init__()
        config = config or NetworkConfig()
        if positions_m is None:
            positions_m = torch.from_numpy(icecube86())
        self.config = config
        self.parts = parts or Parts()
        d = config.d_model
        self.normalizer = Normalizer(config.normalizer)
        self.relative_encoder = RelativeEncoder(config.backend, self.parts.rank)
        self.dom_encoder = DomEncoder(3 + RelativeEncoder.n_features, d, d, config.backend)
        self.geometry = GeometryLookup(positions_m)
        self.frame = EventFrame(config.backend)
        self.to_token = nn.Linear(d + 3 + 6 * config.octaves + EventFrame.dom_features, d)
        self.summary = EventSummary(config.backend)
        self.to_cls = mlp(EventSummary.n_features + EventFrame.event_features, 2 * d, d)
        self.transformer = EventTransformer(d, config.n_heads, config.n_layers, config.dropout)
        self.head = (self.parts.head or HEADS[config.head])(d)

    def forward(self, batch: Batch) -> Prediction:
        """Predict the directions of a batch."""
        dom, n = batch.pulse_to_dom_idx, batch.num_doms
        features = self.normalizer(
            batch.pulse_features[:, TIME],
            batch.pulse_features[:, CHARGE],
            batch.pulse_features[:, AUXILIARY],
        )
        times, charges = self.parts.relative_inputs(batch, features)
        relative = self.relative_encoder(times, charges, dom, n)
        embedding = self.dom_encoder(
            torch.cat([features, relative], dim=1),
            self.parts.pooling_weights(batch, features),
            dom,
            n,
        )
        position = self.geometry(batch.dom_ids)
        raw = (
            batch.pulse_features[:, TIME],
            batch.pulse_features[:, CHARGE],
            batch.pulse_features[:, AUXILIARY],
            position,
            dom,
            batch.dom_to_event_idx,
            batch.batch_size,
        )
        frame = self.frame(*raw)
        fourier = fourier_features(position, self.config.octaves)
        doms = self.to_token(torch.cat([embedding, fourier, frame.doms], dim=1))
        cls = self.to_cls(torch.cat([self.summary(*raw), frame.events], dim=1))
        packed = self.parts.pack(doms, cls, batch)
        event = self.transformer(packed)
        prediction: Prediction = self.head(event)
        return prediction
