"""Rates of the bench: what they are made of, and their table."""

import itertools

from icediag.instruments.bench.rates import measure_rates
from icediag.reports.bench import render_rates


def test_rates_come_from_the_clock() -> None:
    # Of two readings a block each, a block takes 1, 2, 4 s.
    times = iter(itertools.accumulate([0.0, 1.0, 5.0, 2.0, 5.0, 4.0]))
    [row] = measure_rates(blocks=3, clock=lambda: next(times))
    assert (row.part, row.unit, row.blocks, row.size) == ("simulating", "events/s", 3, 512)
    assert (row.low, row.rate, row.high) == (128.0, 256.0, 512.0)
    for width in (60, 80, 140):
        text = render_rates([row], width=width)
        assert text.splitlines()[-1].split() == [
            *("simulating", "256", "128-512", "3", "of", "512", "events/s")
        ]
        assert max(map(len, text.splitlines())) <= width
