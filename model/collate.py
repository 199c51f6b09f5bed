"""Collate: a list of ragged events into one flat batch. Nothing is padded, dropped or reordered."""

# P pulses, D DOMs, B events, K table entries (events x sensors)

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .event import N_SENSORS, SENSOR_ID, Event
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
    pulse_to_dom_idx: Int64[Tensor, "pulses"]
    num_doms: int
    dom_to_event_idx: Int64[Tensor, "doms"]
    dom_ids: Int64[Tensor, "doms"]
    event_dom_counts: Int64[Tensor, "events"]
    event_ids: Int64[Tensor, "events"]
    batch_size: int
    targets: Float[Tensor, "events 2"]
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


class _Table(threading.local):
    """A table with one entry a (event, sensor) pair, kept from batch to batch by each thread.

    Fresh from the system its pages would cost as much as the rest of collate.
    """

    def __init__(self) -> None:
        self.entries = np.empty(0, np.int32)

    def of(self, n: int) -> npt.NDArray[np.int32]:
        """The first n entries, of any content."""
        if self.entries.size < n:
            self.entries = np.empty(n, np.int32)
        return self.entries[:n]


_table = _Table()


def _sorted(keys: npt.NDArray[np.int64], *, below: int) -> npt.NDArray[np.int64]:
    """Sort keys, in half the bytes where they fit: that is twice as fast."""
    if below < 2**31:
        return np.sort(keys.astype(np.int32)).astype(np.int64)
    return np.sort(keys)


def collate(
    events: Sequence[Event], *, n_sensors: int = N_SENSORS, bucket_ratio: float = BUCKET_RATIO
) -> Batch:
    """Collate events to a batch, without a Python loop over pulses or DOMs.

    (event, sensor) pairs are numbered event * n_sensors + sensor in int64, whatever integer type
    the sensors had; a table with one entry a pair finds the distinct ones, so that only DOMs are
    sorted and not pulses.

    Args:
        events: At least one event; events without pulses are kept.
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
    n_events = len(events)
    pulse_features_P4 = torch.cat([event.pulse_features for event in events])
    lengths_B = np.array([event.pulse_features.shape[0] for event in events])
    sensors = pulse_features_P4[:, SENSOR_ID].detach().numpy()
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, which differs from it
        sensors_P = sensors.astype(np.int32)
    # Read as unsigned, a negative number is a huge one: one pass finds both.
    if sensors_P.size and (
        sensors_P.view(np.uint32).max() >= n_sensors
        or (sensors_P.astype(sensors.dtype) != sensors).any()
    ):
        wrong = (sensors_P < 0) | (sensors_P >= n_sensors) | (sensors_P != sensors)
        pulse = int(np.flatnonzero(wrong)[0])
        event = int(np.searchsorted(np.cumsum(lengths_B), pulse, side="right"))
        raise ValueError(
            f"sensor_id: expected a whole number in 0..{n_sensors - 1}, got {sensors[pulse]} in "
            f"event {events[event].event_id}, pulse {pulse - int(lengths_B[:event].sum())}"
        )

    first_key_B = np.arange(n_events + 1) * n_sensors
    key_P = np.repeat(first_key_B[:-1], lengths_B) + sensors_P
    # Each pair's entry keeps the number of one of its pulses: those pulses, one a DOM, give the
    # distinct pairs. Only entries that were written are ever read, so the table is never cleared.
    table_K = _table.of(n_events * n_sensors)
    pulse_P = np.arange(key_P.size, dtype=np.int32)
    table_K[key_P] = pulse_P
    key_D = _sorted(key_P[table_K[key_P] == pulse_P], below=table_K.size)
    table_K[key_D] = np.arange(key_D.size, dtype=np.int32)
    counts_B = np.diff(np.searchsorted(key_D, first_key_B))
    event_dom_counts = torch.from_numpy(counts_B)

    return Batch(
        pulse_features=pulse_features_P4,
        pulse_to_dom_idx=torch.from_numpy(table_K[key_P].astype(np.int64)),
        num_doms=int(key_D.size),
        dom_to_event_idx=torch.from_numpy(np.repeat(np.arange(n_events), counts_B)),
        dom_ids=torch.from_numpy(key_D - np.repeat(first_key_B[:-1], counts_B)),
        event_dom_counts=event_dom_counts,
        event_ids=torch.from_numpy(np.array([event.event_id for event in events], np.int64)),
        batch_size=n_events,
        targets=torch.cat([event.target for event in events]).view(n_events, 2),
        packing=plan_packing(event_dom_counts, ratio=bucket_ratio),
    )
