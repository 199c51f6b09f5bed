"""Rates of what has no yardstick beside it. Nothing here passes or fails."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from icediag.model.simulate import simulate

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """How much of something is done in a second of processor time, on one core.

    Attributes:
        part: What is timed.
        unit: What is counted.
        rate: Median of the blocks, by second.
        low: Their lower quartile.
        high: Their upper quartile.
        blocks: Number of blocks.
        size: Units of a block.
    """

    part: str
    unit: str
    rate: float
    low: float
    high: float
    blocks: int
    size: int


def measure_rates(*, blocks: int, seed: int = 0, clock: Clock = time.process_time) -> list[RateRow]:
    """Rates of what has no yardstick: the simulator.

    Args:
        blocks: Blocks of 512 events that are timed, after one that is not, at least 2.
        seed: Of the simulation; each block has a seed of its own.
        clock: Seconds of processor time; passed in for tests.
    """
    size = 512
    simulate(size, seed=seed)
    rates = []
    for block in range(blocks):
        start = clock()
        simulate(size, seed=seed + 1 + block)
        rates.append(size / (clock() - start))
    low, middle, high = statistics.quantiles(rates, n=4)
    return [
        RateRow(
            part="simulating",
            unit="events/s",
            rate=middle,
            low=low,
            high=high,
            blocks=blocks,
            size=size,
        )
    ]
