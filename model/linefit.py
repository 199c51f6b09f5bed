"""LineFit and its improved form: the straight line through hits, for all events at once.

Sources. [A] IceCube, "Improvement in fast particle track reconstruction with robust statistics",
NIM A736 (2014) 143, arXiv:1308.5501: both fits, the distances and times below.
"""

# H hits, N events

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
BOOL = NDArray[np.bool_]

#: A hit is scattered light if it is this much later than a hit this near [A, section 5.1].
_LATE: Final = 778.0
_NEAR: Final = 156.0
#: Beyond this distance from the line a hit counts linearly, not squared [A, section 5.2].
_HUBER: Final = 153.0
#: Beyond this distance from that fit a hit is noise [A, section 5.3].
_OUTLIER: Final = 116.0
#: Rounds of reweighting; the fit moves by less than a millimetre in the last.
_ROUNDS: Final = 30

#: Pairs of hits looked at in one go, 100 MB.
_PAIRS: Final = 2**21

#: Fewest hits of an event that are kept whatever a filter says: a line needs some.
_FEWEST: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """The first pulse of each DOM, in the order of events.

    Attributes:
        position: `(H, 3)` m.
        time: `(H,)` ns.
        event: `(H,)` 0..N - 1, never falling.
        n_events: N.
    """

    position: F64
    time: F64
    event: I64
    n_events: int

    def take(self, rows: BOOL) -> "Hits":
        """Some of them."""
        return Hits(
            position=self.position[rows],
            time=self.time[rows],
            event=self.event[rows],
            n_events=self.n_events,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """A line an event: at time t it is at `start + velocity * (t - time)`.

    Attributes:
        start: `(N, 3)` m, the mean position of the hits.
        time: `(N,)` ns, their mean time.
        velocity: `(N, 3)` m/ns; 0 where the hits do not tell one.
    """

    start: F64
    time: F64
    velocity: F64

    def origin(self) -> F64:
        """`(N, 3)` unit vectors to where the particle came from; upwards where none is known."""
        speed = np.linalg.norm(self.velocity, axis=1, keepdims=True)
        known = speed > 0
        up = np.array([0.0, 0.0, 1.0])
        return np.where(known, -self.velocity / np.where(known, speed, 1.0), up)


def first_hits(sensor: I64, time: F64, auxiliary: BOOL, lengths: I64, xyz: F64) -> Hits:
    """The first pulse of each DOM of events.

    Pulses that are auxiliary, mostly noise, are left out, but of an event that has fewer than
    `_FEWEST` others all are taken.

    Args:
        sensor: `(P,)` sensor_id.
        time: `(P,)` ns.
        auxiliary: `(P,)`.
        lengths: `(N,)` pulses of each event.
        xyz: `(5160, 3)` m.
    """
    event = np.repeat(np.arange(len(lengths)), lengths)
    good = np.bincount(event, ~auxiliary, minlength=len(lengths)) >= _FEWEST
    use = np.flatnonzero(~auxiliary | ~good[event])
    order = use[np.lexsort((time[use], sensor[use], event[use]))]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (event[order][1:] != event[order][:-1]) | (sensor[order][1:] != sensor[order][:-1])
    rows = order[fresh]
    return Hits(
        position=xyz[sensor[rows]],
        time=time[rows].astype(np.float64),
        event=event[rows],
        n_events=len(lengths),
    )


def line_fit(hits: Hits, weight: F64 | None = None) -> Lines:
    """LineFit: v = (<r t> - <r><t>) / (<t^2> - <t>^2).

    Args:
        hits: The hits.
        weight: `(H,)` of each, at least 0; None for all alike.
    """
    w = np.ones(len(hits.time)) if weight is None else weight

    def total(values: F64) -> F64:
        # Of no hits at all numpy makes whole numbers.
        return np.bincount(hits.event, w * values, minlength=hits.n_events).astype(np.float64)

    n = np.maximum(total(np.ones(len(w))), 1e-12)
    # About the first hit of each event: squares of 10,000 ns would cost digits.
    base = np.full(hits.n_events, np.inf)
    np.minimum.at(base, hits.event, hits.time)
    base[~np.isfinite(base)] = 0.0
    t = hits.time - base[hits.event]
    mean_t = total(t) / n
    t = t - mean_t[hits.event]
    mean_r = np.stack([total(r) for r in hits.position.T], axis=1) / n[:, None]
    r = hits.position - mean_r[hits.event]
    variance = total(t * t)
    covariance = np.stack([total(axis * t) for axis in r.T], axis=1)
    # Below a variance of 1 ns^2 the times do not tell a direction.
    known = variance > n
    velocity = np.where(known[:, None], covariance / np.where(known, variance, 1.0)[:, None], 0.0)
    return Lines(start=mean_r, time=base + mean_t, velocity=velocity)


def residuals(hits: Hits, lines: Lines) -> F64:
    """`(H,)` m between each hit and where the line is at its time."""
    apart = hits.time - lines.time[hits.event]
    at = lines.start[hits.event] + lines.velocity[hits.event] * apart[:, None]
    return np.asarray(np.linalg.norm(hits.position - at, axis=1))


def improved_line_fit(hits: Hits) -> Lines:
    """Improved LineFit: late light out, a Huber fit, what lies far from it out, LineFit.

    Where a filter leaves an event fewer than three hits, it is not applied to it.
    """
    hits = _without(hits, _scattered(hits))
    lines = line_fit(hits)
    for _ in range(_ROUNDS):
        far = residuals(hits, lines)
        lines = line_fit(hits, np.minimum(1.0, _HUBER / np.maximum(far, 1e-9)))
    return line_fit(_without(hits, residuals(hits, lines) > _OUTLIER))


def _without(hits: Hits, drop: BOOL) -> Hits:
    left = np.bincount(hits.event, ~drop, minlength=hits.n_events)
    return hits.take(~drop | (left < _FEWEST)[hits.event])


def _scattered(hits: Hits) -> BOOL:
    """Hits that come much later than a near one."""
    n = np.bincount(hits.event, minlength=hits.n_events)
    begin = np.cumsum(n) - n
    found = np.zeros(len(hits.time), dtype=bool)
    # Each hit against all of its event, some hits at a time.
    partners = n[hits.event]
    upto = np.cumsum(partners)
    start = 0
    while start < len(partners):
        before = upto[start - 1] if start else 0
        stop = max(int(np.searchsorted(upto, before + _PAIRS, side="right")), start + 1)
        count = partners[start:stop]
        one = np.repeat(np.arange(start, stop), count)
        inner = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        other = begin[hits.event[one]] + inner
        late = hits.time[one] - hits.time[other] > _LATE
        one, other = one[late], other[late]
        apart = hits.position[one] - hits.position[other]
        found[one[(apart * apart).sum(axis=1) < _NEAR**2]] = True
        start = stop
    return found
