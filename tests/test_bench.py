"""Tests of the bench: pairs in turn, as many as time allows, by two clocks."""

from itertools import count

import pytest

from icediag.instruments.bench.run import FEWEST, BenchRow, compare
from icediag.reports.bench import render_bench


def compared(repeats: int, seconds: float) -> tuple[BenchRow, str]:
    """A part that takes 3 s and a yardstick of 2 s, at 6 and 2 s of work, and who ran when."""
    ran: list[str] = []
    wall, work = [0.0], [0.0]

    def part() -> None:
        ran.append("p")
        wall[0] += 3.0
        work[0] += 6.0

    def yardstick() -> None:
        ran.append("y")
        wall[0] += 2.0
        work[0] += 2.0

    row = compare(
        "part",
        "yardstick",
        part,
        yardstick,
        repeats=repeats,
        seconds=seconds,
        clock=lambda: wall[0],
        processor=lambda: work[0],
    )
    return row, "".join(ran)


def test_each_is_first_in_every_other_pair() -> None:
    row, ran = compared(4, 1e9)
    assert ran == "py" + "pyyp" * 2
    assert (row.pairs, row.part_ms, row.yardstick_ms) == (4, 3000.0, 2000.0)
    assert row.ratio == row.ratio_low == row.ratio_high == pytest.approx(1.5)
    assert row.processor_ratio == pytest.approx(3.0)


@pytest.mark.parametrize(("seconds", "pairs"), [(0.0, FEWEST), (36.0, 8), (1e9, 20)])
def test_slow_parts_are_timed_as_often_as_time_allows(seconds: float, pairs: int) -> None:
    assert compared(20, seconds)[0].pairs == pairs


def test_a_clock_that_does_not_tick_is_no_failure() -> None:
    still = count(0, 0)
    row = compare("a", "b", list, list, repeats=3, clock=lambda: next(still), processor=lambda: 0.0)
    assert (row.ratio, row.processor_ratio) == (1.0, 1.0)


def test_the_table_tells_both_ratios_and_how_many_pairs() -> None:
    header, line = render_bench([compared(4, 1e9)[0]]).splitlines()
    assert header.split()[-4:] == ["ratio", "quartiles", "cpu", "pairs"]
    assert line.split()[-4:] == ["1.50", "1.50-1.50", "3.00", "4"]
