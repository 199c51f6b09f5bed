"""Pulses: thrown from the light that is expected, and read out with noise, charge and flags."""

# N events, C candidates, P pulses

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .light import Ice, Sources
from .readout import READ_AFTER, READ_BEFORE, charges, coincident, noise, sort_order

BOOL = NDArray[np.bool_]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: A bright DOM's pulses overlap: photo-electrons of mean n are read out as pulses of mean
#: n / (1 + n / _MERGE)^(1 - _MERGE_POWER), whose charges add up to n (assumption, fitted to lengths
#: and to pulses per DOM).
_MERGE: Final = 3.0
_MERGE_POWER: Final = 0.55

#: Afterpulses of a photo-electron: 6 % within 0.3 to 11 us [IceCube, NIM A618 (2010) 139], here
#: 0.3 us + Gamma(2, 2 us) cut at 11 us (assumption).
_AFTERPULSES: Final = 0.06
_AFTERPULSE_TIMES: Final = (300.0, 2.0, 2000.0, 11_000.0)

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
    return np.asarray(mean * (1 + mean / np.float32(_MERGE)) ** np.float32(_MERGE_POWER - 1))


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

    start, shape, scale, cut = _AFTERPULSE_TIMES
    origin = np.flatnonzero(rng.random(n) < _AFTERPULSES)
    delay = start + rng.standard_gamma(shape, len(origin)) * scale
    origin, delay = origin[delay < cut], delay[delay < cut]
    is_after = np.arange(n + len(origin)) >= n
    pulses = Pulses(
        event=np.concatenate([event, event[origin]]),
        sensor=np.concatenate([sensor, sensor[origin]]),
        time=np.rint(np.concatenate([time, time[origin] + delay])).astype(np.int64),
        weight=np.concatenate([weight, weight[origin]]),
        noise=np.zeros(len(is_after), dtype=bool),
        afterpulse=is_after,
    )
    return pulses.take(sort_order(pulses.event, pulses.sensor, pulses.time))


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
    pulses = join([signal, added])
    pulses = pulses.take((pulses.time >= low[pulses.event]) & (pulses.time <= high[pulses.event]))
    pulses = pulses.take(sort_order(pulses.event, pulses.sensor, pulses.time))
    # Flags from exactly the pulses that are written, so that they can be checked from a file.
    auxiliary = ~coincident(pulses.event, pulses.sensor, pulses.time)
    launches = np.ones(len(auxiliary), dtype=bool)
    launches[1:] = (np.diff(pulses.event) != 0) | (np.diff(pulses.sensor) != 0)
    charge = charges(launches, pulses.weight, rng)
    order = np.lexsort((pulses.sensor, pulses.time, pulses.event))
    moved = replace(pulses, time=pulses.time + shift[pulses.event])
    return moved.take(order), charge[order], auxiliary[order]
