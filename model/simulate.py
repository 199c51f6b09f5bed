"""Simulated events on the true array: muon tracks and showers, read out as IceCube would.

Every event triggers. What events there are is in `population.py`, their light in `light.py`, the
detector in `readout.py`, pulses in `pulses.py`; here is the order of work.

Calibration: 102,400 events of seed 1 beside the published figures of the competition's data;
`icediag data --against competition` prints the same for any data set.

=============================  ====================  =====================
quantity                       simulated             published
=============================  ====================  =====================
pulses per event, P50 75 90    63, 83, 130           63, 89, 144
pulses per event, P95 99       208, 1,164            221, 1,177
pulses per event, P99.9, max   16,988, 212,950       19,605, 178,250
pulses per event, mean         156                   164
more than 1,000 pulses         1.13 %                1.12 %
DOMs per event, P50            52                    55
DOMs, of over 1,000 pulses     370, 519, 764, 1,291  329, 508, 823, 1,578
(P50 75 90 99)
DOMs of 1, 2-3, 4-10, more     79, 15, 4.5, 2.2 %    78, 16, 4, 2 %
time of a pulse, P25 50 75     10,325 11,348 14,347  10,545 11,760 13,764
time of a pulse, mean, sd      12,761, 3,905         12,909, 4,385
first pulse, P25 50 75         5,939 6,061 6,259     5,973 6,129 6,405
last pulse, P25 50 75          16,686 17,230 18,084  16,214 17,242 18,787
auxiliary, all pulses          0.30                  0.28
auxiliary, small events        0.70                  0.79
charge, least and most         0.025, 2,762          0.025, 2,762
azimuth, mean, sd              3.14, 1.81            3.14, 1.81
zenith, mean, sd               1.530, 0.684          1.534, 0.690
=============================  ====================  =====================

All are within 15 % (P99 and beyond within 30 %); of 20,000 events the tails, and the means that
hang on them, scatter by a quarter. Not as close as the table looks: counted from the trigger near
10,000 ns, the first quarter of all pulses arrives within 325 ns, published 545; and the latest
pulse of all comes at 50,640 ns, published 84,577.
"""

# N events, C candidates, P pulses

import math
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .cache import Columns, kept
from .memory import keep_freed_memory
from .population import KIND_SHARES, KINDS, candidates, tilted_cosine
from .pulses import AFTERPULSE, NOISE, THROWS, Pulses, ice, join, light, read_out
from .readout import event_of, sensor_of, time_of, trigger, with_event
from .table import EventTable, TableDataset

BOOL = NDArray[np.bool_]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: The trigger's first hit falls here, ns, uniformly: reading begins 4,000 ns before it, and the
#: earliest pulse of the competition is at 5,712 ns.
_TRIGGER_AT: Final = (9_712, 10_000)

#: Events that share a stream of random numbers. Always made as a whole, so that event k does not
#: depend on how many are asked for. Changing this changes every event.
_CHUNK: Final = 512

#: Goes before every seed. Of a few tried this one makes the first events of seed 0, with which all
#: else is tried out, as ragged as usual: one in a thousand events has 17,000 pulses and more, and
#: none of these should be among the first 64.
_STREAM: Final = 8

#: Columns of a chunk with a row for each pulse; the others have one for each event.
_BY_PULSE: Final = frozenset(("sensor", "pulse_time", "charge", "auxiliary", "noise", "afterpulse"))

#: Chunks of the embedded events that are kept in the cache, 2 MB each: of the default set of 4,096
#: and as much again.
_KEPT_CHUNKS: Final = 16

#: Candidates tried at a time, at most for one event, and rounds of it before giving up.
_CANDIDATES: Final = 512
_CANDIDATES_EACH: Final = 32
_ROUNDS: Final = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is known of simulated events beyond their direction.

    Attributes:
        kind: `(N,)` int64, index into `KINDS`.
        energy: `(N,)` GeV: of the muon or the shower; of both together in a starting event.
        vertex: `(N, 3)` m: where light begins (a through-going track's lies outside the array).
        vertex_time: `(N,)` ns, when the particle is there, on the clock of the pulses.
        length: `(N,)` m of track from the vertex on, 0 for a cascade.
        noise: `(P,)` True for pulses of noise, False for light of the event and its afterpulses.
        afterpulse: `(P,)` True for afterpulses.
    """

    kind: I64
    energy: F64
    vertex: F64
    vertex_time: F64
    length: F64
    noise: BOOL
    afterpulse: BOOL


def simulate(
    n_events: int, *, seed: int = 0, first_event_id: int = 0, workers: int = 1
) -> EventTable:
    """Simulate events.

    Args:
        n_events: How many, at least 0.
        seed: At least 0. The same seed gives the same bytes (with the same numpy); event k is the
            same however many are asked for.
        first_event_id: Number of the first event, at least 0; the others follow. Only a label.
        workers: Processes that share the work, at least 1; what is made is the same.

    Returns:
        The events; pulses sorted by time within each, times in ns with the trigger near 10,000.

    Raises:
        ValueError: An argument is negative or no integer.
        RuntimeError: An event found no trigger in thousands of tries (never seen).
    """
    made = simulate_with_truth(n_events, seed=seed, first_event_id=first_event_id, workers=workers)
    return made[0]


def simulate_with_truth(
    n_events: int, *, seed: int = 0, first_event_id: int = 0, workers: int = 1
) -> tuple[EventTable, Truth]:
    """As `simulate`, with what else is known of each event and pulse.

    Args:
        n_events: As for `simulate`.
        seed: As for `simulate`.
        first_event_id: As for `simulate`.
        workers: As for `simulate`.

    Returns:
        The events, the same as from `simulate`, and their truth.

    Raises:
        ValueError: As `simulate`.
        RuntimeError: As `simulate`.
    """
    arguments: dict[str, tuple[object, int]] = {
        "n_events": (n_events, 0),
        "seed": (seed, 0),
        "first_event_id": (first_event_id, 0),
        "workers": (workers, 1),
    }
    for name, (value, least) in arguments.items():
        # bool is an int to Python, but not to a user.
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    numbers = range(max(math.ceil(n_events / _CHUNK), 1))
    if workers == 1 or len(numbers) == 1:
        return _table(map(partial(_chunk, seed), numbers), n_events, first_event_id)
    # Spawned, not forked: a fork would inherit the locks of whatever threads torch has started.
    with ProcessPoolExecutor(min(workers, len(numbers)), get_context("spawn")) as pool:
        return _table(pool.map(partial(_chunk, seed), numbers), n_events, first_event_id)


def default_events(n_events: int = 4096, seed: int = 0) -> tuple[EventTable, Truth]:
    """The embedded events and their truth; the first few thousand are kept in the user's cache."""
    numbers = range(max(math.ceil(n_events / _CHUNK), 1))
    chunks = (
        kept(partial(_chunk, seed, k), seed, k) if k < _KEPT_CHUNKS else _chunk(seed, k)
        for k in numbers
    )
    return _table(chunks, n_events, 0)


def default_dataset(n_events: int = 4096, seed: int = 0) -> TableDataset:
    """The embedded data set: simulated events in memory."""
    return TableDataset(default_events(n_events, seed)[0])


def _table(
    chunks: Iterable[Columns], n_events: int, first_event_id: int
) -> tuple[EventTable, Truth]:
    """The first `n_events` events of chunks that follow each other."""
    parts: list[Columns] = []
    missing = n_events
    for chunk in chunks:
        n_pulses = chunk["n_pulses"][: max(missing, 0)]
        rows = slice(0, int(n_pulses.sum()))
        keep = {"event": slice(0, len(n_pulses)), "pulse": rows}
        parts.append(
            {name: c[keep["pulse" if name in _BY_PULSE else "event"]] for name, c in chunk.items()}
        )
        missing -= len(n_pulses)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table = EventTable(
        event_id=np.arange(n_events, dtype=np.int64) + first_event_id,
        first=np.concatenate([[0], np.cumsum(columns["n_pulses"])]).astype(np.int64),
        sensor_id=columns["sensor"],
        time=columns["pulse_time"],
        charge=columns["charge"],
        auxiliary=columns["auxiliary"],
        azimuth=columns["azimuth"],
        zenith=columns["zenith"],
    )
    truth = Truth(
        kind=columns["kind"],
        energy=columns["energy"],
        vertex=columns["vertex"],
        vertex_time=columns["vertex_time"],
        length=columns["length"],
        noise=columns["noise"],
        afterpulse=columns["afterpulse"],
    )
    return table, truth


def _chunk(seed: int, number: int) -> Columns:
    """Make chunk `number`: columns by event, and those of `_BY_PULSE` by pulse."""
    keep_freed_memory()
    rng = np.random.default_rng(np.random.SeedSequence([_STREAM, seed], spawn_key=(number,)))
    azimuth = rng.random(_CHUNK) * (2 * np.pi)
    zenith = np.arccos(tilted_cosine(rng.random(_CHUNK)))
    kind = rng.choice(len(KINDS), _CHUNK, p=KIND_SHARES).astype(np.int64)
    # The truth points to where the neutrino came from; the particle moves the other way.
    towards = np.stack(
        [np.cos(azimuth) * np.sin(zenith), np.sin(azimuth) * np.sin(zenith), np.cos(zenith)],
        axis=1,
    )
    energy = np.zeros(_CHUNK)
    vertex = np.zeros((_CHUNK, 3))
    length = np.zeros(_CHUNK)
    begin = np.zeros(_CHUNK, dtype=np.int64)
    end = np.zeros(_CHUNK, dtype=np.int64)
    signal: list[Pulses] = []
    missing = np.ones(_CHUNK, dtype=bool)
    pending = np.arange(_CHUNK)
    for _ in range(_ROUNDS):
        each = min(max(_CANDIDATES // len(pending), 1), _CANDIDATES_EACH)
        owner = np.repeat(pending, each)
        sources, drawn = candidates(kind[owner], -towards[owner], ice().xyz, rng)
        thrown = light(sources, rng)
        n_thrown = len(owner) * THROWS
        fired, first, last = trigger(thrown.key, n_thrown)
        # Of several throws and candidates of an event that trigger, the first is taken.
        good = np.flatnonzero(fired)
        of = owner[good // THROWS]
        chosen = good[np.flatnonzero(np.diff(of, prepend=-1))]
        row = chosen // THROWS
        done = owner[row]
        target = np.full(n_thrown, -1)
        target[chosen] = done
        mine = thrown.take(target[event_of(thrown.key)] >= 0)
        signal.append(replace(mine, key=with_event(mine.key, target)))
        energy[done], length[done] = drawn[row], sources.length[row]
        vertex[done] = sources.start[row]
        begin[done], end[done] = first[chosen], last[chosen]
        missing[done] = False
        pending = np.flatnonzero(missing)
        if not len(pending):
            break
    else:
        raise RuntimeError(
            f"simulate: {len(pending)} events of chunk {number}, seed {seed}, did not trigger in "
            f"{_ROUNDS} rounds"
        )
    shift = rng.integers(*_TRIGGER_AT, _CHUNK) - begin
    pulses, charge, auxiliary = read_out(join(signal), begin, end, shift, rng)

    return {
        "n_pulses": np.bincount(event_of(pulses.key), minlength=_CHUNK),
        "azimuth": azimuth,
        "zenith": zenith,
        "kind": kind,
        "energy": energy,
        "vertex": vertex,
        "vertex_time": shift.astype(np.float64),
        "length": length,
        "sensor": sensor_of(pulses.key).astype(np.int16),
        "pulse_time": time_of(pulses.key),
        "charge": charge,
        "auxiliary": auxiliary,
        "noise": pulses.origin == NOISE,
        "afterpulse": pulses.origin == AFTERPULSE,
    }
