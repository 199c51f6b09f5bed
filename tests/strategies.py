"""What property tests draw: lengths. The events follow from them and a seed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from icediag.model.collate import Batch
from icediag.model.event import N_SENSORS, Event
from icediag.model.relative import TIME_LOG_SCALE, TIME_UNIT_NS

SEEDS = st.integers(0, 2**32 - 1)


def _with(values: list[int], extra: int, at: int) -> list[int]:
    at %= len(values) + 1
    return [*values[:at], extra, *values[at:]]


def lengths(
    *, longest: int = 9, giant: int = 150, max_events: int = 6
) -> st.SearchStrategy[list[int]]:
    """Lengths of events: any, 0 among them; all equal; one giant among the others; all 0; one."""
    place = st.integers(0, max_events)
    ordinary = st.lists(
        st.one_of(st.sampled_from([0, 1]), st.integers(0, longest)), max_size=max_events
    )
    with_zero = st.builds(_with, ordinary, st.just(0), place)
    equal = st.builds(lambda n, k: [n] * k, st.integers(0, longest), st.integers(1, max_events))
    with_giant = st.builds(_with, with_zero, st.integers(giant // 2, giant), place)
    return st.one_of(with_zero, equal, with_giant)


def make_events(lengths: Sequence[int], seed: int, *, pool: int = 4) -> list[Event]:
    """Events of these lengths; their pulses lie on `pool` sensors, the highest among them.

    Times and charges tie often, and some charges are 0.
    """
    rng = np.random.default_rng(seed)
    sensors = np.append(rng.choice(N_SENSORS - 1, pool - 1, replace=False), N_SENSORS - 1)
    events = []
    for i, n in enumerate(lengths):
        features = np.stack(
            [
                9_990 + rng.integers(0, 8, n) * rng.choice([1, 5, 700], n),
                0.25 * rng.integers(0, 12, n),
                rng.choice(sensors, n),
                rng.integers(0, 2, n),
            ],
            axis=1,
        )
        target = rng.uniform(0, 1, 2) * [2 * np.pi, np.pi]
        events.append(
            Event(
                pulse_features=torch.from_numpy(features.astype(np.float32)),
                event_id=2**40 + 17 * i,
                target=torch.from_numpy(target.astype(np.float32)),
            )
        )
    return events


def changed(event: Event, **values: Tensor) -> Event:
    """The event with another `pulse_features` or `target`."""
    return Event(
        pulse_features=values.get("pulse_features", event.pulse_features),
        event_id=event.event_id,
        target=values.get("target", event.target),
    )


def rows_of(batch: Batch, event: int) -> tuple[slice, slice]:
    """Which pulses and which DOMs of the batch are an event's, told from its indices alone."""
    doms = [d for d, e in enumerate(batch.dom_to_event_idx.tolist()) if e == event]
    known = set(doms)
    pulses = [p for p, d in enumerate(batch.pulse_to_dom_idx.tolist()) if d in known]
    return _span(pulses), _span(doms)


def _span(rows: list[int]) -> slice:
    if not rows:
        return slice(0, 0)
    assert rows == list(range(rows[0], rows[-1] + 1))
    return slice(rows[0], rows[-1] + 1)


def members(index: Tensor, n_groups: int) -> list[list[int]]:
    """Rows of each group, by a plain loop."""
    groups: list[list[int]] = [[] for _ in range(n_groups)]
    for row, group in enumerate(index.tolist()):
        groups[group].append(row)
    return groups


def relative_twin(times: Tensor, charges: Tensor, dom: Tensor, n: int) -> Tensor:
    """What `RelativeEncoder` gives, pulse by pulse in plain floats."""

    def compress(dt: float) -> float:
        return math.copysign(math.log1p(abs(dt) / TIME_UNIT_NS) / TIME_LOG_SCALE, dt)

    out = torch.zeros(len(times), 6, dtype=torch.float64)
    for rows in members(dom, n):
        t, q = [times[r].item() for r in rows], [charges[r].item() for r in rows]
        for r in rows:
            own, charge = times[r].item(), charges[r].item()
            mean = sum(t) / len(t)
            out[r] = torch.tensor(
                [
                    compress(own - min(t)),
                    compress(own - mean),
                    compress(math.sqrt(sum((x - mean) ** 2 for x in t) / len(t))),
                    charge / sum(q) if sum(q) else 0,
                    charge / max(q) if max(q) else 0,
                    sum(x < own for x in t) / len(t),
                ],
                dtype=torch.float64,
            )
    return out


def close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within `tolerance` of the larger of 1 and the expected value; shapes and dtypes alike."""
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
