"""Pulses: thrown from the light that is expected, and read out with noise, charge and flags."""

# N events, C candidates, H DOMs of them that are hit, P pulses

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .light import Ice, Sources
from .reach import reach
from .readout import (
    READ_AFTER,
    READ_BEFORE,
    REARM_TIME,
    charges,
    event_of,
    event_time_order,
    keys,
    launches,
    noise,
    time_of,
)

BOOL = NDArray[np.bool_]
U8 = NDArray[np.uint8]
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

#: What a pulse comes from.
LIGHT, AFTERPULSE, NOISE = np.arange(3, dtype=np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulses:
    """Pulses on their way to a table.

    Attributes:
        key: `(P,)` event, sensor_id and time in one, see `readout.keys`.
        weight: `(P,)` photo-electrons that a pulse stands for, at least 1.
        origin: `(P,)` uint8: `LIGHT`, `AFTERPULSE` of light, or `NOISE`.
    """

    key: I64
    weight: F64
    origin: U8

    def take(self, rows: BOOL | I64) -> "Pulses":
        """The pulses of these rows."""
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
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
    """Pulses of light and their afterpulses by rising key, times from the start of the line.

    Throw t of candidate c is event c * THROWS + t of the result.
    """
    candidate, dom, along, distance = reach().lit(sources)
    line, point = ice().expected(sources, candidate, dom, along, distance)
    mean = line + point
    merged = _merged(mean)
    # Bright candidates trigger anyway: one throw will do.
    brightness = np.bincount(candidate, merged, minlength=len(sources.length))
    throws = np.where(brightness < _SURE_LIGHT, THROWS, 1)
    counts = rng.poisson(merged * throws[candidate])
    # From here on only DOMs that see light, and their pulses, which have several to a DOM.
    hit = np.flatnonzero(counts > 0)
    candidate, dom = candidate[hit], dom[hit]
    mean, line, merged = mean[hit], line[hit], merged[hit]
    of = np.repeat(np.arange(len(hit)), counts[hit])
    n = len(of)
    throw = (rng.random(n) * throws[candidate][of]).astype(np.int64)
    photons = mean.astype(np.float64)
    from_line = rng.random(n) * photons[of] < line[of]
    time = ice().arrival(sources, candidate, dom, of, from_line, rng)
    weight = np.maximum(mean / merged, 1.0).astype(np.float64)

    row, time, weight = _with_afterpulses(time, weight, photons, of, rng)
    # Keys of time 0 on each pulse's DOM, in its event.
    at = keys(throw + (candidate * THROWS)[of], dom[of], 0)
    key = at[row] + np.rint(time).astype(np.int64)
    origin = np.full(len(key), AFTERPULSE)
    origin[:n] = LIGHT
    order = np.argsort(key, kind="stable")
    return Pulses(key=key[order], weight=weight[order], origin=origin[order])


def _after(weight: F64, photons: F64, generation: int) -> tuple[F64, F64]:
    """Mean number of afterpulses of a pulse, and the share of photo-electrons that are pulses.

    Args:
        weight: `(P,)` photo-electrons that each stands for.
        photons: `(P,)` mean number of photo-electrons in the pulse's DOM.
        generation: 1 for afterpulses of light, 2 for theirs, and so on.
    """
    in_dom = photons * _AFTERPULSES**generation
    merged = (1 + in_dom / _MERGE_AFTER) ** (_MERGE_POWER - 1)
    merged /= 1 + in_dom * merged / _MOST_AFTER
    return weight * _AFTERPULSES * merged, merged


def _with_afterpulses(
    time: F64, weight: F64, photons: F64, of: I64, rng: np.random.Generator
) -> tuple[I64, F64, F64]:
    """Pulses of light and their afterpulses, and theirs, until there are none.

    Args:
        time: `(P,)` ns.
        weight: `(H,)` photo-electrons that a pulse of light stands for, by DOM that is hit.
        photons: `(H,)` mean number of photo-electrons in the DOM.
        of: `(P,)` the DOM of each pulse.
        rng: Random numbers.

    Returns:
        Row of the pulse that each comes from in the end, the P given ones first; times; weights.
    """
    start, cut = _AFTERPULSE_RANGE
    shape, scale = _EARLY_TIMES
    row = np.arange(len(time))
    origins, times, weights = [row], [time], [weight[of]]
    mean, merged = (by_dom[of] for by_dom in _after(weight, photons, 1))
    generation = 1
    while len(row):
        parent = np.repeat(np.arange(len(row)), rng.poisson(mean))
        delay = rng.normal(*_LATE_TIMES, len(parent))
        early = np.flatnonzero(rng.random(len(parent)) < _EARLY_SHARE)
        delay[early] = start + rng.standard_gamma(shape, len(early)) * scale
        inside = np.flatnonzero((delay >= start) & (delay < cut))
        parent, delay = parent[inside], delay[inside]
        row, time, weight = row[parent], time[parent] + delay, 1.0 / merged[parent]
        origins.append(row)
        times.append(time)
        weights.append(weight)
        generation += 1
        mean, merged = _after(weight, photons[of[row]], generation)
    return np.concatenate(origins), np.concatenate(times), np.concatenate(weights)


def _precedes(noise: I64, light: I64) -> BOOL:
    """Which keys of noise keep their DOM from being launched by one of light."""
    rising = np.append(np.sort(light, kind="stable"), np.iinfo(np.int64).max)
    return np.asarray(rising[np.searchsorted(rising, noise)] - noise <= REARM_TIME)


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
    noisy = keys(*noise(low, high, rng))
    # Assumption: a DOM that noise keeps busy when light comes is free for it, so that an event that
    # light alone triggers is one that triggers.
    noisy = noisy[~_precedes(noisy, signal.key)]
    n = len(noisy)
    added = Pulses(key=noisy, weight=np.ones(n), origin=np.full(n, NOISE))
    pulses = join([signal, added])
    event, time = event_of(pulses.key), time_of(pulses.key)
    inside = np.flatnonzero((time >= low[event]) & (time <= high[event]))
    pulses = pulses.take(inside[np.argsort(pulses.key[inside], kind="stable")])
    lead, _, digitised = launches(pulses.key)
    is_lead = np.zeros(len(digitised), dtype=bool)
    is_lead[lead] = True
    kept = np.flatnonzero(digitised | is_lead)
    pulses, is_lead, auxiliary = pulses.take(kept), is_lead[kept], ~digitised[kept]
    charge = charges(is_lead, pulses.weight, rng)
    order = event_time_order(pulses.key)
    pulses = pulses.take(order)
    moved = replace(pulses, key=pulses.key + shift[event_of(pulses.key)])
    return moved, charge[order], auxiliary[order]
