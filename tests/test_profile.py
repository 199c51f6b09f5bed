"""`icediag profile`: the table is right and fits, loops carry their cost, files come back."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from icediag.cli import main as command_line
from icediag.cli.profile import _workers
from icediag.devices import load_device
from icediag.errors import IcediagError
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.profiling.overview import summary
from icediag.instruments.profiling.run import record_profile
from icediag.model.network import NetworkConfig
from icediag.place import Location, Unjudged
from icediag.recording import Recording
from icediag.records.clock import LoaderClock
from icediag.records.profile import Profile, Projected
from icediag.reports.grid import Group, Row, grid
from icediag.reports.numbers import amount, bytes_of, duration, milliseconds, percent
from icediag.reports.profile import render_profile
from tests.clock_sample import sample_clock, sample_projection
from tests.filled import filled
from tests.pipelines import deepsets, odd

SMALL = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def looping() -> Recording:
    """The default model, small, with the case's packing loop."""
    made = icecube(n_events=6, batch_size=6, config=SMALL, faults=("packing-loop",))
    return record_profile(
        made, model=load_device("a100"), workers=(0,), repeats=2, budget_s=1.0, timeout=300
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `icediag` in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str, width: int = 100) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
        monkeypatch.setenv("COLUMNS", str(width))
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_loop_carries_rounds_axis_and_cost(looping: Recording) -> None:
    profile = summary(looping)
    assert looping.operations is not None and profile.projected is not None
    [loop] = [row for row in profile.loops if "packing_loop" in row.location.file]
    doms = looping.operations.axes["doms"]
    assert (loop.axis, loop.order, loop.rounds, loop.syncs) == ("doms", 1, doms, 2 * doms)
    assert loop.operations is not None and loop.operations > 10 * doms
    assert loop.forward_s is not None and loop.backward_s is not None
    # Two syncs a round at 15 us, and the way back copies.
    assert loop.forward_s > 2 * doms * 15e-6 and loop.backward_s > 0
    assert profile.loops[0] is loop and loop.text.startswith("for row in")
    assert profile.projected.title.startswith("A100") and profile.projected.loops > 0.5
    # What reads and collates runs on the host whatever the device: rounds, no projected cost.
    others = [row for row in profile.loops if row.phase == "collate"]
    assert others and all(row.rounds == 6 and row.operations is None for row in others)


def test_rows_add_up(looping: Recording) -> None:
    profile = summary(looping)
    projected, rows = profile.projected, {row.name: row for row in profile.rows}
    assert projected is not None and looping.projection is not None
    top = [row for row in profile.rows if row.depth == 0]
    ahead = sum(row.forward_s or 0.0 for row in top)
    assert ahead + (rows["backward"].backward_s or 0.0) == pytest.approx(projected.step_s)
    launches = sum(part.launches for part in looping.projection.stages)
    forward = [row for row in top if row.kind == "module"]
    assert forward and 0 < sum(row.launches or 0 for row in forward) <= launches
    [loop] = [row for row in profile.loops if row.kind == "for" and row.syncs]
    few = (rows["pack_one_by_one"].syncs or 0) - (loop.syncs or 0)
    assert 0 <= few < 5  # beside the loop the longest event is read
    assert rows["pack_one_by_one"].bound == "host" and rows["collate"].launches is None
    padding = rows["transformer"].padding
    assert padding is not None and 0 < padding < 1
    assert projected.workers == pytest.approx((projected.fetch_s or 0) / projected.step_s)
    [loader] = profile.loader
    assert loader.workers == 0 and loader.batches >= 1 and 0 <= loader.waiting <= 1
    assert profile.step_s is not None and profile.peak_bytes is not None
    assert Recording.from_json(looping.to_json()) == looping


def test_without_a_clock_or_a_projection_it_says_so() -> None:
    bare = Recording(
        pipeline="p", batch_size=4, not_judged=(Unjudged(name="clock", reason="no time"),)
    )
    assert "clock: no time" in render_profile(summary(bare))
    measured = dataclasses.replace(bare, clock=sample_clock())
    text = render_profile(summary(measured))
    assert "projected" not in text and "own loader: no such disk" in text
    assert "left after each step: 40B, 80B" in " ".join(text.split())
    both = dataclasses.replace(measured, projection=sample_projection())
    text = render_profile(summary(both), width=100)
    assert "never measured" in text and "a datasheet" in text
    assert "25 % of the operations follow no axis" in " ".join(text.split())


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("width", [40, 80, 119, 120, 140])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_wider_than_the_terminal(looping: Recording, width: int, color: bool) -> None:
    finding = Finding(
        code="P01",
        name="python-loop",
        severity="warning",
        stage="stage",
        message="message " * 20,
        evidence={},
        remedy="do this",
    )
    projected = dataclasses.replace(
        filled(Projected), constants=sample_projection().constants, rates={"float32": 1e12}
    )
    profiles: list[Profile] = [
        summary(looping),
        summary(Recording(pipeline="empty", batch_size=1)),
        dataclasses.replace(filled(Profile), projected=projected),
    ]
    for profile in profiles:
        for small in (False, True):
            text = render_profile(
                profile, findings=[finding], width=width, color=color, depth=9, small=small
            )
            assert ("\x1b[" in text) == color
            assert max(map(cell_len, plain(text).splitlines())) <= max(width, 80)
            assert finding.remedy in plain(text)
    shown = plain(render_profile(summary(looping), width=width, color=color))
    assert "projected on A100 SXM 80 GB" in shown and "for row in" in shown
    assert ("transformer.py:" in shown) == (width >= 120)


def test_markup_in_names_is_taken_literally() -> None:
    profile = summary(Recording(pipeline="[red]\x1b[2J", batch_size=1))
    assert "[red]\\x1b[2J" in render_profile(profile)


def test_small_stages_are_counted_where_they_are_left_out(looping: Recording) -> None:
    profile = summary(looping)
    few = render_profile(profile, depth=1).splitlines()
    many = render_profile(profile, depth=9, small=True).splitlines()
    [note] = [line for line in few if "not shown" in line]
    hidden = int(note.split()[0])
    assert len(many) == len(few) + hidden - 1 and not any("not shown" in line for line in many)


def test_a_grid_cuts_what_stands_left() -> None:
    groups = [
        Group(title="", columns=("name",)),
        Group(title="a wide title", columns=("a", "b")),
        Group(title="", columns=("where",), left=True),
    ]
    cells = [Text("a rather long name"), Text("1"), Text("22"), Text("some/long/path/file.py:12")]
    lines = grid(groups, [Row(cells=cells, under=Text("under"))], 50).plain.splitlines()
    assert lines[1].split() == ["name", "a", "b", "where"] and lines[3] == "under"
    assert max(map(len, lines)) <= 50 and lines[2].endswith("e.py:12") and "…" in lines[2]
    assert lines[0].strip() == "a wide title" and lines[2].startswith("a rather long name ")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (2.5, "2.5"), (9_999, "9,999"), (10_400, "10k"), (1.26e6, "1.3M")],
)
def test_amounts_are_short(value: float, text: str) -> None:
    assert amount(value) == text


def test_numbers_are_short() -> None:
    assert [bytes_of(n) for n in (0, 999, 1024, 10**9, -2048)] == [
        "0B",
        "999B",
        "1.0K",
        "954M",
        "-2.0K",
    ]
    assert [duration(s) for s in (0.0, 4e-6, 5.17e-2, 6.0, 1e-7)] == [
        *("0", "4.00 us", "51.7 ms", "6.00 s", "0.1 us")
    ]
    assert [milliseconds(s) for s in (0.0, 1e-7, 0.00123, 0.0999999, 2.5)] == [
        *("0", "<.01", "1.23", "100", "2,500")
    ]
    assert [percent(s) for s in (0.0, 0.001, 0.5, 1.0)] == ["0 %", "<1 %", "50 %", "100 %"]
    assert max(len(amount(10.0**n)) for n in range(15)) <= 5
    assert max(len(bytes_of(10.0**n)) for n in range(16)) <= 5


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), ("0", (0,)), ("2", (0, 1, 2)), ("1..3", (1, 2, 3)), ("0..0", (0,))],
)
def test_workers(text: str, numbers: tuple[int, ...]) -> None:
    assert _workers(text) == numbers


@pytest.mark.parametrize("text", ["x", "3..1", "-1", "1..", "1,2"])
def test_workers_that_are_none(text: str) -> None:
    with pytest.raises(IcediagError, match="--workers: expected"):
        _workers(text)


def test_a_pipeline_of_ones_own(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        *("profile", "--pipeline", "tests.pipelines.deepsets:pipeline", "--repeats", "2"),
        *("--json", str(tmp_path / "r.json"), "--out", str(tmp_path / "new")),
        *("--trace", str(tmp_path / "trace"), "--fail-on", "never"),
    )
    assert code == 0, err
    assert "projected on H100 SXM" in out and "measured on cpu" in out
    recording = Recording.load(tmp_path / "r.json")
    assert recording == Recording.load(tmp_path / "new" / "recording.json")
    table = json.loads((tmp_path / "new" / "profile.json").read_text())
    assert table["projected"]["step_s"] == pytest.approx(recording.projection.step_s)  # type: ignore[union-attr]
    assert {"dataset item", "collate", "loss", "backward"} <= {row["name"] for row in table["rows"]}
    [written] = (tmp_path / "trace").iterdir()
    assert f"trace: {written}" in out
    assert json.loads((tmp_path / "new" / "diagnosis.json").read_text())["pipeline"]


def test_what_cannot_be_run_is_exit_code_2(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("profile", "--pipeline", "tests.test_profile:raising")
    assert code == 2 and "not seen" in out
    for arguments in (
        ("--device-model", "abacus"),
        ("--workers", "many"),
        ("--json", str(tmp_path / "no" / "r.json")),
    ):
        code, out, err = run("profile", *arguments)
        assert (code, out) == (2, "") and err.count("\n") == 1 and arguments[0] in err


def raising() -> Any:
    return odd.on_numbers(odd.RaisesMidway())


def test_loaders_and_places_are_shown() -> None:
    clock = dataclasses.replace(
        sample_clock(),
        loader=(LoaderClock(workers=3, own=True, wait_s=(0.5, 0.5), step_s=(0.5, 0.5)),),
    )
    text = render_profile(summary(Recording(pipeline="p", batch_size=4, clock=clock)), width=140)
    assert re.search(r"3 workers \(your own loader\) +500 +0 +500 +50 % +2", text)
    assert Location(file="a/b.py", line=7) == clock.stages[0].location and "a/b.py:7" in text
    assert deepsets.pipeline().name
