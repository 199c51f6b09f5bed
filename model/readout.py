"""From photo-electrons to what the detector writes out: noise, coincidence, trigger, charge.

Times in ns, charges in photo-electrons (p.e.). Sources. [E] IceCube, "The IceCube Neutrino
Observatory: Instrumentation and Online Systems", JINST 12 (2017) P03012, sections 3 and 6: local
coincidence, trigger, readout. [F] M. Larson, M.Sc. thesis, University of Alabama (2013): noise.
"""

# P pulses, N events

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .array import DOMS_PER_STRING, N_STRINGS

BOOL = NDArray[np.bool_]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Hard local coincidence: another hit within +-2 DOMs on the same string and +-1 us [E].
COINCIDENCE_SPAN: Final = 2
COINCIDENCE_TIME: Final = 1000

#: SMT-8: hits in hard local coincidence on 8 DOMs within 5 us [E].
TRIGGER_DOMS: Final = 8
TRIGGER_TIME: Final = 5000

#: Readout before the trigger begins and after it ends [E].
READ_BEFORE: Final = 4000
READ_AFTER: Final = 6000

#: A DOM records for 6.4 us before it can be launched again [E].
LAUNCH_TIME: Final = 6400

#: It can be launched again after this, if it records no waveform (assumption).
REARM_TIME: Final = 2450

#: Noise of one DOM: 690 Hz, of it 173 Hz thermal, the rest correlated bursts [F].
_NOISE_RATE: Final = 690e-9
_THERMAL_RATE: Final = 173e-9

#: Mean size of a burst, and its gaps, log-normal around 1.5 us with a spread of a factor e
#: (assumptions, fitted to pulses per DOM and to the first pulse of events; they leave the rate as
#: it is and set only how often a noisy DOM counts twice).
_BURST_SIZE: Final = 1.45
_BURST_GAP: Final = (7.3, 1.0)

#: Charge of one photo-electron (assumption): 70 % Gauss(1, 0.3) and 30 % exponential(0.5); what
#: launches a DOM exceeds 0.25 p.e.
_GAUSS_SHARE: Final = 0.7
_GAUSS: Final = (1.0, 0.3)
_EXPONENTIAL: Final = 0.5
_THRESHOLD: Final = 0.25

#: No pulse has more: the PMT saturates (assumption: where the competition's largest charge lies).
_SATURATION: Final = 2762.49

#: Charges are written on this grid, its first value half a step above 0.
CHARGE_STEP: Final = 0.05

#: Room for one DOM's times in a sort key; times beyond are cut long before.
_STRIDE: Final = 1 << 22


def _slots(event: I64, sensor: I64) -> I64:
    """A number for each DOM of each event; strings lie 64 apart, so that om +-2 never crosses over.

    For sensor_id 59 (the last of string 1) and 60 (the first of string 2): 61 and 66.
    """
    string, om = np.divmod(sensor, DOMS_PER_STRING)
    return (event * N_STRINGS + string) * 64 + om + COINCIDENCE_SPAN


def sort_key(event: I64, sensor: I64, time: I64) -> I64:
    """A number that rises with event, then string, DOM and time (times within +-2 ms)."""
    return _slots(event, sensor) * _STRIDE + time + _STRIDE // 2


def sort_order(event: I64, sensor: I64, time: I64) -> I64:
    """The order by event, then sensor_id, then time (times within +-2 ms)."""
    return np.argsort(sort_key(event, sensor, time), kind="stable")


def coincident(event: I64, sensor: I64, time: I64) -> BOOL:
    """Which pulses have a pulse on a near DOM of their string at about the same time.

    Args:
        event: `(P,)` event numbers from 0.
        sensor: `(P,)` sensor_id.
        time: `(P,)` ns. All three in `sort_order`.

    Returns:
        `(P,)`: True for hard local coincidence.
    """
    key = sort_key(event, sensor, time)
    found = np.zeros(len(key), dtype=bool)
    if not len(key):
        return found
    padded = np.append(key, np.iinfo(np.int64).max // 2)
    for step in range(1, COINCIDENCE_SPAN + 1):
        # Neighbours' times as if they were on this DOM: the first at or after the window's start.
        for way in (step, -step):
            start = key + (way * _STRIDE - COINCIDENCE_TIME)
            at = np.searchsorted(padded, start)
            found |= padded[at] - start <= 2 * COINCIDENCE_TIME
    return found


def launches(event: I64, sensor: I64, time: I64) -> tuple[I64, BOOL, BOOL]:
    """Launches of DOMs, and which pulses they write out.

    A DOM is launched by its first pulse, and again by the first pulse after `REARM_TIME`. A launch
    with a launch of a near DOM within the time of coincidence is digitised for `LAUNCH_TIME`, with
    all pulses in it; any other is written out as a charge stamp, one pulse.

    Args:
        event: `(P,)` event numbers from 0.
        sensor: `(P,)` sensor_id.
        time: `(P,)` ns. All three in `sort_order`.

    Returns:
        Rows of the pulses that launch; `(L,)` whether these are coincident; `(P,)` whether a pulse
        is digitised. Of one DOM with times 0, 10, 2460, 6500, rows 0, 2 and 3 launch; if only row 0
        is coincident, rows 0 to 2 are digitised.
    """
    n = len(time)
    key = sort_key(event, sensor, time)
    starts = np.ones(n, dtype=bool)
    starts[1:] = key[1:] // _STRIDE != key[:-1] // _STRIDE
    # A loop over launches of one DOM, of which there are few, for all DOMs at once.
    at = np.flatnonzero(starts)
    end = np.append(at[1:], n)
    late = np.flatnonzero(time[end - 1] - time[at] > REARM_TIME) if n else at
    at, end = at[late], end[late]
    while len(at):
        at = np.searchsorted(key, key[at] + REARM_TIME, side="right")
        again = at < end
        at, end = at[again], end[again]
        starts[at] = True
    lead = np.flatnonzero(starts)
    hlc = coincident(event[lead], sensor[lead], time[lead])
    # Times since the latest coincident launch of any DOM: the keys of DOMs lie far apart.
    latest = np.full(n, -LAUNCH_TIME - 1)
    latest[lead[hlc]] = key[lead[hlc]]
    digitised = key - np.maximum.accumulate(latest) <= LAUNCH_TIME
    return lead, hlc, digitised


def trigger(event: I64, sensor: I64, time: I64, n_events: int) -> tuple[BOOL, I64, I64]:
    """Find the trigger of each event.

    Args:
        event: `(P,)` 0..n_events - 1.
        sensor: `(P,)` sensor_id.
        time: `(P,)` ns. All three in `sort_order`.
        n_events: N.

    Returns:
        `(N,)` whether the event triggers, and `(N,)` each: the time of the first hit of the first
        trigger window and of the last hit of the last one (0 where there is none).
    """
    fired = np.zeros(n_events, dtype=bool)
    begin = np.zeros(n_events, dtype=np.int64)
    end = np.zeros(n_events, dtype=np.int64)
    # The trigger counts launches, not pulses.
    lead, hlc, _ = launches(event, sensor, time)
    event, sensor, time = (column[lead[hlc]] for column in (event, sensor, time))
    # A window opens on first launches only, so that 8 launches are 8 DOMs; later ones prolong it.
    slot = _slots(event, sensor)
    fresh = np.ones(len(slot), dtype=bool)
    fresh[1:] = slot[1:] != slot[:-1]
    for use, is_end in ((fresh, False), (np.ones_like(fresh), True)):
        order = np.lexsort((time[use], event[use]))
        e, t = event[use][order], time[use][order]
        if len(e) < TRIGGER_DOMS:
            continue
        ahead = TRIGGER_DOMS - 1
        full = (e[ahead:] == e[:-ahead]) & (t[ahead:] - t[:-ahead] <= TRIGGER_TIME)
        at = np.flatnonzero(full)
        if is_end:
            end[e[at]] = t[at + ahead]  # rising order: the last one written is the latest
        else:
            fired[e[at]] = True
            begin[e[at[::-1]]] = t[at[::-1]]
    end[~fired] = 0
    return fired, begin, end


def noise(
    begin: I64, end: I64, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Noise pulses in the readout windows of N events.

    Thermal pulses come alone, bursts several to a DOM. A burst that runs over the window's end is
    continued at its beginning: the rate is then the same all over the window.

    Args:
        begin: `(N,)` ns, first of the window.
        end: `(N,)` ns, last of it.
        rng: Random numbers.

    Returns:
        Event number, sensor_id and time of each noise pulse, in no particular order.
    """
    n_sensors = N_STRINGS * DOMS_PER_STRING
    width = (end - begin).astype(np.float64)
    n_thermal = rng.poisson(width * (n_sensors * _THERMAL_RATE))
    burst_rate = n_sensors * (_NOISE_RATE - _THERMAL_RATE) / _BURST_SIZE
    n_burst = rng.poisson(width * burst_rate)
    events = np.arange(len(begin))
    source = np.concatenate([np.repeat(events, n_thermal), np.repeat(events, n_burst)])
    size = np.ones(len(source), dtype=np.int64)
    size[n_thermal.sum() :] = rng.geometric(1.0 / _BURST_SIZE, n_burst.sum())
    sensor = rng.integers(0, n_sensors, len(source))
    start = rng.random(len(source)) * width[source]

    # Sizes [1, 3, 2] have the leaders [0, 1, 4]; the gaps are summed within each burst.
    leader = np.cumsum(size) - size
    gap = np.exp(rng.normal(*_BURST_GAP, size.sum()))
    gap[leader] = 0.0
    total = np.cumsum(gap)
    event = np.repeat(source, size)
    offset = np.repeat(start - total[leader], size) + total
    time = np.floor(begin[event] + np.mod(offset, width[event])).astype(np.int64)
    return event, np.repeat(sensor, size), time


def charges(launches: BOOL, weight: F64, rng: np.random.Generator) -> F64:
    """Charges of pulses.

    Args:
        launches: `(P,)` True for the first pulse of a DOM, which had to pass the threshold.
        weight: `(P,)` photo-electrons that a pulse stands for, at least 1.
        rng: Random numbers.

    Returns:
        `(P,)` p.e., at least 0.025, at most 2,762.475, on the grid 0.025, 0.075, 0.125, ...
    """
    n = len(weight)
    # Above the threshold an exponential is the same exponential again, moved up; it passes with
    # exp(-0.25 / 0.5) = 0.61, the Gauss with 0.994, so that the shares change.
    passed = _GAUSS_SHARE * 0.9938
    share = passed / (passed + (1 - _GAUSS_SHARE) * np.exp(-_THRESHOLD / _EXPONENTIAL))
    gauss = rng.random(n) < np.where(launches, share, _GAUSS_SHARE)
    tail = rng.exponential(_EXPONENTIAL, n) + np.where(launches, _THRESHOLD, 0.0)
    body = rng.normal(*_GAUSS, n)
    # Assumption: what a cut Gauss loses (1 in 160) is put at its middle.
    body = np.where(body > _THRESHOLD, body, _GAUSS[0])
    one = np.where(gauss, body, tail)
    rest = weight - 1.0
    many = np.maximum(rest * 0.85 + np.sqrt(rest) * 0.45 * rng.normal(size=n), 0.0)
    step = np.floor(np.minimum(one + many, _SATURATION) / CHARGE_STEP)
    # Rounded so that every value is the float64 nearest to its decimal.
    return np.asarray(np.round((step + 0.5) * CHARGE_STEP, 3))
