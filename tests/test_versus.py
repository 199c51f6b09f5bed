"""`icediag profile --versus`: ways that do the same, timed in turn."""

import re
import sys
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len

from icediag.cli import main as command_line
from icediag.instruments.versus import NAMES, measure_versus
from icediag.instruments.versus.case import collate_event_by_event, collate_like_the_case
from icediag.instruments.versus.loading import loading_ways
from icediag.instruments.versus.parts import packing_ways, setting_of
from icediag.instruments.versus.peers import peer, versions
from icediag.instruments.versus.timing import Timer, Way
from icediag.model.simulate import default_dataset
from icediag.reports.versus import render_versus
from icediag.versus_record import VersusRecord, VersusRow


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
    # Ten times the events, a hundred times the time.
    rows = timer.table("packing", 100, [hands.way("ours", 0.5), hands.way("slow", 40)])
    assert rows[1].ms is None and rows[1].note.startswith("not run: 4 s at 10 events")


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


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_tables_fit(width: int) -> None:
    rows = [
        VersusRow(what=what, way="a rather long way to do it", n_events=2048, note="no plan")
        for what in NAMES
    ]
    rows.append(
        VersusRow(what="loading", way="ours", n_events=9, ms=9, low_ms=8, high_ms=10, times=1.0)
    )
    record = VersusRecord(
        rows=tuple(rows), threads=1, load=0.5, cores=2, versions=("torch 3",), processor=True
    )
    text = render_versus(record, width=width)
    words = " ".join(text.split())
    assert "medians of processor time" in words and "1 thread;" in words
    assert max(map(cell_len, text.splitlines())) <= width
    assert all(name in text for name in NAMES) and "load 0.5 before" in text
    assert re.search(r"ours +9 +9 +8-10 +1,000 +1.00", text)


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
