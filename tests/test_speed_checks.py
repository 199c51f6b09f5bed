"""P20..P23: loading, collate, file access and memory; what fires and what stays silent."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import loader_bound, memory_growth, per_item_access, slow_collate
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.clock import record_clock
from icediag.model.network import NetworkConfig
from icediag.recording import Recording, Unjudged
from icediag.records.clock import ClockRecord, CollateClock, MemoryRecord, StageClock
from tests.clock_sample import sample_clock, sample_projection
from tests.pipelines import odd

SMALL = NetworkConfig(d_model=8, n_heads=1, n_layers=1)


def judged(check: ModuleType, recording: Recording) -> list[Finding]:
    answer = check.check(recording)
    assert not isinstance(answer, Unjudged), answer
    return list(answer)


def why(check: ModuleType, clock: ClockRecord) -> str:
    answer = check.check(Recording(pipeline="p", batch_size=1, clock=clock, projection=PROJECTED))
    assert isinstance(answer, Unjudged)
    return answer.reason


PROJECTED = dataclasses.replace(sample_projection(), batch_size=8, step_s=0.01)


def stage(kind: Any, *seconds: float) -> StageClock:
    names = {"item": "dataset item"}
    return StageClock(
        name=names.get(kind, kind), kind=kind, depth=0, calls=1, total_s=seconds, self_s=seconds
    )


def timed(item: float, collate: float, *, crowded: float = 1.0) -> Recording:
    """Of 4 samples; the projection is of 8, and 10 ms."""
    clock = ClockRecord(
        device="cpu",
        machine="m",
        timer="host clock",
        batch_size=4,
        wanted=8,
        # The slower repeat is that of a machine that was busy.
        stages=(stage("item", 9 * item, item), stage("collate", collate, 9 * collate)),
        yardstick_s=(0.005 * crowded,) * 3,
        yardstick_processor_s=(0.005,) * 3,
    )
    return Recording(pipeline="p", batch_size=8, clock=clock, projection=PROJECTED)


def test_loader_bound_by_the_workers_that_it_takes() -> None:
    # (80 + 10) ms for 4, twice that for 8: 18 workers for 10 ms.
    [finding] = judged(loader_bound, timed(0.08, 0.01))
    assert finding.evidence["workers"] == pytest.approx(18) and finding.severity == "warning"
    assert finding.stage == "dataset item" and "18 workers" in finding.message
    [finding] = judged(loader_bound, timed(0.01, 0.02))
    assert finding.severity == "note" and finding.stage == "collate"
    assert judged(loader_bound, timed(0.01, 0.009)) == []
    # 30 workers, but at 13,000 samples a second: the network is quick, not the data set slow.
    quick = dataclasses.replace(PROJECTED, batch_size=400, step_s=1e-3)
    small = dataclasses.replace(timed(2e-4, 1e-4), projection=quick)
    [finding] = judged(loader_bound, small)
    assert finding.evidence["workers"] > 16 and finding.severity == "note"


def test_loader_bound_allows_for_what_else_runs() -> None:
    # Of the same seconds, others took nine tenths.
    assert judged(loader_bound, timed(0.08, 0.01, crowded=10)) == []


def test_loader_bound_says_nothing_of_small_steps() -> None:
    tiny = dataclasses.replace(PROJECTED, step_s=1e-5)
    assert judged(loader_bound, dataclasses.replace(timed(1e-3, 1e-3), projection=tiny)) == []
    assert "no disk" in why(loader_bound, _without_steps())


def _without_steps() -> ClockRecord:
    return dataclasses.replace(
        sample_clock(), stages=(), collate=None, access=None, memory=None,
        missing={"steps": "no disk", "collate": "no disk", "access": "no disk"},
    )  # fmt: skip


def collated(collate: tuple[float, ...], joined: tuple[float, ...], step: float) -> Recording:
    clock = dataclasses.replace(
        sample_clock(),
        collate=CollateClock(
            samples=8, rows=80, bytes_in=1, bytes_out=1, collate_s=collate, joined_s=joined
        ),
        yardstick_s=(1.0,),
        yardstick_processor_s=(1.0,),
    )
    projection = dataclasses.replace(PROJECTED, step_s=step)
    return Recording(pipeline="p", batch_size=8, clock=clock, projection=projection)


def test_slow_collate_beside_joining_its_rows() -> None:
    slow = (0.05, 0.06, 0.05)
    fast = (0.001, 0.001, 0.001)
    [finding] = judged(slow_collate, collated(slow, fast, 0.01))
    assert (finding.severity, finding.stage) == ("warning", "collate")
    assert finding.evidence["lower_quartile"] == pytest.approx(50)
    [finding] = judged(slow_collate, collated(slow, fast, 0.2))
    assert finding.severity == "note"  # a worker hides it
    assert judged(slow_collate, collated(slow, fast, 2.0)) == []
    assert judged(slow_collate, collated(slow, (0.01,) * 3, 0.01)) == []


@pytest.mark.parametrize(
    ("collate", "joined"),
    [
        ((0.05, 0.05, 0.002), (0.001, 0.001, 0.001)),  # interrupted twice of three times
        ((0.05, 0.05, 0.05), (0.001, 0.02, 0.02)),  # joining is as slow
        ((0.004, 0.004, 0.004), (0.0001, 0.0001, 0.0001)),  # it does not matter
    ],
)
def test_slow_collate_does_not_flap(collate: Any, joined: Any) -> None:
    assert judged(slow_collate, collated(collate, joined, 0.001)) == []


def test_slow_collate_where_there_is_nothing_to_compare() -> None:
    assert "no disk" in why(slow_collate, _without_steps())


# File access, with files.


class Reads:
    """Samples out of one table."""

    def __init__(self, folder: Path, how: str) -> None:
        self.folder, self.how = folder, how
        rows = np.arange(400, dtype=np.float32).reshape(40, 10)
        pd.DataFrame(rows).to_csv(folder / "all.csv", index=False)
        pd.DataFrame(rows, columns=list("abcdefghij")).to_parquet(folder / "all.parquet")
        for i, row in enumerate(rows):
            np.save(folder / f"{i}.npy", row)
        self.table = pd.DataFrame(rows)
        self.rows = torch.from_numpy(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Tensor:
        if self.how == "opened each time":
            return torch.tensor(pd.read_csv(self.folder / "all.csv").to_numpy()[i]).float()
        if self.how == "opened in C":  # by pyarrow, which Python does not see
            return torch.tensor(pd.read_parquet(self.folder / "all.parquet").to_numpy()[i])
        if self.how == "a file each":
            return torch.from_numpy(np.load(self.folder / f"{i}.npy"))
        if self.how == "cut":
            few = self.table.iloc[i : i + 1]
            return torch.tensor(few.to_numpy()[0])
        return self.rows[i]


class ReadsBatches(Reads):
    """Opens once for all."""

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        whole = torch.tensor(pd.read_csv(self.folder / "all.csv").to_numpy()).float()
        return [whole[i] for i in indices]


class ReadsOneByOne(Reads):
    """Takes indices together, and reads one by one."""

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [self[i] for i in indices]


def read(dataset: Any) -> Recording:
    made = odd.on_numbers(nn.Linear(10, 1), dataset=dataset)
    made = dataclasses.replace(made, sources=("tests.test_speed_checks",))
    clock = record_clock(made, repeats=1, budget_s=0.1)
    return Recording(pipeline="p", batch_size=4, clock=clock, projection=PROJECTED)


@pytest.mark.parametrize("kind", [Reads, ReadsOneByOne])
def test_a_file_that_is_opened_for_every_sample(tmp_path: Path, kind: type[Reads]) -> None:
    [finding] = judged(per_item_access, read(kind(tmp_path, "opened each time")))
    assert (finding.code, finding.severity, finding.stage) == ("P22", "warning", "dataset item")
    assert finding.evidence["file"] == "all.csv"
    assert finding.evidence["opens"] == finding.evidence["samples"]
    assert str(tmp_path) not in finding.message
    assert finding.location is not None and finding.location.file == "tests/test_speed_checks.py"


@pytest.mark.parametrize("kind", [Reads, ReadsOneByOne])
def test_so_is_a_file_that_a_library_opens_in_c(tmp_path: Path, kind: type[Reads]) -> None:
    [finding] = judged(per_item_access, read(kind(tmp_path, "opened in C")))
    assert finding.severity == "warning" and finding.evidence["file"] == "all.parquet"
    assert finding.evidence["opens"] == finding.evidence["samples"]


@pytest.mark.parametrize("kind", [Reads, ReadsOneByOne])
def test_a_table_that_is_cut_for_every_sample_is_worth_knowing(
    tmp_path: Path, kind: type[Reads]
) -> None:
    [finding] = judged(per_item_access, read(kind(tmp_path, "cut")))
    assert finding.severity == "note" and "pandas.DataFrame" in finding.message


@pytest.mark.parametrize("how", ["a file each", "from memory"])
def test_files_of_their_own_and_arrays_are_in_order(tmp_path: Path, how: str) -> None:
    assert judged(per_item_access, read(Reads(tmp_path, how))) == []


def test_what_is_read_together_is_in_order(tmp_path: Path) -> None:
    assert judged(per_item_access, read(ReadsBatches(tmp_path, "opened each time"))) == []


def test_the_case_cuts_a_table_for_every_event() -> None:
    made = icecube(n_events=20, batch_size=20, config=SMALL, faults=("per-event-slicing",))
    clock = record_clock(made, repeats=1, budget_s=0.1)
    [finding] = judged(per_item_access, Recording(pipeline="p", batch_size=20, clock=clock))
    assert finding.severity == "note" and "pyarrow.Table" in finding.message
    assert finding.evidence["batched"]


def test_what_has_no_index_is_not_judged() -> None:
    assert why(per_item_access, _without_steps()) == "no disk"
    clock = dataclasses.replace(_without_steps(), missing={})
    assert "not read by index" in why(per_item_access, clock)


# Memory.


class Keeps(nn.Module):
    """Keeps something of every step."""

    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.history: list[Any] = []
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        self.history.append(self.what(out))
        return out


class KeepsSome(Keeps):
    """At most two."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        del self.history[:-2]
        return out


def remembered(model: nn.Module, **more: Any) -> Recording:
    made: Pipeline = odd.on_numbers(model, **more)
    clock = record_clock(made, repeats=1, budget_s=0.1)
    return Recording(pipeline="p", batch_size=4, clock=clock)


def test_a_graph_that_is_kept() -> None:
    [finding] = judged(memory_growth, remembered(Keeps(lambda out: out.sum())))
    assert (finding.code, finding.severity) == ("P23", "warning")
    assert finding.evidence["graphs_a_step"] >= 1 and finding.evidence["attribute"] == "history"
    assert "loss.detach()" in finding.remedy
    assert finding.location is not None and finding.location.file == "tests/test_speed_checks.py"


def test_a_number_that_is_kept_is_worth_knowing() -> None:
    [finding] = judged(memory_growth, remembered(Keeps(lambda out: float(out.sum()))))
    assert finding.severity == "note" and finding.evidence["bytes_a_step"] == 0


@pytest.mark.parametrize("model", [nn.Linear(3, 2), KeepsSome(lambda out: out.sum())])
def test_what_does_not_grow_is_in_order(model: nn.Module) -> None:
    assert judged(memory_growth, remembered(model)) == []


def test_a_history_of_steps_ends_and_is_not_judged() -> None:
    recording = remembered(
        nn.Linear(3, 2), optimizer=lambda parameters: torch.optim.LBFGS(parameters, lr=0.01)
    )
    answer = memory_growth.check(recording)
    assert isinstance(answer, Unjudged) and "LBFGS" in answer.reason


@pytest.mark.parametrize(
    ("left", "graphs", "severity"),
    [
        ((8192, 16384, 24576), (0, 0, 0), "warning"),
        ((8, 16, 24), (0, 0, 0), "note"),
        ((8192, 8192, 8192), (0, 0, 0), None),
        ((8192, 0, 8192), (0, 0, 0), None),
        ((0, 0, 0), (1, 2, 3), "warning"),
    ],
)
def test_only_what_every_step_adds_counts(
    left: tuple[int, ...], graphs: tuple[int, ...], severity: str | None
) -> None:
    memory = MemoryRecord(
        batch_size=4, peak_bytes=9, left_bytes=left, left_tensors=graphs, left_graphs=graphs
    )
    clock = dataclasses.replace(sample_clock(), memory=memory)
    found = judged(memory_growth, Recording(pipeline="p", batch_size=4, clock=clock))
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert "no disk" in why(memory_growth, _without_steps())


def test_all_are_silent_on_the_default() -> None:
    made = icecube(n_events=12, batch_size=12, config=SMALL)
    clock = record_clock(made, repeats=3, budget_s=0.5)
    recording = Recording(pipeline="p", batch_size=12, clock=clock, projection=PROJECTED)
    for check in (slow_collate, per_item_access, memory_growth):
        assert judged(check, recording) == []
