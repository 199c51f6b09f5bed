"""Pulses: thrown from the light that is expected, and read out with noise, charge and flags."""

# N events, C candidates, P pulses

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .light import Ice, Sources
from .readout import (
    READ_AFTER,
    READ_BEFORE,
    REARM_TIME,
    charges,
    launches,
    noise,
    sort_key,
    sort_order,
)

BOOL = NDArray[np.bool_]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: A bright DOM's pulses overlap: photo-electrons of mean n are read out as pulses of mean
#: m = n / (1 + n / _MERGE)^(1 - _MERGE_POWER), and as no more than `_MOST_PULSES`, by
#: m / (1 + m / _MOST_PULSES); their charges add up to n (assumption, fitted to lengths and to
#: pulses per DOM).
_MERGE: Final = 3.0
_MERGE_POWER: Final = 0.63
_MOST_PULSES: Final = 300.0

#: Afterpulses: 6 % of the photo-electrons within 0.3 to 11 us [IceCube, NIM A618 (2010) 139], most
#: near 8 us (assumption, fitted to the times of pulses): Gauss(8 us, 1.5 us), the rest 0.3 us +
#: Gamma(2, 0.85 us). Afterpulses have afterpulses: in a DOM of ten thousand photo-electrons they go
#: on for several times 11 us, which keeps the trigger going. As they are spread over microseconds,
#: they overlap later than light does, by the same formula.
_AFTERPULSES: Final = 0.06
_AFTERPULSE_RANGE: Final = (300.0, 11_000.0)
_EARLY_SHARE: Final = 0.1
_EARLY_TIMES: Final = (2.0, 850.0)
_LATE_TIMES: Final = (8000.0, 1500.0)
_MERGE_AFTER: Final = 120.0
_MOST_AFTER: Final = 5000.0

#: Times that the light of one candidate is thrown, which costs little beside working out its means,
#: and the mean number of pulses above which once is enough.
THROWS: Final = 5
_SURE_LIGHT: Final = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulses:
    """Pulses on their way to a table.

    Attributes:
        event: `(P,)` row number of whatever they belong to.
        sensor: `(P,)` sensor_id.
        time: `(P,)` ns, rounded.
        weight: `(P,)` photo-electrons that a pulse stands for, at least 1.
        noise: `(P,)` True for noise.
        afterpulse: `(P,)` True for afterpulses of light.
    """

    event: I64
    sensor: I64
    time: I64
    weight: F64
    noise: BOOL
    afterpulse: BOOL

    def take(self, rows: BOOL | I64) -> "Pulses":
        """The pulses of these rows."""
        return Pulses(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def join(parts: list[Pulses]) -> Pulses:
    """All pulses of all parts, one part after the other."""
    return Pulses(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Pulses)}
    )


@cache
def ice() -> Ice:
    """The array in its ice, made once."""
    return Ice()


def _merged(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean number of pulses that a mean number of photo-electrons is read out as."""
    merged = mean * (1 + mean / np.float32(_MERGE)) ** np.float32(_MERGE_POWER - 1)
    return np.asarray(merged / (1 + merged / np.float32(_MOST_PULSES)))


def light(sources: Sources, rng: np.random.Generator) -> Pulses:
    """Pulses of light and their afterpulses, in `sort_order`, times from the start of the line.

    Throw t of candidate c is event c * THROWS + t of the result.
    """
    candidate, dom, line, point = ice().expected(sources)
    both = line + point
    merged = _merged(both)
    # Bright candidates trigger anyway: one throw will do.
    brightness = np.bincount(candidate, merged, minlength=len(sources.length))
    throws = np.where(brightness < _SURE_LIGHT, THROWS, 1)
    counts = rng.poisson(merged * throws[candidate])
    cell = np.repeat(np.arange(len(counts)), counts)
    n = len(cell)
    row, sensor, mean = candidate[cell], dom[cell], both[cell]
    event = row * THROWS + (rng.random(n) * throws[row]).astype(np.int64)
    from_line = rng.random(n) * mean < line[cell]
    time = ice().arrival(sources, row, sensor, from_line, rng)
    weight = np.maximum(mean / merged[cell], 1.0).astype(np.float64)

    origin, time, weight = _with_afterpulses(time, weight, mean.astype(np.float64), rng)
    pulses = Pulses(
        event=event[origin],
        sensor=sensor[origin],
        time=np.rint(time).astype(np.int64),
        weight=weight,
        noise=np.zeros(len(time), dtype=bool),
        afterpulse=np.arange(len(time)) >= n,
    )
    return pulses.take(sort_order(pulses.event, pulses.sensor, pulses.time))


def _with_afterpulses(
    time: F64, weight: F64, photons: F64, rng: np.random.Generator
) -> tuple[I64, F64, F64]:
    """Pulses of light and their afterpulses, and theirs, until there are none.

    Args:
        time: `(P,)` ns.
        weight: `(P,)` photo-electrons that each stands for.
        photons: `(P,)` mean number of photo-electrons in the pulse's DOM.
        rng: Random numbers.

    Returns:
        Row of the pulse that each comes from in the end, the P given ones first; times; weights.
    """
    start, cut = _AFTERPULSE_RANGE
    shape, scale = _EARLY_TIMES
    origin = np.arange(len(time))
    row = origin
    origins, times, weights = [origin], [time], [weight]
    generation = 0
    while len(row):
        generation += 1
        in_dom = photons[row] * _AFTERPULSES**generation
        merged = (1 + in_dom / _MERGE_AFTER) ** (_MERGE_POWER - 1)
        merged /= 1 + in_dom * merged / _MOST_AFTER
        count = rng.poisson(weight * _AFTERPULSES * merged)
        parent = np.repeat(np.arange(len(row)), count)
        delay = rng.normal(*_LATE_TIMES, len(parent))
        early = np.flatnonzero(rng.random(len(parent)) < _EARLY_SHARE)
        delay[early] = start + rng.standard_gamma(shape, len(early)) * scale
        inside = (delay >= start) & (delay < cut)
        parent, delay = parent[inside], delay[inside]
        row, time, weight = row[parent], time[parent] + delay, 1.0 / merged[parent]
        origins.append(row)
        times.append(time)
        weights.append(weight)
    return np.concatenate(origins), np.concatenate(times), np.concatenate(weights)


def _precedes(noise: Pulses, light: Pulses) -> BOOL:
    """Which pulses of noise keep their DOM from being launched by a pulse of light."""
    key = np.append(
        np.sort(sort_key(light.event, light.sensor, light.time)), np.iinfo(np.int64).max
    )
    mine = sort_key(noise.event, noise.sensor, noise.time)
    return np.asarray(key[np.searchsorted(key, mine)] - mine <= REARM_TIME)


def read_out(
    signal: Pulses, begin: I64, end: I64, shift: I64, rng: np.random.Generator
) -> tuple[Pulses, F64, BOOL]:
    """Add noise, cut to the readout, charge and flag; sorted by event and time.

    Args:
        signal: Pulses of light with event 0..N - 1.
        begin: `(N,)` first hit of the trigger, ns.
        end: `(N,)` its last hit.
        shift: `(N,)` ns to add to all times of an event.
        rng: Random numbers.

    Returns:
        The pulses, their charges (p.e.) and `auxiliary`.
    """
    low, high = begin - READ_BEFORE, end + READ_AFTER
    event, sensor, time = noise(low, high, rng)
    n = len(event)
    added = Pulses(
        event=event,
        sensor=sensor,
        time=time,
        weight=np.ones(n),
        noise=np.ones(n, dtype=bool),
        afterpulse=np.zeros(n, dtype=bool),
    )
    # Assumption: a DOM that noise keeps busy when light comes is free for it, so that an event that
    # light alone triggers is one that triggers.
    added = added.take(~_precedes(added, signal))
    pulses = join([signal, added])
    pulses = pulses.take((pulses.time >= low[pulses.event]) & (pulses.time <= high[pulses.event]))
    pulses = pulses.take(sort_order(pulses.event, pulses.sensor, pulses.time))
    lead, _, digitised = launches(pulses.event, pulses.sensor, pulses.time)
    is_lead = np.zeros(len(digitised), dtype=bool)
    is_lead[lead] = True
    kept = digitised | is_lead
    pulses, is_lead, auxiliary = pulses.take(kept), is_lead[kept], ~digitised[kept]
    charge = charges(is_lead, pulses.weight, rng)
    order = np.lexsort((pulses.sensor, pulses.time, pulses.event))
    moved = replace(pulses, time=pulses.time + shift[pulses.event])
    return moved.take(order), charge[order], auxiliary[order]
