"""Affordable: the most samples that something can be done with in the time and memory there is.

A pipeline that is to be told why it is slow may be so slow that one step of its whole batch takes
an hour. Batches begin small and double as long as the next one is sure to be short enough, so that
a step of unknown growth is never begun blindly.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from .containment import TimedOutError, time_limit
from .room import left_bytes, peak_bytes

Clock = Callable[[], float]

#: What takes twice the rows takes at most so many times as long: the loops of the case do four.
WORST_GROWTH = 4.0
#: One that takes so many times what it may, and so many seconds, is stopped: on a busy machine a
#: short one takes long.
PATIENCE, PATIENCE_S = 4.0, 30.0
#: Samples to begin with.
FIRST = 16


def most_affordable(
    take: Callable[[int], Any],
    wanted: int,
    *,
    longest_s: float,
    clock: Clock = time.perf_counter,
    weights: Sequence[int] = (),
    growth: float = WORST_GROWTH,
) -> int:
    """The most samples, by doubling, that something is short enough on.

    Args:
        take: Does it with the first so many samples.
        wanted: No more than these.
        longest_s: Seconds that it may take, and no more memory than there is; infinite for any.
        clock: Seconds.
        weights: How much each sample holds, where that is known: a long sample that comes late is
            expected.
        growth: Times as long that it takes at most with twice the samples.

    Raises:
        Exception: What `take` raises where it does with all that it was tried on.
    """
    patience = max(PATIENCE * longest_s, PATIENCE_S) if math.isfinite(longest_s) else None
    size = max(1, min(wanted, FIRST, max(2, wanted // 8)))
    good, again = 0, True
    while True:
        before, start = peak_bytes(), clock()
        try:
            with time_limit(patience):
                take(size)
        except TimedOutError:
            if good:
                return good
            if size == 1:
                raise
            size = wanted = size // 2
            continue
        except Exception as error:
            if good and _no_room(error):
                return good
            if size == wanted:
                raise
            # Few samples may be too few: batch norm wants more than one row.
            size = min(wanted, 2 * size)
            continue
        took, held = clock() - start, peak_bytes() - before
        if again:  # it loads and allocates what later ones find: to be timed once more
            again = False
            if size < wanted:
                continue
        good, following = size, min(wanted, 2 * size)
        worst = _growth(size, following, weights, growth)
        long = math.isfinite(longest_s) and (
            took * worst > longest_s or held * worst > left_bytes()
        )
        if size == wanted or long:
            return size
        size = following


def _growth(size: int, following: int, weights: Sequence[int], worst: float) -> float:
    """How many times as long it takes at most: as the square of all, or padded to the longest."""
    worst = worst ** math.log2(following / size) if following > size else 1.0
    here, there = weights[:size], weights[:following]
    if not sum(here) or len(there) < following:
        return worst
    longest = (max(there) / max(here)) ** 2 * following / size
    return max(worst, (sum(there) / sum(here)) ** 2, longest)


def _no_room(error: Exception) -> bool:
    """Whether memory has run out: torch says so in words alone."""
    words = ("out of memory", "allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
