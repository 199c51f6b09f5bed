"""Collate: a list of ragged events into one flat batch. Nothing is padded, dropped or reordered."""

# P pulses, D DOMs, B events

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le, Unit
from jaxtyping import Float, Int64
from torch import Tensor

from .block import EventBlock
from .event import N_SENSORS, SENSOR_ID, Event
from .grouping import Grouping, WrongSensorError, group_doms, grouped_by_rank, whole_sensors
from .packing import BUCKET_RATIO, PackingPlan, plan_packing


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of ragged events, flat.

    Pulses keep the order of the events and, within an event, the order of its pulses. DOMs are
    those that saw at least one pulse, ordered by event and then by sensor_id.

    Attributes:
        pulse_features: `(P, 4)` float32: time (ns), charge (p.e.), sensor_id, auxiliary (0/1); raw.
        pulse_to_dom_idx: `(P,)` row of `dom_ids` that each pulse belongs to.
        num_doms: D, a plain int.
        dom_to_event_idx: `(D,)` event (0..B-1) that each DOM belongs to, ascending.
        dom_ids: `(D,)` sensor_id of each DOM, 0..5159.
        event_dom_counts: `(B,)` DOMs of each event, 0 for an event without pulses.
        event_ids: `(B,)` the events' numbers in the data set.
        batch_size: B, a plain int.
        targets: `(B, 2)` azimuth in [0, 2 pi] and zenith in [0, pi], radians.
        packing: Which slot each DOM goes to; planned here because here the lengths are on the host.
    """

    pulse_features: Float[Tensor, "pulses 4"]
    pulse_to_dom_idx: Annotated[Int64[Tensor, "pulses"], Ge(0)]
    num_doms: int
    dom_to_event_idx: Annotated[Int64[Tensor, "doms"], Ge(0)]
    dom_ids: Annotated[Int64[Tensor, "doms"], Ge(0)]
    event_dom_counts: Annotated[Int64[Tensor, "events"], Ge(0)]
    event_ids: Int64[Tensor, "events"]
    batch_size: int
    targets: Annotated[Float[Tensor, "events 2"], Unit("rad"), Ge(0), Le(2 * math.pi)]
    packing: PackingPlan

    def __post_init__(self) -> None:
        n_pulses = self.pulse_features.shape[0]
        expected = {
            "pulse_features": (n_pulses, 4),
            "pulse_to_dom_idx": (n_pulses,),
            "dom_to_event_idx": (self.num_doms,),
            "dom_ids": (self.num_doms,),
            "event_dom_counts": (self.batch_size,),
            "event_ids": (self.batch_size,),
            "targets": (self.batch_size, 2),
        }
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"Batch.{name}: expected shape {shape}, got {got}")

    def _map(self, change: Any) -> "Batch":
        """A copy with `change` applied to each tensor and to the plan."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        changed: dict[str, Any] = {k: v if isinstance(v, int) else change(v) for k, v in values}
        return Batch(**changed)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on `device`; `non_blocking` overlaps the copy if memory is pinned."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; `DataLoader(pin_memory=True)` calls this."""
        return self._map(lambda value: value.pin_memory())


def _doms(block: EventBlock, n_sensors: int) -> Grouping:
    """The DOMs of a block.

    Raises:
        ValueError: A sensor_id is not a whole number in 0..n_sensors-1.
    """
    sensors_P = block.pulse_features[:, SENSOR_ID].detach().numpy()
    if block.dom_ranks is not None:
        doms = grouped_by_rank(sensors_P, block.lengths, block.dom_ranks)
        # The data set has looked at every pulse; whether all are sensors of this detector is left.
        if not doms.dom_ids.size or doms.dom_ids.max() < n_sensors:
            return doms
    try:
        sensors_P = whole_sensors(sensors_P, n_sensors)
    except WrongSensorError as wrong:
        event = int(np.searchsorted(np.cumsum(block.lengths), wrong.pulse, side="right"))
        raise ValueError(
            f"sensor_id: expected a whole number in 0..{n_sensors - 1}, got "
            f"{sensors_P[wrong.pulse]} in event {block.event_ids[event]}, pulse "
            f"{wrong.pulse - int(block.lengths[:event].sum())}"
        ) from None
    return group_doms(sensors_P, block.lengths, n_sensors=n_sensors)


def collate(
    events: Sequence[Event], *, n_sensors: int = N_SENSORS, bucket_ratio: float = BUCKET_RATIO
) -> Batch:
    """Collate events to a batch, without a Python loop over pulses or DOMs.

    Args:
        events: At least one event; events without pulses are kept. An `EventBlock`, which the data
            sets give for a batch, is flat already, and its pulses are taken as they are.
        n_sensors: Number of sensors of the detector; sensor_id is 0..n_sensors-1.
        bucket_ratio: See `plan_packing`.

    Returns:
        The batch, on the CPU.

    Raises:
        ValueError: No events, or a sensor_id that is not a whole number in 0..n_sensors-1 (named
            with its event and pulse).
    """
    if not events:
        raise ValueError("events: expected at least one event, got none")
    block = EventBlock.of(events)
    doms = _doms(block, n_sensors)
    event_dom_counts = torch.from_numpy(doms.counts)
    return Batch(
        pulse_features=block.pulse_features,
        pulse_to_dom_idx=torch.from_numpy(doms.dom_of_pulse),
        num_doms=doms.dom_ids.size,
        dom_to_event_idx=torch.from_numpy(np.repeat(np.arange(len(block)), doms.counts)),
        dom_ids=torch.from_numpy(doms.dom_ids),
        event_dom_counts=event_dom_counts,
        event_ids=torch.from_numpy(block.event_ids),
        batch_size=len(block),
        targets=block.targets,
        packing=plan_packing(event_dom_counts, ratio=bucket_ratio),
    )
