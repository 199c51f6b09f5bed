"""Grouping: which DOM each pulse belongs to, for the pulses of many events at once."""

# P pulses, D DOMs, B events, K table entries (events x sensors)

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .event import N_SENSORS

Int64s = npt.NDArray[np.int64]
Int16s = npt.NDArray[np.int16]

#: Events grouped at a time: their table, 5 MB for IceCube, stays in the cache of a core, where that
#: of 2,048 events does not and makes every pulse wait for memory.
EVENTS_AT_A_TIME = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """DOMs of some events, ordered by event and then by sensor_id.

    Attributes:
        dom_of_pulse: `(P,)` int64, row of `dom_ids` that each pulse belongs to.
        dom_ids: `(D,)` int64, sensor_id of each DOM.
        counts: `(B,)` int64, DOMs of each event.
    """

    dom_of_pulse: Int64s
    dom_ids: Int64s
    counts: Int64s


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


class WrongSensorError(ValueError):
    """A sensor_id that is not a whole number in range.

    Attributes:
        pulse: Row of the first such pulse.
    """

    def __init__(self, pulse: int) -> None:
        super().__init__(f"pulse {pulse}")
        self.pulse = pulse


def whole_sensors(sensors: npt.NDArray[np.generic], n_sensors: int) -> npt.NDArray[np.int32]:
    """Sensors as int32.

    Args:
        sensors: `(P,)` of any type.
        n_sensors: Number of sensors of the detector.

    Raises:
        WrongSensorError: One is not a whole number in 0..n_sensors-1.
    """
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, which differs from it
        whole = sensors.astype(np.int32)
    # Read as unsigned, a negative number is a huge one: one pass finds both.
    if whole.size and (
        whole.view(np.uint32).max() >= n_sensors or (whole.astype(sensors.dtype) != sensors).any()
    ):
        wrong = (whole < 0) | (whole >= n_sensors) | (whole != sensors)
        raise WrongSensorError(int(np.flatnonzero(wrong)[0]))
    return whole


def group_doms(
    sensors: npt.NDArray[np.int32], lengths: Int64s, *, n_sensors: int = N_SENSORS
) -> Grouping:
    """Find the DOMs of some events, without a loop over pulses, DOMs or events.

    (event, sensor) pairs are numbered event * n_sensors + sensor. Sorted, equal ones are
    neighbours; a table with one entry a pair takes each pulse to its DOM.

    Args:
        sensors: `(P,)` sensor of each pulse, 0..n_sensors-1, event by event.
        lengths: `(B,)` pulses of each event.
        n_sensors: Number of sensors of the detector.
    """
    ends = np.cumsum(lengths)
    parts = []
    for start in range(0, max(len(lengths), 1), EVENTS_AT_A_TIME):
        some = lengths[start : start + EVENTS_AT_A_TIME]
        stop = int(ends[start + some.size - 1]) if some.size else 0
        parts.append(_group(sensors[stop - int(some.sum()) : stop], some, n_sensors))
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(part.dom_ids.size for part in parts[:-1])])
    return Grouping(
        dom_of_pulse=np.concatenate(
            [part.dom_of_pulse + n for part, n in zip(parts, before.tolist(), strict=True)]
        ),
        dom_ids=np.concatenate([part.dom_ids for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
    )


def _group(sensors_P: npt.NDArray[np.int32], lengths_B: Int64s, n_sensors: int) -> Grouping:
    """The same for as many events as the table is made for."""
    first_key_B = np.arange(lengths_B.size + 1) * n_sensors
    key_P = np.repeat(first_key_B[:-1], lengths_B)
    key_P += sensors_P
    n_keys = int(first_key_B[-1])
    # In half the bytes, where they fit, sorting is twice as fast.
    sorted_P = key_P.astype(np.int32) if n_keys < 2**31 else key_P.copy()
    sorted_P.sort()
    first_P = np.ones(sorted_P.size, bool)
    np.not_equal(sorted_P[1:], sorted_P[:-1], out=first_P[1:])
    key_D = sorted_P[first_P].astype(np.int64)
    # Only entries that were written are read, so the table is never cleared.
    table_K = _table.of(n_keys)
    table_K[key_D] = np.arange(key_D.size, dtype=np.int32)
    counts_B = np.diff(np.searchsorted(key_D, first_key_B))
    return Grouping(
        dom_of_pulse=table_K.take(key_P).astype(np.int64),
        dom_ids=key_D - np.repeat(first_key_B[:-1], counts_B),
        counts=counts_B,
    )


def dom_ranks(sensors: npt.NDArray[np.integer], lengths: Int64s) -> Int16s:
    """Number of each pulse's DOM among those of its event, by sensor_id: 0, 1, ...

    A property of the event, whatever batch it goes to: where it is kept beside the pulses, a batch
    is grouped by adding up (`grouped_by_rank`).

    Args:
        sensors: `(P,)` sensor of each pulse, 0..32,767, event by event.
        lengths: `(B,)` pulses of each event.

    Returns:
        `(P,)` int16. Example: sensors [7, 3, 7, 9] in events of 3 and 1 pulses: [1, 0, 1, 0].
    """
    parts: Sequence[Int16s] = [np.empty(0, np.int16)]
    stop, blocks = 0, []
    for first in range(0, len(lengths), EVENTS_AT_A_TIME):
        some = lengths[first : first + EVENTS_AT_A_TIME]
        start, stop = stop, stop + int(some.sum())
        found = _group(sensors[start:stop].astype(np.int32), some, N_SENSORS)
        first_dom = np.cumsum(found.counts) - found.counts
        blocks.append((found.dom_of_pulse - np.repeat(first_dom, some)).astype(np.int16))
    return np.concatenate([*parts, *blocks])


def grouped_by_rank(sensors: npt.NDArray[np.number], lengths: Int64s, ranks: Int16s) -> Grouping:
    """What `group_doms` gives, from ranks that are known.

    Args:
        sensors: `(P,)` sensor of each pulse, whole numbers of any type, event by event.
        lengths: `(B,)` pulses of each event.
        ranks: `(P,)` from `dom_ranks`.
    """
    counts = np.zeros(lengths.size, np.int64)
    filled = np.flatnonzero(lengths)
    if filled.size:
        # Ranks have no gaps, so the highest of an event says how many DOMs it has.
        starts = (np.cumsum(lengths) - lengths)[filled]
        counts[filled] = np.maximum.reduceat(ranks, starts)
        counts[filled] += 1
    dom_of_pulse = np.repeat(np.cumsum(counts) - counts, lengths)
    dom_of_pulse += ranks
    dom_ids = np.empty(int(counts.sum()), np.int64)
    dom_ids[dom_of_pulse] = sensors
    return Grouping(dom_of_pulse=dom_of_pulse, dom_ids=dom_ids, counts=counts)
