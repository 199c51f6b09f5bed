"""What is counted of pulses and events, block by block."""

# P pulses, N events

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icediag.model.event import N_SENSORS

from .blocks import PulseBlock
from .charges import Charges
from .histograms import Counted, Moments

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

#: Times that are counted one by one, ns; the competition's are 5,712..84,577.
TIMES: Final = (-50_000, 250_000)
#: Pulses per event and DOMs per event that are, and pulses per DOM.
LENGTHS: Final = (0, 500_000)
DOMS: Final = (0, N_SENSORS)
MULTIPLICITIES: Final = (0, 1024)
#: Bins of an angle over its domain: 0.0015 rad of azimuth wide.
ANGLE_BINS: Final = 4096
#: Events below this many pulses are small ones: three quarters of the competition's.
SMALL: Final = 90
#: And from this many on bright ones.
BRIGHT: Final = 1000

#: Events that are counted at a time.
_WAITING: Final = 2**16

#: What is compared between files, by event: name and the ends of the bins.
COMPARED: Final[dict[str, F64]] = {
    "pulses": np.append(np.geomspace(1, 2e5, 97), np.inf),
    "first pulse (ns)": np.linspace(0, 20_000, 201),
    "last pulse (ns)": np.linspace(0, 60_000, 201),
    "auxiliary share": np.linspace(0, 1, 65),
    "mean charge (p.e.)": np.geomspace(0.02, 200, 129),
    "azimuth": np.linspace(0, 2 * np.pi, 65),
    "zenith": np.linspace(0, np.pi, 65),
}


@dataclass(kw_only=True, eq=False)
class EventColumns:
    """Whole events of a file, N in all.

    Attributes:
        event_id: `(N,)`; -1 where the file says nothing of it.
        start: `(N,)` first row.
        length: `(N,)` rows.
    """

    event_id: I64
    start: I64
    length: I64


@dataclass(frozen=True, kw_only=True, eq=False)
class EventSums:
    """What is known of N whole events and not counted yet.

    Attributes:
        length: `(N,)` pulses.
        first: `(N,)` ns, the earliest.
        last: `(N,)` ns, the latest.
        auxiliary: `(N,)` auxiliary pulses.
        charge: `(N,)` p.e. in all.
    """

    length: I64
    first: npt.NDArray[Any]
    last: npt.NDArray[Any]
    auxiliary: I64
    charge: F64


@dataclass(kw_only=True)
class Tally:
    """Counts over all files.

    Attributes:
        time: By pulse.
        charge: By pulse.
        sensors: Pulses by sensor_id.
        first: First time of each event.
        last: Last time of each event.
        lengths: Pulses per event.
        doms: DOMs per event.
        bright_doms: The same, of events of `BRIGHT` pulses or more.
        multiplicity: Pulses per DOM of an event.
        azimuth: Of events, in bins of a 4,096th of its domain.
        zenith: The same.
        azimuth_moments: Of its values.
        zenith_moments: The same.
        pulses: How many.
        auxiliary: Of them.
        small_pulses: Pulses of small events.
        small_auxiliary: Of them.
    """

    time: Counted = field(default_factory=lambda: Counted(low=TIMES[0], high=TIMES[1]))
    charge: Charges = field(default_factory=Charges)
    sensors: I64 = field(default_factory=lambda: np.zeros(N_SENSORS, np.int64))
    first: Counted = field(default_factory=lambda: Counted(low=TIMES[0], high=TIMES[1]))
    last: Counted = field(default_factory=lambda: Counted(low=TIMES[0], high=TIMES[1]))
    lengths: Counted = field(default_factory=lambda: Counted(low=LENGTHS[0], high=LENGTHS[1]))
    doms: Counted = field(default_factory=lambda: Counted(low=DOMS[0], high=DOMS[1]))
    bright_doms: Counted = field(default_factory=lambda: Counted(low=DOMS[0], high=DOMS[1]))
    multiplicity: Counted = field(
        default_factory=lambda: Counted(low=MULTIPLICITIES[0], high=MULTIPLICITIES[1])
    )
    azimuth: Counted = field(default_factory=lambda: Counted(low=-1, high=ANGLE_BINS + 1))
    zenith: Counted = field(default_factory=lambda: Counted(low=-1, high=ANGLE_BINS + 1))
    azimuth_moments: Moments = field(default_factory=Moments)
    zenith_moments: Moments = field(default_factory=Moments)
    pulses: int = 0
    auxiliary: int = 0
    small_pulses: int = 0
    small_auxiliary: int = 0

    def merge(self, other: "Tally") -> None:
        """Take in what another has counted."""
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(other, part.name)
            if isinstance(mine, Counted | Charges | Moments):
                mine.merge(theirs)
            else:
                setattr(self, part.name, mine + theirs)


@dataclass(kw_only=True)
class FileTally:
    """Counts of one file: what its events are compared by, and what is not as it should be.

    Attributes:
        compared: Quantity -> events in each bin.
        bad: Fault -> (how often, first row, what is there).
        events: Of the file's own column event_id: id, first row and length of each run.
        waiting: Events that are to be counted, many at a time.
        n_waiting: How many.
        whole: Events seen.
        seen: Rows seen.
    """

    compared: dict[str, I64] = field(
        default_factory=lambda: {k: np.zeros(len(e) - 1, np.int64) for k, e in COMPARED.items()}
    )
    bad: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    runs: list[EventColumns] = field(default_factory=list)
    waiting: list[EventSums] = field(default_factory=list)
    n_waiting: int = 0
    whole: int = 0
    seen: int = 0

    def found(self, fault: str, count: int, row: int, example: object) -> None:
        """Note a fault; its first row stays."""
        if count:
            before = self.bad.get(fault, (0, row, str(example)))
            self.bad[fault] = (before[0] + count, *before[1:])

    def compare(self, quantity: str, values: npt.NDArray[Any]) -> None:
        """Take a quantity of events in."""
        inner = COMPARED[quantity][1:-1]
        counts = self.compared[quantity]
        counts += np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(counts))


def take_pulses(tally: Tally, of_file: FileTally, block: PulseBlock) -> None:
    """Count the rows of a block; the order of rows does not matter here."""
    time, charge, sensor = block.time, block.charge, block.sensor_id
    if time.dtype.kind == "f":
        finite = np.isfinite(time)
        if not finite.all():
            at = int(np.argmin(finite))
            bad = int((~finite).sum())
            of_file.found("time-not-finite", bad, block.start + at, time[at])
            time = time[finite]
    tally.time.add(time)
    not_finite, not_positive = tally.charge.add(charge)
    if not_finite:
        at = int(np.argmin(np.isfinite(charge)))
        of_file.found("charge-not-finite", not_finite, block.start + at, charge[at])
    if not_positive:
        at = int(np.argmax(charge <= 0))
        of_file.found("charge-not-positive", not_positive, block.start + at, charge[at])
    if sensor.size and (sensor.min() < 0 or sensor.max() >= N_SENSORS or sensor.dtype.kind == "f"):
        good = (sensor >= 0) & (sensor < N_SENSORS)
        if not good.all():
            at = int(np.argmin(good))
            bad = int((~good).sum())
            of_file.found("sensor-out-of-range", bad, block.start + at, sensor[at])
        sensor = sensor[good]
    tally.sensors += np.bincount(sensor.astype(np.int64, copy=False), minlength=N_SENSORS)
    tally.pulses += len(block)
    tally.auxiliary += int(np.count_nonzero(block.auxiliary))
    of_file.seen += len(block)


def take_events(tally: Tally, of_file: FileTally, block: PulseBlock, events: EventColumns) -> None:
    """Count whole events, whose rows lie one after the other in a block, none of them empty.

    `events.start` counts from the block's first row here.
    """
    if not len(events.length):
        return
    start, length = events.start, events.length
    stop = start + length
    time = block.time
    first, last = time[start], time[stop - 1]
    falls = np.flatnonzero(time[1:] < time[:-1]) + 1
    if len(falls):
        # A fall at the start of an event is no fault of it.
        owner = np.searchsorted(start, falls, side="right") - 1
        inner = (owner >= 0) & (falls < stop[owner]) & (falls != start[owner])
        if inner.any():
            at = int(falls[inner][0])
            unsorted = len(np.unique(owner[inner]))
            example = f"{time[at]} after {time[at - 1]}"
            of_file.found("times-unsorted", unsorted, block.start + at, example)
            first = _reduced(np.minimum.reduceat, time, start, stop)
            last = _reduced(np.maximum.reduceat, time, start, stop)
    if time.dtype.kind == "f":
        first, last = (np.nan_to_num(t, nan=0.0, posinf=0.0, neginf=0.0) for t in (first, last))
    charge = _sums(block.charge, start, stop)
    if not np.isfinite(charge).all():
        charge = _sums(np.nan_to_num(block.charge, posinf=0.0, neginf=0.0), start, stop)
    auxiliary = block.auxiliary
    if auxiliary.dtype != np.bool_:
        auxiliary = auxiliary != 0
    of_file.waiting.append(
        EventSums(
            length=length,
            first=first,
            last=last,
            auxiliary=_sums(auxiliary.view(np.uint8), start, stop, np.int64),
            charge=charge,
        )
    )
    of_file.whole += len(length)
    of_file.n_waiting += len(length)
    if of_file.n_waiting >= _WAITING:
        count_waiting(tally, of_file)


def count_waiting(tally: Tally, of_file: FileTally) -> None:
    """Count the events whose sums are known; to be called once more at the end of a file."""
    if not of_file.waiting:
        return
    length, first, last, auxiliary, charge = (
        np.concatenate([getattr(one, name.name) for one in of_file.waiting])
        for name in fields(EventSums)
    )
    of_file.waiting.clear()
    of_file.n_waiting = 0
    tally.first.add(first)
    tally.last.add(last)
    tally.lengths.add(length)
    small = length < SMALL
    tally.small_pulses += int(length[small].sum())
    tally.small_auxiliary += int(auxiliary[small].sum())
    of_file.compare("pulses", length)
    of_file.compare("first pulse (ns)", first)
    of_file.compare("last pulse (ns)", last)
    of_file.compare("auxiliary share", auxiliary / length)
    of_file.compare("mean charge (p.e.)", charge / length)


def _reduced(reduceat: Callable[..., Any], values: npt.NDArray[Any], start: I64, stop: I64) -> Any:
    """A reduction over stretches of rows, none of them empty, which may have rows between them."""
    cuts = np.stack([start, stop], axis=1).ravel()
    return reduceat(values, cuts[: len(cuts) - (cuts[-1] == len(values))])[::2]


def _sums(values: npt.NDArray[Any], start: I64, stop: I64, dtype: Any = None) -> Any:
    """Sums over stretches of rows."""
    if (start[1:] == stop[:-1]).all():
        return np.add.reduceat(values[: stop[-1]], start, dtype=dtype)
    return _reduced(partial(np.add.reduceat, dtype=dtype), values, start, stop)


def take_doms(tally: Tally, block: PulseBlock, events: EventColumns) -> None:
    """Count DOMs of whole events, and pulses of DOMs; as `take_events`."""
    if not len(events.length):
        return
    start, length = events.start, events.length
    low, high = int(start[0]), int(start[-1] + length[-1])
    sensor = block.sensor_id[low:high]
    if sensor.dtype.kind == "f":
        sensor = np.nan_to_num(sensor)
    if sensor.min() < 0 or sensor.max() >= N_SENSORS:
        sensor = np.clip(sensor, 0, N_SENSORS - 1)
    # Sorted as keys of 32 bits, which is quick, where they hold the events: 2**13 sensors each.
    wide: Any = np.uint32 if len(length) < 1 << 19 else np.uint64
    key = np.repeat(np.arange(len(length), dtype=wide) << wide(13), length)
    if len(key) != len(sensor):  # rows of no event lie between them
        inside = np.zeros(high - low + 1, np.int64)
        np.add.at(inside, start - low, 1)
        np.add.at(inside, start + length - low, -1)
        sensor = sensor[np.cumsum(inside[:-1]) > 0]
    key += sensor.astype(wide)
    key.sort()
    fresh = np.ones(len(key) + 1, np.bool_)  # the end too
    np.not_equal(key[1:], key[:-1], out=fresh[1:-1])
    tally.multiplicity.add(np.diff(np.flatnonzero(fresh)))
    # Sorted, an event has as many rows as before.
    doms = np.add.reduceat(fresh[:-1].view(np.uint8), np.cumsum(length) - length, dtype=np.int64)
    tally.doms.add(doms)
    tally.bright_doms.add(doms[length >= BRIGHT])
