"""The projection: two clocks by hand, counts extended without a remainder, the case's seconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icediag.devices import DEVICES, DeviceModel, load_device
from icediag.errors import IcediagError
from icediag.icecube import pipeline as icecube
from icediag.instruments.profiling.overview import overview
from icediag.instruments.profiling.projection import Work, _two_clocks, extended, project
from icediag.instruments.work import record_operations
from icediag.model.network import NetworkConfig
from icediag.place import Location
from icediag.records.work import (
    LINE_S,
    Growth,
    LinesRecord,
    OperationRecord,
    OperationsRecord,
    Phase,
    PythonRecord,
    WorkRun,
)
from tests.clock_sample import sample_clock

#: Numbers that are easy to follow: 1 s a launch, 2 s a kernel at least, 10 s a sync, 100 B/s.
SIMPLE = DeviceModel(
    name="simple",
    title="a simple device",
    bandwidth=100.0,
    rates={"float32": 1000.0, "bfloat16": 10_000.0},
    kernel_s=2.0,
    launch_s=1.0,
    sync_s=10.0,
    source="made up",
)
PLACE = Location(file="a/b.py", line=7)


def operation(calls: Any = 1, **more: Any) -> OperationRecord:
    arguments: dict[str, Any] = {
        "phase": "forward",
        "stage": "s",
        "op": "add",
        "dtype": "float32",
        "calls": calls if isinstance(calls, tuple) else (calls,),
        "launches": (calls,),
        "elements": (0,),
        "bytes_read": (0,),
        "bytes_written": (0,),
        "flops": (0,),
        "syncs": (0,),
    }
    return OperationRecord(**(arguments | more))


def counted(*operations: OperationRecord) -> OperationsRecord:
    return OperationsRecord(
        batch_size=4,
        axes={"events": 4},
        runs=(WorkRun(samples=4, axes={"events": 4}),),
        operations=operations,
    )


def projected(*operations: OperationRecord) -> Any:
    result = project(counted(*operations), SIMPLE)
    assert result is not None
    return result


def test_a_stage_waits_for_the_host_the_memory_or_the_arithmetic() -> None:
    # 10 views: issued in 10 s, nothing to do for the device.
    [stage] = projected(operation(10, launches=(0,))).stages
    assert (stage.time_s, stage.bound, stage.device_s) == (10.0, "host", 0.0)
    # 10 small kernels of 2 s: longer than issuing them, by the least time of a kernel.
    [stage] = projected(operation(10)).stages
    assert (stage.time_s, stage.host_s, stage.device_s) == (20.0, 10.0, 20.0)
    assert stage.bound == "bandwidth"
    # 5,000 bytes at 100 a second.
    [stage] = projected(operation(bytes_read=(4000,), bytes_written=(1000,))).stages
    assert (stage.time_s, stage.bound) == (50.0, "bandwidth")
    # 90,000 operations at 1,000 a second; a tenth of it in 16 bits.
    [stage] = projected(operation(flops=(90_000,))).stages
    assert (stage.time_s, stage.bound) == (90.0, "compute")
    [stage] = projected(operation(flops=(90_000,), dtype="bfloat16")).stages
    assert stage.time_s == 9.0


def test_a_sync_makes_the_host_wait() -> None:
    # Issue 1 s, work 2 s, then the host waits and reads: 12 s; and again.
    result = projected(operation(2, syncs=(2,)))
    assert result.step_s == pytest.approx(2 * 12)
    assert result.lost_syncs_s == pytest.approx(2 * 12 - 4)
    # The device runs ahead of nothing: of 8 launches without syncs it works from the first on.
    assert projected(operation(8)).step_s == 16.0


def test_lines_of_python_take_the_time_of_the_host() -> None:
    def lines(*python: PythonRecord) -> LinesRecord:
        return LinesRecord(batch_size=4, python=python)

    def of(stage: str, phase: Phase = "forward", **more: Any) -> PythonRecord:
        return PythonRecord(**{"phase": phase, "stage": stage, "grows": True, **more})

    seconds = 1 / LINE_S
    step = counted(operation(1), operation(1, phase="backward", stage="s"))
    bare = project(step, SIMPLE)
    # 7 s in a stage that has operations, 5 s in one that has none, 3 s in the loss; reading and
    # collating are no part of the step.
    known = lines(
        of("s", lines=7 * seconds),
        of("t", lines=5 * seconds, grows=False),
        of("loss", "loss", lines=3 * seconds),
        of("collate", "collate", lines=99 * seconds),
    )
    full = project(step, SIMPLE, known)
    assert bare is not None and full is not None
    assert [(s.phase, s.stage) for s in full.stages] == [
        *(("forward", "s"), ("forward", "t"), ("loss", "loss"), ("backward", "s"))
    ]
    assert full.step_s == pytest.approx(7 + 1 + 5 + 3 + 2)
    assert full.lost_python_s == pytest.approx(full.step_s - bare.step_s)
    assert full.loops_s == pytest.approx(7 + 3) and full.stages[0].loop_s == pytest.approx(7)
    assert [s.host_s for s in full.stages] == pytest.approx([8, 5, 3, 1])
    assert bare.lost_python_s == 0 and bare.stages[0].operations == full.stages[0].operations


def test_stages_overlap_where_the_device_is_behind() -> None:
    slow = operation(bytes_read=(5000,))
    views = operation(20, launches=(0,), stage="t")
    result = projected(slow, views)
    # 50 s of work, while the host issues 20 views: they cost nothing.
    assert result.step_s == 50.0
    assert [stage.time_s for stage in result.stages] == [50.0, 0.0]
    assert result.device_busy_s == 50.0


@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0, 5), st.booleans()), min_size=1, max_size=6)
)
def test_against_a_slow_twin_that_goes_call_by_call(stages: list[tuple[int, float, bool]]) -> None:
    device = replace(SIMPLE, kernel_s=1e-12)
    groups, host, ready = [], 0.0, 0.0
    longest = 0.0
    for calls, each, sync in stages:
        record = operation(calls)
        groups.append([Work(record, calls, calls, calls if sync else 0, calls * each * 100, 0.0)])
        for _ in range(calls):
            host += 1.0
            ready = max(ready, host) + each
            if sync:
                host = max(host, ready) + 10.0
        longest = max(longest, each + 1.0)
    # Within a stage calls are taken for even: the ends differ by no more than a call a stage.
    assert sum(_two_clocks(groups, device)) == pytest.approx(
        max(host, ready), abs=sum(c * 2.0 if s else e + 1.0 for c, e, s in stages) + longest
    )


# Extending counts.

RUNS = tuple(
    WorkRun(samples=n, axes={"events": n, "doms": d, "longest doms/event": longest})
    for n, d, longest in ((2, 7, 4), (3, 13, 6), (4, 15, 9), (6, 31, 8))
)
WHOLE = {"events": 100, "doms": 1700, "longest doms/event": 90}


def grown(size: Any, calls: Any = lambda axes: 1, **more: Any) -> Work:
    counts = tuple(calls(run.axes) for run in RUNS)
    growing = len(set(counts)) > 1
    record = operation(
        counts,
        launches=counts,
        elements=(0,) * 4,
        bytes_read=tuple(calls(run.axes) * size(run.axes) for run in RUNS),
        bytes_written=(0,) * 4,
        flops=tuple(2 * calls(run.axes) * size(run.axes) for run in RUNS),
        syncs=counts,
        growth=Growth(axis="doms", order=1, slope=1.0, intercept=0.0) if growing else None,
        **more,
    )
    operations = OperationsRecord(batch_size=100, axes=WHOLE, runs=RUNS, operations=(record,))
    return extended(record, operations)


@pytest.mark.parametrize(
    "size",
    [
        lambda axes: 64,
        lambda axes: 8 * axes["doms"],
        lambda axes: 128 + 16 * axes["doms"],
        lambda axes: 4 * axes["events"] * axes["longest doms/event"],
        lambda axes: 4 * axes["events"] * (axes["longest doms/event"] + 1),
        lambda axes: axes["doms"] * axes["doms"],
    ],
)
@pytest.mark.parametrize("calls", [lambda axes: 3, lambda axes: axes["doms"]])
def test_counts_are_extended_without_a_remainder(size: Any, calls: Any) -> None:
    work = grown(size, calls)
    assert work.fitted
    assert work.calls == work.syncs == work.launches == calls(WHOLE)
    assert work.bytes == pytest.approx(calls(WHOLE) * size(WHOLE), rel=1e-9)
    assert work.flops == pytest.approx(2 * calls(WHOLE) * size(WHOLE), rel=1e-9)


def test_a_rectangle_is_known_to_be_padded() -> None:
    work = grown(lambda axes: 4 * axes["events"] * (axes["longest doms/event"] + 1))
    assert work.useful == pytest.approx((1700 + 100) / (100 * 91))
    assert grown(lambda axes: 4 * axes["doms"]).useful is None


def test_what_follows_nothing_grows_as_the_samples_and_is_told() -> None:
    sizes = dict(zip((2, 3, 4, 6), (500, 100, 900, 300), strict=True))
    work = grown(lambda axes: sizes[axes["events"]])
    assert not work.fitted
    assert work.bytes == pytest.approx(300 * 100 / 6)


@pytest.mark.slow
def test_extended_from_small_batches_it_is_what_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The case's loop, extended from few events, beside the same batch counted whole."""
    monkeypatch.setattr("icediag.instruments.work.series.ENOUGH_LOAD", 10**9)
    made = icecube(
        n_events=12,
        batch_size=12,
        config=NetworkConfig(d_model=8, n_heads=1, n_layers=1),
        faults=("packing-loop",),
    )
    operations = record_operations(made)
    assert operations.runs[-1].samples == 12
    whole = project(operations, load_device("h100"))

    def first(runs: Any) -> Any:
        return runs[:-1]

    fewer = replace(
        operations,
        runs=first(operations.runs),
        operations=tuple(
            replace(
                o,
                **{
                    name: first(getattr(o, name))
                    for name in (
                        *("calls", "launches", "elements", "bytes_read", "bytes_written"),
                        *("flops", "syncs"),
                    )
                },
            )
            for o in operations.operations
        ),
    )
    part = project(fewer, load_device("h100"))
    assert whole is not None and part is not None
    assert part.extrapolated and not whole.extrapolated
    assert part.counted_at[-1] < 12 == whole.batch_size
    assert part.step_s == pytest.approx(whole.step_s, rel=0.02)
    assert part.loops_s == pytest.approx(whole.loops_s, rel=0.02)
    assert [line.location for line in part.lines] == [line.location for line in whole.lines]
    assert {line.location.line for line in whole.lines} == {33, 34, 35, 36, 37}
    doms = operations.axes["doms"]
    assert sum(line.syncs for line in whole.lines) == 2 * doms


def test_the_default_model_has_no_loops_and_the_overview_adds_up() -> None:
    made = icecube(n_events=8, batch_size=8, config=NetworkConfig(d_model=8, n_heads=1, n_layers=1))
    result = project(record_operations(made), load_device("h100"))
    assert result is not None
    assert result.lines == () and result.loops_s == 0.0
    assert sum(stage.time_s for stage in result.stages) == pytest.approx(result.step_s)
    assert result.step_s >= result.device_busy_s > 0


def test_nothing_counted_is_nothing_projected() -> None:
    assert project(OperationsRecord(batch_size=4), SIMPLE) is None


def test_the_overview_puts_both_side_by_side() -> None:
    clock = sample_clock()
    [row] = overview(clock)
    assert (row.name, row.median_s, row.spread_s, row.peak_bytes) == ("head", 0.375, 0.0625, 800)
    assert row.forward_s is None and row.bound is None
    back = operation(stage="head", phase="backward", bytes_read=(5000,))
    [row] = overview(clock, projected(operation(stage="head"), back))
    assert (row.forward_s, row.backward_s, row.bound) == (2.0, 50.0, "bandwidth")


@pytest.mark.slow
def test_the_case_at_256_events_is_within_twice_what_was_seen() -> None:
    """About 6 s a batch on an H100, of which its loops 4 to 5 s (the case's own report).

    That batch held about 20,000 DOMs; simulated events hit fewer, and a loop goes by DOMs.
    """
    made = icecube(n_events=256, batch_size=256, faults=("case",))
    operations = record_operations(made)
    assert operations.runs[-1].samples < 256
    result = project(operations, load_device("h100"))
    assert result is not None and result.extrapolated
    share = operations.axes["doms"] / 20_000
    assert 0.5 < share < 1.5
    assert 6 / 2 <= result.step_s / share <= 6 * 2
    assert 4.5 / 2 <= result.loops_s / share <= 4.5 * 2
    assert result.unfitted < 0.01


# Devices.


def test_devices_come_with_their_source() -> None:
    h100 = load_device("h100")
    assert (h100.bandwidth, h100.launch_s, h100.rate("float32")) == (3e12, 6e-6, 67e12)
    assert h100.rate("int64") == h100.rate("float32") and "3.35 TB/s" in h100.source
    assert load_device("a100").source and DEVICES.is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x", "cannot be read"),
        ("", "expected one device"),
        ("[x]\ntitle = 'x'", "x: no 'rates'"),
        ("[x]\nbandwidth = -1\n[x.rates]\nfloat32 = 1.0", "bandwidth: expected a number above 0"),
        ("[x]\nbandwidth = 1\n[x.rates]\nbfloat16 = 1.0", "no 'float32'"),
        ("x = 3", "x: "),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(IcediagError, match=words) as caught:
        load_device(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(IcediagError, match="expected h100, a100"):
        load_device("abacus")
    with pytest.raises(IcediagError, match=r"nothing.toml cannot be read"):
        load_device(str(tmp_path / "nothing.toml"))


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DEVICES.read_text().split("[a100]")[0].replace("[h100", "[mine"))
    mine = load_device(str(path))
    assert replace(mine, name="h100") == load_device("h100") and mine.name == "mine"
