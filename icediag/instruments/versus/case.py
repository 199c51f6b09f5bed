"""Collate as the case's report describes it, and as one writes it event by event."""

# P pulses, D DOMs, B events

from collections.abc import Sequence

import torch
from torch import Tensor

from icediag.model.event import N_SENSORS, SENSOR_ID, Event


def collate_like_the_case(events: Sequence[Event]) -> dict[str, Tensor]:
    """One `torch.full` an event, and `unique` over a hash of event and sensor."""
    rows = torch.cat([event.pulse_features for event in events])
    pulse_to_event = torch.cat([torch.full((event.n_pulses,), i) for i, event in enumerate(events)])
    hashes = pulse_to_event * N_SENSORS + rows[:, SENSOR_ID].long()
    unique_hashes, pulse_to_dom = torch.unique(hashes, return_inverse=True)
    dom_to_event = unique_hashes // N_SENSORS
    return {
        "pulse_features": rows,
        "pulse_to_dom_idx": pulse_to_dom,
        "dom_to_event_idx": dom_to_event,
        "dom_ids": unique_hashes % N_SENSORS,
        "event_dom_counts": torch.bincount(dom_to_event, minlength=len(events)),
        "event_ids": torch.tensor([event.event_id for event in events]),
        "targets": torch.stack([event.target for event in events]),
    }


def collate_event_by_event(events: Sequence[Event]) -> dict[str, Tensor]:
    """Each event grouped by itself; the pieces are joined at the end."""
    doms, pulse_to_dom, counts, n_doms = [], [], [], 0
    for event in events:
        ids, inverse = torch.unique(event.pulse_features[:, SENSOR_ID].long(), return_inverse=True)
        doms.append(ids)
        pulse_to_dom.append(inverse + n_doms)
        counts.append(ids.shape[0])
        n_doms += ids.shape[0]
    event_dom_counts = torch.tensor(counts)
    return {
        "pulse_features": torch.cat([event.pulse_features for event in events]),
        "pulse_to_dom_idx": torch.cat(pulse_to_dom),
        "dom_to_event_idx": torch.arange(len(events)).repeat_interleave(event_dom_counts),
        "dom_ids": torch.cat(doms),
        "event_dom_counts": event_dom_counts,
        "event_ids": torch.tensor([event.event_id for event in events]),
        "targets": torch.stack([event.target for event in events]),
    }
