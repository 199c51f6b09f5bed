"""From photo-electrons to what the detector writes out: noise, coincidence, trigger, charge.

Times in ns, charges in photo-electrons (p.e.). Sources. [E] IceCube, "The IceCube Neutrino
Observatory: Instrumentation and Online Systems", JINST 12 (2017) P03012, sections 3 and 6: local
coincidence, trigger, readout. [F] M. Larson, M.Sc. thesis, University of Alabama (2013): noise.
"""

# P pulses, N events

import math
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

#: Charges by their step, each the float64 nearest to its decimal.
_GRID: Final = np.round((np.arange(math.ceil(_SATURATION / CHARGE_STEP)) + 0.5) * CHARGE_STEP, 3)

#: Pulses are carried as one number each, which rises with event, then sensor_id, then time: bits
#: for the time, with 0 ns in their middle (times beyond +-2 ms are cut long before), and for the
#: DOM, whose strings lie 64 apart, so that om +-2 never crosses over.
_TIME_BITS: Final = 22
_DOM_BITS: Final = 13
_STRING_BITS: Final = 6
_MIDDLE: Final = 1 << (_TIME_BITS - 1)
_TIME_MASK: Final = (1 << _TIME_BITS) - 1
_DOM_MASK: Final = (1 << _DOM_BITS) - 1
#: Keys of DOMs whose hits may be in coincidence differ by less than this.
_NEAR: Final = (COINCIDENCE_SPAN << _TIME_BITS) + COINCIDENCE_TIME + 1
_EVENT_SHIFT: Final = _DOM_BITS + _TIME_BITS
_IN_EVENT: Final = (1 << _EVENT_SHIFT) - 1


def _slots() -> I64:
    """A DOM's number in the key by sensor_id: of the last of string 1 61, of the next one 66."""
    string, om = np.divmod(np.arange(N_STRINGS * DOMS_PER_STRING), DOMS_PER_STRING)
    return np.asarray((string << _STRING_BITS) + om + COINCIDENCE_SPAN, dtype=np.int64)


#: What an event and its DOMs add to a key, by sensor_id.
_SLOT_KEYS: Final[I64] = (_slots() << _TIME_BITS) + _MIDDLE


def keys(event: I64, sensor: I64, time: I64 | int) -> I64:
    """The keys of pulses.

    Args:
        event: `(P,)` event numbers from 0.
        sensor: `(P,)` sensor_id.
        time: `(P,)` ns, within +-2 ms, or one for all.
    """
    of_slots: I64 = (event << _EVENT_SHIFT) + _SLOT_KEYS[sensor] + time
    return of_slots


def event_of(key: I64) -> I64:
    """Event numbers of keys."""
    return key >> _EVENT_SHIFT


def with_event(key: I64, event: I64) -> I64:
    """Keys of the same pulses of other events: `event` is the new number by the old one."""
    return (key & _IN_EVENT) + (event << _EVENT_SHIFT)[event_of(key)]


def sensor_of(key: I64) -> I64:
    """The sensor_id of keys."""
    slot = (key >> _TIME_BITS) & _DOM_MASK
    slot -= COINCIDENCE_SPAN + (64 - DOMS_PER_STRING) * (slot >> _STRING_BITS)
    return slot


def time_of(key: I64) -> I64:
    """Times of keys, ns."""
    return (key & _TIME_MASK) - _MIDDLE


def event_time_order(key: I64) -> I64:
    """The order by event, then time, then sensor_id; of equal keys the first comes first."""
    dom = (key >> _TIME_BITS) & _DOM_MASK
    turned = ((key >> _EVENT_SHIFT) << _TIME_BITS) + (key & _TIME_MASK)
    return np.argsort((turned << _DOM_BITS) + dom, kind="stable")


def coincident(key: I64) -> BOOL:
    """Which pulses have a pulse on a near DOM of their string at about the same time.

    Args:
        key: `(P,)` keys, rising.

    Returns:
        `(P,)`: True for hard local coincidence.
    """
    found = np.zeros(len(key), dtype=bool)
    # Each pulse with the one that follows it, with the one after, and so on, as long as that is on
    # its own DOM or a near one: as a DOM's launches are some microseconds apart, this is soon over.
    ahead = 1
    gap = key[ahead:] - key[:-ahead]
    at = np.flatnonzero(gap < _NEAR)
    gap = gap[at]
    while len(at):
        gap += COINCIDENCE_TIME
        pair = at[(gap & _TIME_MASK <= 2 * COINCIDENCE_TIME) & (gap >> _TIME_BITS > 0)]
        found[pair] = True
        found[pair + ahead] = True
        ahead += 1
        at = at[: np.searchsorted(at, len(key) - ahead)]
        gap = key[at + ahead] - key[at]
        near = gap < _NEAR
        at, gap = at[near], gap[near]
    return found


def launches(key: I64) -> tuple[I64, BOOL, BOOL]:
    """Launches of DOMs, and which pulses they write out.

    A DOM is launched by its first pulse, and again by the first pulse after `REARM_TIME`. A launch
    with a launch of a near DOM within the time of coincidence is digitised for `LAUNCH_TIME`, with
    all pulses in it; any other is written out as a charge stamp, one pulse.

    Args:
        key: `(P,)` keys of pulses, rising.

    Returns:
        Rows of the pulses that launch; `(L,)` whether these are coincident; `(P,)` whether a pulse
        is digitised. Of one DOM with times 0, 10, 2460, 6500, rows 0, 2 and 3 launch; if only row 0
        is coincident, rows 0 to 2 are digitised.
    """
    n = len(key)
    dom = key >> _TIME_BITS
    starts = np.ones(n, dtype=bool)
    np.not_equal(dom[1:], dom[:-1], out=starts[1:])
    # A loop over launches of one DOM, of which there are few, for all DOMs at once.
    at = np.flatnonzero(starts)
    end = np.append(at[1:], n)
    late = np.flatnonzero(key[end - 1] - key[at] > REARM_TIME) if n else at
    at, end = at[late], end[late]
    while len(at):
        at = np.searchsorted(key, key[at] + REARM_TIME, side="right")
        again = at < end
        at, end = at[again], end[again]
        starts[at] = True
    lead = np.flatnonzero(starts)
    hlc = coincident(key[lead])
    # Times since the latest coincident launch of any DOM: the keys of DOMs lie far apart.
    latest = np.full(n, -LAUNCH_TIME - 1)
    of_hlc = lead[hlc]
    latest[of_hlc] = key[of_hlc]
    np.maximum.accumulate(latest, out=latest)
    return lead, hlc, np.subtract(key, latest, out=latest) <= LAUNCH_TIME


def trigger(key: I64, n_events: int) -> tuple[BOOL, I64, I64]:
    """Find the trigger of each event.

    Args:
        key: `(P,)` keys of pulses of events 0..n_events - 1, rising.
        n_events: N.

    Returns:
        `(N,)` whether the event triggers, and `(N,)` each: the time of the first hit of the first
        trigger window and of the last hit of the last one (0 where there is none).
    """
    fired = np.zeros(n_events, dtype=bool)
    begin = np.zeros(n_events, dtype=np.int64)
    end = np.zeros(n_events, dtype=np.int64)
    # The trigger counts launches, not pulses.
    lead, hlc, _ = launches(key)
    key = key[lead[hlc]]
    # A window opens on first launches only, so that 8 launches are 8 DOMs; later ones prolong it.
    fresh = np.ones(len(key), dtype=bool)
    fresh[1:] = key[1:] >> _TIME_BITS != key[:-1] >> _TIME_BITS
    # By event and time, with room for no window to reach over from one event to the next.
    when = (event_of(key) << _TIME_BITS) + (key & _TIME_MASK)
    when = np.sort((when << 1) + fresh)
    ahead = TRIGGER_DOMS - 1
    for is_end, w in ((False, when[when & 1 == 1] >> 1), (True, when >> 1)):
        at = np.flatnonzero(w[ahead:] - w[:-ahead] <= TRIGGER_TIME)
        if is_end:
            # Rising order: the last one written is the latest.
            end[w[at] >> _TIME_BITS] = (w[at + ahead] & _TIME_MASK) - _MIDDLE
        else:
            at = at[::-1]
            event = w[at] >> _TIME_BITS
            fired[event] = True
            begin[event] = (w[at] & _TIME_MASK) - _MIDDLE
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
    charge: F64 = _GRID[step.astype(np.int64)]
    return charge
