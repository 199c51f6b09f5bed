"""Timing several ways in turn, so that a machine that slows down slows all of them."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from icediag.records.versus import VersusRow

Clock = Callable[[], float]

#: How a way grows with the events, as a power of them, before it was seen at two sizes: loops whose
#: backward pass copies everything grow with the square.
UNSEEN_POWER = 2.0
#: Beyond the power fitted to two sizes: a little more work an event at the larger one is no growth.
ROOM = 0.25
#: Ways that take less are no risk, and so small a time says little of how it grows, seconds.
NO_RISK = 0.1


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to do a thing.

    Attributes:
        name: Its name in the table.
        run: Does it once; None where it cannot be done here.
        note: What to say of it, or why it cannot be done.
        n_events: Events that it is done for, where not those of the batch: a slow way may do fewer.
    """

    name: str
    run: Callable[[], object] | None
    note: str = ""
    n_events: int | None = None


@dataclass(kw_only=True)
class Timer:
    """Times ways in rounds, with fewer rounds for slow ones, and none for hopeless ones.

    Attributes:
        repeats: Rounds, at most.
        way_seconds: What the rounds of one way may take together; one round is always run.
        run_seconds: A way that one run of is expected to take longer is not run. What to expect is
            fitted to the way's own times at smaller sizes, see `expected`.
        clock: Seconds.
        seen: Shortest time of a way at each size so far: (what, name) -> [(events, seconds), ...].
    """

    repeats: int
    way_seconds: float = 4.0
    run_seconds: float = 60.0
    clock: Clock = time.perf_counter
    seen: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=dict)

    def table(self, what: str, n_events: int, ways: Sequence[Way]) -> list[VersusRow]:
        """Time the ways on one batch; ours is the first.

        Args:
            what: What they do.
            n_events: Events of the batch.
            ways: At least one, which can be done.
        """
        rounds = {way.name: self._rounds(what, n_events, way) for way in ways}
        taken: dict[str, list[float]] = {way.name: [] for way in ways}
        for number in range(max(n for n, _ in rounds.values())):
            for way in ways:
                if number < rounds[way.name][0] and way.run is not None:
                    taken[way.name].append(self._once(way.run))
                    self._remember(what, n_events, way, taken[way.name][-1])
        ours = taken[ways[0].name]
        return [
            _row(what, n_events, way, taken[way.name], ours, rounds[way.name][1]) for way in ways
        ]

    def _rounds(self, what: str, n_events: int, way: Way) -> tuple[int, str]:
        """How many rounds a way takes part in, and what to say of that; one run warms it up."""
        if way.run is None:
            return 0, way.note
        n = way.n_events or n_events
        before = self.seen.get((what, way.name), [])
        seconds = expected(before, n)
        if seconds > self.run_seconds:
            size, took = before[-1]
            return 0, (
                f"not run: {seconds:,.0f} s expected ({took:.2g} s at {size:,} events), "
                f"{self.run_seconds:.0f} s allowed"
            )
        try:
            seconds = self._once(way.run)
        except (RuntimeError, NotImplementedError) as error:
            return 0, f"not run: {str(error).splitlines()[0]}"
        self._remember(what, n_events, way, seconds)
        affordable = int(self.way_seconds / max(seconds, 1e-9))
        return max(1, min(self.repeats, affordable)), way.note

    def _remember(self, what: str, n_events: int, way: Way, seconds: float) -> None:
        """Keep the shortest: the first run of a way may load a library, others wait for a core."""
        n = way.n_events or n_events
        known = self.seen.setdefault((what, way.name), [])
        if known and known[-1][0] == n:
            known[-1] = n, min(known[-1][1], seconds)
        else:
            known.append((n, seconds))

    def _once(self, run: Callable[[], object]) -> float:
        start = self.clock()
        run()
        return self.clock() - start


def expected(seen: Sequence[tuple[int, float]], n_events: int) -> float:
    """Seconds that one run is expected to take.

    Args:
        seen: Events and seconds at smaller sizes, ascending; may be none.
        n_events: Events of the run.

    Returns:
        0 where nothing speaks against running it. Example: 0.7 s for 128 and 1.4 s for 256 events
        are linear, a power of 1, and 2,048 are expected to take 1.4 * 8^1.25 = 19 s.
    """
    if not seen or seen[-1][1] < NO_RISK:
        return 0.0
    size, seconds = seen[-1]
    power = UNSEEN_POWER
    if len(seen) > 1 and seen[-2][1] > 0:
        before, earlier = seen[-2]
        # Below 1 it is what does not grow, which a larger batch makes less of.
        power = max(1.0, math.log(seconds / earlier) / math.log(size / before)) + ROOM
    return float(seconds * (n_events / size) ** power)


def _row(
    what: str, n_events: int, way: Way, taken: list[float], ours: list[float], note: str
) -> VersusRow:
    n = way.n_events or n_events
    if not taken:
        return VersusRow(what=what, way=way.name, n_events=n, note=note)
    low, middle, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
    # Per event, as a slow way may have done fewer.
    pairs = [
        its * n_events / (mine * n) for its, mine in zip(taken, ours, strict=False) if mine > 0
    ]
    return VersusRow(
        what=what,
        way=way.name,
        n_events=n,
        ms=1e3 * middle,
        low_ms=1e3 * low,
        high_ms=1e3 * high,
        times=statistics.median(pairs) if pairs else None,
        repeats=len(taken),
        note=note,
    )
