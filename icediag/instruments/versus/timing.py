"""Timing several ways in turn, so that a machine that slows down slows all of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from icediag.versus_record import VersusRow

Clock = Callable[[], float]


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
        run_seconds: A way that one run of is expected to take longer is not run: expected from its
            time at a smaller size, growing with the square of the events, as loops whose backward
            copies everything do.
        clock: Seconds.
        seen: Slowest time of a way so far: (what, name) -> (events, seconds).
    """

    repeats: int
    way_seconds: float = 4.0
    run_seconds: float = 60.0
    clock: Clock = time.perf_counter
    seen: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

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
        ours = taken[ways[0].name]
        return [
            _row(what, n_events, way, taken[way.name], ours, rounds[way.name][1]) for way in ways
        ]

    def _rounds(self, what: str, n_events: int, way: Way) -> tuple[int, str]:
        """How many rounds a way takes part in, and what to say of that; one run warms it up."""
        if way.run is None:
            return 0, way.note
        n = way.n_events or n_events
        before = self.seen.get((what, way.name))
        if before is not None and before[1] * (n / before[0]) ** 2 > self.run_seconds:
            return 0, f"not run: {before[1]:.2g} s at {before[0]:,} events, more than linear"
        try:
            seconds = self._once(way.run)
        except (RuntimeError, NotImplementedError) as error:
            return 0, f"not run: {str(error).splitlines()[0]}"
        if seconds > 0.1:  # faster ones are no risk, and their times at 32 events say little
            self.seen[what, way.name] = n, seconds
        affordable = int(self.way_seconds / max(seconds, 1e-9))
        return max(1, min(self.repeats, affordable)), way.note

    def _once(self, run: Callable[[], object]) -> float:
        start = self.clock()
        run()
        return self.clock() - start


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
