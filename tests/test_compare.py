"""`icediag compare` and `--baseline`: exact counts, lines by content, times never on one run."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from icediag.checks import judge, slower_than_baseline
from icediag.cli import main as command_line
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.instruments.profiling.comparison import compare
from icediag.instruments.source import counted_places, read_texts
from icediag.matching import match, match_lines
from icediag.model.network import NetworkConfig
from icediag.place import Location
from icediag.recording import Recording, Unjudged
from icediag.records.clock import ClockRecord
from icediag.records.comparison import ComparisonRecord
from icediag.records.source import SourceRecord
from icediag.records.work import (
    Growth,
    LineRecord,
    LinesRecord,
    OperationRecord,
    OperationsRecord,
    Phase,
    WorkRun,
)
from icediag.reports.compare import render_comparison
from tests.filled import filled

SMALL = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
Run = Callable[..., tuple[int, str, str]]


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


def at(line: int, file: str = "a.py") -> Location:
    return Location(file=file, line=line)


# Lines by content.


def test_a_line_is_known_by_what_stands_in_it() -> None:
    old = {at(1): "x = 1", at(2): "y = x", at(5): "z = y"}
    new = {at(3): "x = 1", at(4): "w = 0", at(6): "y = x", at(9): "z = y + w"}
    assert match_lines(old, new) == {at(3): at(1), at(6): at(2)}


def test_lines_that_are_alike_keep_their_order() -> None:
    old = {at(1): "a()", at(2): "b()", at(3): "a()"}
    new = {at(11): "a()", at(12): "b()", at(13): "a()"}
    assert match_lines(old, new) == {at(11): at(1), at(12): at(2), at(13): at(3)}


def test_a_file_that_was_renamed_is_found_where_nothing_else_is_like_it() -> None:
    old = {at(1): "a()", at(2): "b()", at(3): "b()"}
    new = {at(1, "new.py"): "a()", at(2, "new.py"): "b()"}
    assert match_lines(old, new) == {at(1, "new.py"): at(1)}


def test_without_texts_numbers_count() -> None:
    assert match_lines({at(1): "", at(2): ""}, {at(2): "", at(3): ""}) == {at(2): at(2)}


# Counts.


def operation(line: int | None, calls: int, **more: Any) -> OperationRecord:
    arguments: dict[str, Any] = {"phase": "forward", "stage": "pack", "op": "add"}
    return OperationRecord(
        **(arguments | more),
        location=None if line is None else at(line),
        calls=(calls,),
        launches=(calls,),
        elements=(calls,),
        bytes_read=(10 * calls,),
        bytes_written=(0,),
        flops=(0,),
        syncs=(0,),
    )


def recorded(
    operations: list[OperationRecord],
    texts: dict[int, str] | None = None,
    *,
    doms: int = 9,
    lines: dict[int, int] | None = None,
    executed: int = 100,
    clock: ClockRecord | None = None,
    phase: Phase = "collate",
) -> Recording:
    runs = (WorkRun(samples=4, axes={"doms": doms}),)
    growth = Growth(axis="doms", order=1, slope=1.0, intercept=0.0)
    return Recording(
        pipeline="p",
        batch_size=4,
        operations=OperationsRecord(batch_size=4, runs=runs, operations=tuple(operations)),
        lines=LinesRecord(
            batch_size=4,
            runs=runs,
            lines=tuple(
                LineRecord(phase=phase, location=at(line), counts=(n,), growth=growth)
                for line, n in (lines or {}).items()
            ),
            executed={phase: (executed,)},
        ),
        source=SourceRecord(texts={f"a.py:{line}": text for line, text in (texts or {}).items()}),
        clock=clock,
    )


def found(old: Recording, new: Recording) -> list[Finding]:
    record = compare(old, new)
    answer = slower_than_baseline.check(dataclasses.replace(new, comparison=record))
    assert not isinstance(answer, Unjudged)
    assert judge(dataclasses.replace(new, comparison=record)).findings == answer
    return list(answer)


def test_code_that_moved_is_the_same() -> None:
    old = recorded([operation(1, 50), operation(2, 5)], {1: "x + y", 2: "y + z"})
    new = recorded([operation(11, 50), operation(12, 5)], {11: "x + y", 12: "y + z"})
    assert found(old, new) == []
    assert compare(old, new).counts == ()


def test_a_loop_that_came_back_is_named_with_its_line() -> None:
    old = recorded([operation(1, 50), operation(2, 5)], {1: "x + y", 2: "y + z"})
    new = recorded(
        [operation(1, 50), operation(2, 500), operation(3, 90)],
        {1: "x + y", 2: "for row in rows:", 3: "y + z"},
    )
    [finding] = found(old, new)
    assert (finding.code, finding.severity, finding.stage) == ("P24", "warning", "pack")
    # y + z is known again and got slower; the loop is new and more.
    assert finding.location == at(2) and "for row in rows:" in finding.message
    assert finding.evidence["operations"] == {"before": 55, "after": 640, "step_before": 55}
    [change] = [c for c in compare(old, new).counts if c.measure == "operations"]
    told = {line.location.line: (line.before, line.after, line.known) for line in change.lines}
    assert told == {2: (0, 500, False), 3: (5, 90, True)}


def test_little_more_is_within_the_tolerance_but_a_sync_is_not() -> None:
    old = recorded([operation(1, 1000)])
    assert found(old, recorded([operation(1, 1019)])) == []
    assert compare(old, recorded([operation(1, 1019)])).counts != ()
    assert len(found(old, recorded([operation(1, 1021)]))) == 1
    synced = dataclasses.replace(operation(1, 1000), syncs=(1,))
    [finding] = found(old, recorded([synced]))
    assert set(finding.evidence) == {"phase", "samples", "syncs"}


def test_less_in_one_stage_does_not_hide_more_in_another() -> None:
    old = recorded([operation(1, 100), operation(5, 100, stage="head")])
    new = recorded([operation(1, 10), operation(5, 150, stage="head")])
    [finding] = found(old, new)
    assert finding.stage == "head"


def test_a_stage_with_another_name_is_compared_with_what_left() -> None:
    old = recorded([operation(1, 100, stage="pack")], {1: "x + y"})
    same = recorded([operation(1, 100, stage="pack_all")], {1: "x + y"})
    assert found(old, same) == []
    [finding] = found(old, recorded([operation(1, 200, stage="pack_all")], {1: "x + y"}))
    assert finding.stage == "pack_all" and finding.location == at(1)


def test_lines_of_plain_python_count_too() -> None:
    old = recorded([], lines={1: 16}, executed=60)
    assert found(old, recorded([], lines={1: 16}, executed=75)) == []  # ten more that do not grow
    [finding] = found(old, recorded([], lines={1: 16, 7: 400}, executed=460))
    assert finding.stage == "collate" and finding.location == at(7)
    assert finding.evidence["executions"]["after"] == 416


def test_other_data_are_not_compared() -> None:
    record = compare(recorded([operation(1, 5)]), recorded([operation(1, 500)], doms=10))
    assert record.samples is None and record.counts == ()
    assert {item.name for item in record.missing} == {"operations", "executions", "times"}
    new = dataclasses.replace(recorded([]), comparison=record)
    answer = slower_than_baseline.check(new)
    assert isinstance(answer, Unjudged) and "the data differ" in answer.reason
    assert isinstance(slower_than_baseline.check(recorded([])), Unjudged)


# Times.


def clocked(seconds: float, *, rounds: int = 2, noise: float = 0.02, seed: int = 0) -> ClockRecord:
    """Steps of a machine whose speed wanders: both step and yardstick with it."""
    draw = np.random.default_rng(seed)
    n = 5 * rounds
    speed = np.exp(np.cumsum(draw.normal(0, 0.2, n)))
    step = tuple(seconds * speed * draw.lognormal(0, noise, n))
    yard = tuple(0.005 * speed * draw.lognormal(0, noise, n))
    return ClockRecord(
        device="cpu",
        machine="m",
        timer="host clock",
        batch_size=4,
        wanted=4,
        step_s=step,
        processor_s=step,
        yardstick_s=yard,
        yardstick_processor_s=yard,
        rounds=(5,) * rounds,
    )


def test_a_slower_step_is_told_from_a_slower_machine() -> None:
    def of(clock: ClockRecord) -> Recording:
        return recorded([operation(1, 5)], clock=clock)

    base = of(clocked(0.1))
    for seed in range(20):
        assert found(base, of(clocked(0.1, noise=0.1, seed=seed))) == []
    [finding] = found(base, of(clocked(0.2, seed=7)))
    assert finding.evidence["ratio"] == pytest.approx(2, rel=0.1)
    assert 1.25 < finding.evidence["at_least"] < 2
    # One round, however long, is one run.
    once = dataclasses.replace(clocked(0.2, seed=7), rounds=(10,))
    assert found(base, of(once)) == []


def test_a_spell_of_slowness_is_not_a_regression() -> None:
    calm, spell = clocked(0.1), clocked(0.1, seed=3)
    busy = dataclasses.replace(
        spell, step_s=tuple(3 * s if i < 5 else s for i, s in enumerate(spell.step_s))
    )
    busy = dataclasses.replace(busy, processor_s=busy.step_s)
    record = compare(recorded([], clock=calm), recorded([], clock=busy))
    assert len(record.times) == 4 and max(time.low for time in record.times) > 2
    assert not slower_than_baseline.slower(record.times)


def test_times_of_other_machines_and_batches_are_not_compared() -> None:
    base = recorded([], clock=clocked(0.1))
    other = dataclasses.replace(clocked(0.9), machine="another")
    few = dataclasses.replace(clocked(0.9), batch_size=2)
    short = dataclasses.replace(clocked(0.9), rounds=(2, 2, 2, 2, 2))
    for clock, words in ((other, "other machines"), (few, "of 2 samples"), (short, "rounds of 3")):
        record = compare(base, recorded([], clock=clock))
        assert record.times == () and any(words in item.reason for item in record.missing)


def test_on_a_gpu_the_wall_counts() -> None:
    gpu = dataclasses.replace(clocked(0.1), timer="CUDA events", processor_s=(1.0,) * 10)
    record = compare(recorded([], clock=gpu), recorded([], clock=gpu))
    assert {time.ratio for time in record.times if time.old_round == time.new_round} == {1.0}
    assert all(time.ratio == time.wall_ratio for time in record.times)


# As a whole.


def counted(*faults: str) -> Recording:
    made = icecube(n_events=6, batch_size=6, config=SMALL, faults=faults)
    recording = examine(made, needs=("lines", "operations"))
    texts = read_texts(counted_places(recording))
    return dataclasses.replace(recording, source=SourceRecord(texts=texts))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recording and diagnosis of the default model, again, and with the case's packing loop."""
    made = {}
    for name, faults in (("base", ()), ("again", ()), ("loop", ("packing-loop",))):
        made[name] = tmp_path_factory.mktemp(name)
        recording = counted(*faults)
        recording.save(made[name] / "recording.json")
        findings = [dataclasses.replace(filled(_Plain), evidence={}).finding] if faults else []
        Diagnosis(pipeline="p", findings=tuple(findings)).save(made[name] / "diagnosis.json")
    return made


@dataclasses.dataclass(frozen=True)
class _Plain:
    evidence: dict[str, str]

    @property
    def finding(self) -> Finding:
        return Finding(
            code="P01",
            name="python-loop",
            severity="warning",
            stage="pack_one_by_one",
            message="It loops.",
            evidence={},
            remedy="r",
            location=at(3),
        )


def test_identical_code_passes(run: Run, folders: dict[str, Path]) -> None:
    code, out, err = run("compare", str(folders["base"]), str(folders["again"]))
    assert code == 0, err
    assert "no count rose in any stage" in out and "findings: 0 new, 0 gone" in out


@pytest.mark.parametrize("width", [80, 140])
def test_the_packing_loop_is_caught(
    run: Run, folders: dict[str, Path], tmp_path: Path, width: int
) -> None:
    arguments = (str(folders["base"]), str(folders["loop"]))
    code, out, _ = run("compare", *arguments, "--json", str(tmp_path / "c.json"), width=width)
    assert code == 1
    assert max(map(cell_len, out.splitlines())) <= width
    assert "packing_loop.py:35" in out and "new: warning P01 python-loop" in out
    written = json.loads((tmp_path / "c.json").read_text())
    changes = {(c["phase"], c["stage"], c["measure"]) for c in written["counts"]}
    assert ("forward", "pack_one_by_one", "syncs") in changes
    assert ("backward", "pack_one_by_one", "bytes") in changes
    # The other way round nothing got worse.
    code, out, _ = run("compare", *reversed(arguments), width=width)
    assert code == 0 and "1 gone" in out
    assert run("compare", *arguments, "--fail-on", "error")[0] == 0


def test_files_of_either_kind(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    base, loop = folders["base"], folders["loop"]
    code, out, _ = run("compare", str(base / "recording.json"), str(loop / "recording.json"))
    assert code == 1 and "findings:" not in out
    code, out, _ = run("compare", str(base / "diagnosis.json"), str(loop))
    assert code == 1 and "findings: 1 new" in out and "counted" not in out
    (tmp_path / "nothing.json").write_text("[]")
    for pair in (
        (base / "diagnosis.json", loop / "recording.json"),
        (tmp_path, loop),
        (base, tmp_path / "nothing.json"),
        (base, tmp_path / "missing.json"),
    ):
        code, out, err = run("compare", *map(str, pair))
        assert (code, out) == (2, "") and err.count("\n") == 1


def test_nothing_in_common_is_said(run: Run, tmp_path: Path) -> None:
    recorded([operation(1, 5)]).save(tmp_path / "a.json")
    recorded([operation(1, 5)], doms=10).save(tmp_path / "b.json")
    code, _, err = run("compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert code == 2 and "the data differ" in err


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [40, 80, 140])
def test_whatever_it_is_it_fits(width: int, color: bool) -> None:
    record: ComparisonRecord = dataclasses.replace(
        filled(ComparisonRecord), totals={"syncs": (1, 20), "bytes": (5, 5)}, memory=(1, 2)
    )
    matched = match([_Plain({}).finding], [dataclasses.replace(_Plain({}).finding, stage="else")])
    text = render_comparison(
        record, matched, findings=[_Plain({}).finding], width=width, color=color
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(cell_len, plain.splitlines())) <= max(width, 72)
    assert "1 new, 1 gone" in plain and ("\x1b[" in text) == color


def test_profile_beside_its_own_baseline(run: Run, tmp_path: Path) -> None:
    arguments = ("profile", "--pipeline", "tests.pipelines.deepsets:pipeline", "--repeats", "6")
    path = tmp_path / "base.json"
    assert run(*arguments, "--json", str(path), "--fail-on", "never")[0] == 0
    code, out, err = run(*arguments, "--baseline", str(path))
    assert code == 0, out + err
    assert "beside the baseline" in out and "no count rose in any stage" in out
    assert "step by yardstick" in out
    assert run(*arguments, "--baseline", str(tmp_path / "none.json"))[0] == 2
