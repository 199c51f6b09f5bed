"""`icediag profile --versus`: ways that do the same, timed in turn."""

import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from torch.fx._symbolic_trace import is_fx_tracing_warning

from icediag.cli import main as command_line
from icediag.instruments.versus import NAMES, measure_versus
from icediag.instruments.versus.case import collate_event_by_event, collate_like_the_case
from icediag.instruments.versus.loading import loading_ways
from icediag.instruments.versus.parts import packing_ways, setting_of
from icediag.instruments.versus.peers import peer, versions
from icediag.instruments.versus.step import step_ways
from icediag.instruments.versus.timing import Timer, Way, expected
from icediag.model.simulate import default_dataset
from icediag.records.versus import VersusRecord, VersusRow
from icediag.reports.versus import render_versus


class Hands:
    """A clock that moves when a way is run."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def way(self, name: str, *seconds: float) -> Way:
        """Takes these seconds, one after the other, the last of them for ever."""
        left = list(seconds)

        def run() -> None:
            self.at += left.pop(0) if len(left) > 1 else left[0]

        return Way(name=name, run=run)


def test_ways_are_timed_in_turn_and_compared_pair_by_pair() -> None:
    hands = Hands()
    timer = Timer(repeats=3, clock=hands, way_seconds=1e9, run_seconds=1e9)
    # The first run warms up. The machine slows down by ten in the third round.
    ways = [hands.way("ours", 9, 1, 1, 10), hands.way("theirs", 9, 2, 2, 20)]
    ours, theirs = timer.table("collate", 4, ways)
    assert (ours.ms, theirs.ms, theirs.times, theirs.repeats) == (1000, 2000, 2.0, 3)
    assert ours.events_per_second == 4 and ours.times == 1


def test_a_slow_way_gets_fewer_rounds_and_a_hopeless_one_none() -> None:
    hands = Hands()
    timer = Timer(repeats=30, clock=hands, way_seconds=8, run_seconds=60)
    rows = timer.table("packing", 10, [hands.way("ours", 0.5), hands.way("slow", 4)])
    assert [row.repeats for row in rows] == [16, 2]
    # Ten times the events, a hundred times the time, as far as one size tells.
    rows = timer.table("packing", 100, [hands.way("ours", 0.5), hands.way("slow", 40)])
    assert rows[0].ms == 500 and rows[1].ms is None
    assert rows[1].note == "not run: 400 s expected (4 s at 10 events), 60 s allowed"


def test_what_grows_with_the_events_is_run_as_long_as_it_may() -> None:
    # A fifth more an event at the larger size is noise, and 8 times the events affordable.
    assert 8 * 1.378 < expected([(32, 0.2117), (128, 0.681), (256, 1.378)], 2048) < 20
    assert expected([(128, 0.7), (256, 1.7)], 2048) < 60
    # What grows with the square or worse is foreseen to do so.
    assert expected([(32, 0.378), (128, 32.5)], 256) > 200
    assert 64 * 2 <= expected([(128, 0.5), (256, 2.0)], 2048) < 64 * 2 * 2
    # At a small size it is what does not grow: linear from there on.
    assert expected([(32, 1.0), (128, 1.1)], 256) == pytest.approx(1.1 * 2**1.25)
    assert expected([], 9) == expected([(1, 0.09)], 10**6) == 0


def test_the_first_run_of_a_way_is_not_its_time() -> None:
    hands = Hands()
    timer = Timer(repeats=3, clock=hands, way_seconds=60, run_seconds=60)
    # It loads a library at first: 9 s for 10 events, where 0.2 s are its own.
    timer.table("packing", 10, [hands.way("ours", 9, 0.2)])
    assert timer.table("packing", 100, [hands.way("ours", 2)])[0].ms == 2000


def test_what_cannot_be_run_says_why() -> None:
    def fails() -> None:
        raise RuntimeError("no such kernel\nand more")

    hands = Hands()
    ways = [hands.way("ours", 1), Way(name="theirs", run=fails), Way(name="none", run=None)]
    rows = Timer(repeats=1, clock=hands).table("x", 1, ways)
    assert [row.note for row in rows] == ["", "not run: no such kernel", ""]
    missing, reason = peer("no_such_package")
    assert missing is None and reason == "no_such_package is not installed"
    assert any(text.startswith("torch ") for text in versions())


def test_ways_to_collate_give_the_same() -> None:
    setting = setting_of(default_dataset(6, 0), 6, 0)
    slow, case = collate_event_by_event(setting.events), collate_like_the_case(setting.events)
    for name, value in slow.items():
        assert torch.equal(value, case[name]), name
        assert torch.equal(value, getattr(setting.batch, name)), name


def test_packing_ways_go_all_the_way_back() -> None:
    setting = setting_of(default_dataset(3, 0), 3, 0)
    found = {}
    for way in packing_ways(setting):
        if way.run is not None and "PyG" not in way.name:
            result = way.run()
            assert isinstance(result, tuple)
            found[way.name] = result[0]
    # Every DOM is packed once: the gradient of the sum is 1.
    assert len(found) >= 4 and all(torch.all(g == 1) for g in found.values())


def test_loading_reads_every_event(tmp_path: Path) -> None:
    for way in loading_ways(tmp_path, n_events=40, batch_size=16, seed=0):
        assert way.run is not None
        way.run()  # asserts within that all were read


def test_one_table_a_part_in_one_run() -> None:
    hands = Hands()
    heard: list[str] = []
    record = measure_versus(
        ["pooling", "attention", "collate"],
        sizes=[2],
        repeats=1,
        timer=Timer(repeats=1, clock=hands),
        told=heard.append,
    )
    assert list(dict.fromkeys(row.what for row in record.rows)) == [
        *("collate", "pooling", "attention")
    ]
    assert heard == ["collate, 2 events", "pooling, 2 events", "attention, 2 events"]
    with pytest.raises(ValueError, match="versus: expected all, collate"):
        measure_versus(["packing", "wrapping"])
    with pytest.raises(ValueError, match="sizes: expected"):
        measure_versus(sizes=[0])


@pytest.mark.parametrize("width", [80, 120, 140])
def test_the_tables_fit(width: int) -> None:
    rows = []
    for what in NAMES:
        for n in (32, 2048):
            rows += [
                VersusRow(
                    what=what, way="ours", n_events=n, ms=1234, low_ms=1000, high_ms=1239,
                    times=1.0, repeats=9, note="94 % of 137,011 slots used",
                ),
                VersusRow(
                    what=what, way="a rather long way to do it", n_events=n,
                    note="not run: 1,234 s expected (33 s at 128 events), 60 s allowed",
                ),
                VersusRow(
                    what=what, way="theirs", n_events=9, ms=9, low_ms=9, high_ms=9, times=0.5,
                    repeats=1,
                ),
            ]  # fmt: skip
    record = VersusRecord(
        rows=tuple(rows), threads=1, load=0.5, cores=2, versions=("torch 3",), processor=True
    )
    text = render_versus(record, width=width)
    lines = text.splitlines()
    words = " ".join(text.split())
    assert max(map(cell_len, lines)) <= width
    assert "medians of processor time" in words and "1 thread;" in words
    assert "load 0.5 before" in words
    # One table a part and size, each with a header, and no name of a way is cut.
    assert sum(line.endswith("x ours") for line in lines) == 2 * len(NAMES)
    assert all(f"{name}, 2,048 events" in text for name in NAMES)
    assert text.count("\na rather long way to do it  not run: 1,234 s expected") == 2 * len(NAMES)
    assert re.search(r"\nours +1,234 +1,000-1,239 +\d+(\.\d+)? +1\.00", text)
    # A single run has no quartiles, and a way that did fewer events says so.
    assert re.search(r"\ntheirs +9 +- +1,000 +0\.50\s+9 events\n", text)


def test_torch_does_not_warn_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("torch.fx._symbolic_trace"), "callHandlers", said.append)
    is_fx_tracing_warning.cache_clear()  # torch warns once a process
    measure_versus(["attention"], sizes=[2], repeats=1)
    assert is_fx_tracing_warning.cache_info().misses == 1 and not said
    is_fx_tracing_warning.cache_clear()
    is_fx_tracing_warning()
    assert len(said) == 1  # outside it speaks as ever


def test_the_published_network_stands_beside_its_own_size() -> None:
    ways = step_ways(2, n_simulated=2, seed=0)
    assert [way.name for way in ways] == ["ours", "with the case's parts", "ours, larger"]
    record = measure_versus(["step"], sizes=[2], repeats=1, timer=Timer(repeats=1, clock=Hands()))
    assert record.rows[-1].events_per_second == pytest.approx(8.9)


def test_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", "profile", *arguments])
        monkeypatch.setenv("COLUMNS", "140")
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    code, out, _ = call("--versus", "collate", "--sizes", "2", "--repeats", "1")
    assert code == 0 and "ours, a list of events" in out
    for arguments in (("--versus", "wrapping"), ("--versus", "all", "--sizes", "few")):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "") and "expected" in err and err.count("\n") == 1
