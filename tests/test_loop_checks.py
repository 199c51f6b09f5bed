"""Loops and waits: found with line, axis and order where they hurt, silent where they do not."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from icediag import Pipeline
from icediag.checks import host_sync, judge, python_loop
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.model.network import NetworkConfig
from icediag.recording import Recording, Unjudged

CHECKS = (python_loop, host_sync)
NEEDS = {"lines", "operations", "projection"}
LENGTHS = (3, 1, 5, 2, 4, 2, 7, 4, 6, 9, 3, 8, 5, 2, 7, 6, 4, 3)
TINY = NetworkConfig(d_model=8, n_heads=2, n_layers=1)


def line_of(comment: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [found] = [i for i, text in enumerate(lines, 1) if text.endswith(f"# {comment}")]
    return found


Batch = dict[str, Tensor]


def collate(points: list[Tensor]) -> Batch:
    lengths = torch.tensor([len(p) for p in points])
    return {
        "points": torch.cat([p * 1.0 for p in points]),
        "lengths": lengths,
        "event": torch.repeat_interleave(torch.arange(len(points)), lengths),
        "padded": nn.utils.rnn.pad_sequence(points, batch_first=True),
    }


def pool(rows: Tensor, batch: Batch) -> Tensor:
    return rows.new_zeros(len(batch["lengths"]), 3).index_add(0, batch["event"], rows)


class Net(nn.Module):
    """Gives one number an event; how rows become events is passed in."""

    def __init__(self, handle: Callable[[Tensor, Batch], Any]) -> None:
        super().__init__()
        self.handle = handle
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.cell = nn.Linear(3, 3)

    def forward(self, batch: Batch) -> Tensor:
        rows = batch["points"]
        for layer in self.layers:
            rows = layer(rows)
        out: Tensor = self.handle(rows, batch)
        return out.sum(1)


def plain_loss(predicted: Tensor, batch: Batch) -> Tensor:
    return predicted.square().mean()


def made(handle: Callable[..., Any] = pool, **changes: Any) -> Pipeline:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    return Pipeline(
        **{
            "name": "ways",
            "dataset": [torch.rand(n, 3, generator=generator) for n in LENGTHS],
            "collate": collate,
            "model": Net(handle),
            "loss": plain_loss,
            "optimizer": lambda parameters: torch.optim.SGD(parameters, 0.1),
            "batch_size": len(LENGTHS),
            **changes,
        }
    )


def diagnosed(pipeline: Pipeline) -> Diagnosis:
    return judge(examine(pipeline, needs=NEEDS), CHECKS)


def loops_of(diagnosis: Diagnosis) -> list[Finding]:
    assert diagnosis.not_judged == ()
    return [finding for finding in diagnosis.findings if finding.code == "P01"]


def the_loop(diagnosis: Diagnosis, place: str, axis: str, order: int) -> Finding:
    [finding] = loops_of(diagnosis)
    assert finding.location is not None
    assert finding.location.file == "tests/test_loop_checks.py"
    assert finding.location.line == line_of(place)
    assert (finding.evidence["axis"], finding.evidence["order"]) == (axis, order)
    return finding


def by_mask(rows: Tensor, batch: Batch) -> Tensor:
    means = torch.zeros(len(batch["lengths"]), 3)
    for event in range(len(means)):  # by mask
        means[event] = rows[batch["event"] == event].mean(0)
    return means


def by_row(rows: Tensor, batch: Batch) -> Tensor:
    out = torch.zeros_like(batch["padded"])
    filled = [0] * len(out)
    for i in range(len(rows)):  # by row
        event = int(batch["event"][i].item())
        out[event, filled[event]] = rows[i]
        filled[event] += 1
    return out.sum(1)


def by_event_and_place(rows: Tensor, batch: Batch) -> Tensor:
    sums = []
    for event in batch["padded"]:  # by event
        total = rows[0] * 0
        for row in event:  # by place
            total = total + row
        sums.append(total)
    return torch.stack(sums)


def growing_join(rows: Tensor, batch: Batch) -> Tensor:
    joined = rows[:0]
    for part in torch.split(rows, batch["lengths"].tolist()):  # growing join
        joined = torch.cat([joined, part])
    return pool(joined, batch)


def along_time(rows: Tensor, batch: Batch) -> Tensor:
    state = rows[0] * 0
    for place in range(batch["padded"].shape[1]):  # along time
        state = torch.tanh(state + batch["padded"][:, place])
    return state


def test_a_mask_for_every_event_is_quadratic() -> None:
    finding = the_loop(diagnosed(made(by_mask)), "by mask", "batch", 2)
    assert finding.severity == "warning" and finding.stage == "by_mask"
    assert finding.evidence["rounds"] == len(LENGTHS)
    assert "n_points" in finding.evidence["work_axis"]
    assert "square of the batch" in finding.message
    assert "scatter_reduce" in finding.remedy


def test_a_row_at_a_time_is_linear() -> None:
    diagnosis = diagnosed(made(by_row))
    finding = the_loop(diagnosis, "by row", "n_points", 1)
    assert finding.severity == "warning"
    assert finding.evidence["rounds"] == sum(LENGTHS)
    assert finding.evidence["syncs"] == sum(LENGTHS)
    assert finding.evidence["lost_s"] > 0.5 * finding.evidence["step_s"]
    assert "advanced indexing" in finding.remedy and ".item()" in finding.remedy
    [wait] = [f for f in diagnosis.findings if f.code == "P02" and f.severity == "warning"]
    assert wait.location is not None and wait.location.line == line_of("by row") + 1
    assert wait.evidence["syncs"] == sum(LENGTHS) and wait.evidence["axis"] == "n_points"
    assert wait.evidence["in_loop"].endswith(f":{line_of('by row')}")


def test_a_rectangle_to_the_longest_is_not_quadratic() -> None:
    finding = the_loop(diagnosed(made(by_event_and_place)), "by place", "batch*n_padded_1", 1)
    assert finding.severity == "warning"
    assert f"inside of the one at line {line_of('by event')}," in finding.message


def test_joining_again_and_again_is_quadratic() -> None:
    finding = the_loop(diagnosed(made(growing_join)), "growing join", "batch", 2)
    assert finding.severity == "warning" and "list" in finding.remedy


def test_along_the_longest_sample_is_a_note() -> None:
    [finding] = loops_of(diagnosed(made(along_time)))
    assert finding.severity == "note" and finding.evidence["order"] == 0
    assert "recurrence" in finding.remedy


def test_in_the_loss_and_in_a_step_of_ones_own() -> None:
    def loss(predicted: Tensor, batch: Batch) -> Tensor:
        total = predicted.new_zeros(())
        for value in predicted:  # in the loss
            total = total + value.square()
        return total

    finding = the_loop(diagnosed(made(loss=loss)), "in the loss", "batch", 1)
    assert (finding.severity, finding.stage) == ("warning", "loss")

    def step(model: Any, batch: Batch, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        predicted = model(batch)
        value = plain_loss(predicted, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sum(float(p) for p in predicted)  # in the step
        return value

    diagnosis = diagnosed(made(train_step=step))
    finding = the_loop(diagnosis, "in the step", "batch", 1)
    assert finding.severity == "warning"
    [wait] = [f for f in diagnosis.findings if f.code == "P02"]
    assert wait.severity == "warning" and wait.evidence["syncs"] == len(LENGTHS)


def test_in_the_backward_pass() -> None:
    def hooked(rows: Tensor, batch: Batch) -> Tensor:
        out = rows * 1
        out.register_hook(per_row)  # type: ignore[no-untyped-call]
        return pool(out, batch)

    finding = the_loop(diagnosed(made(hooked)), "in a hook", "n_points", 1)
    assert finding.severity == "warning"


def per_row(gradient: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in gradient])  # in a hook


def collate_by_row(points: list[Tensor]) -> Batch:
    batch = collate(points)
    for i, event in enumerate(points):
        for j, row in enumerate(event):  # in collate
            batch["padded"][i, j] = row
    return batch


def collate_plain(points: list[Tensor]) -> Batch:
    seen = 0
    for event in points:
        for row in event.tolist():
            for value in row:
                seen += value > 0
    return collate(points)


def collate_plain_and_long(points: list[Tensor]) -> Batch:
    seen = 0
    for event in points:
        for row in event.tolist():  # plain and long
            for value in row * 200:
                seen += value > 0
    return collate(points)


def test_in_collate_by_cost() -> None:
    finding = the_loop(diagnosed(made(collate=collate_by_row)), "in collate", "n_points", 1)
    assert (finding.severity, finding.stage) == ("warning", "collate")
    # What takes some microseconds in a worker is no alarm.
    assert all(f.severity == "note" for f in loops_of(diagnosed(made(collate=collate_plain))))
    long = diagnosed(made(collate=collate_plain_and_long))
    assert the_loop(long, "plain and long", "n_points", 1).severity == "warning"


def collate_plain_and_longer(points: list[Tensor]) -> Batch:
    seen = 0
    for event in points:
        for row in event.tolist():
            for value in row * 2:
                seen += value > 0
    return collate(points)


def test_what_workers_may_hide_is_a_warning_where_there_are_none() -> None:
    loader = partial(DataLoader, made().dataset, num_workers=0)
    recording = examine(made(collate=collate_plain_and_longer, loader=loader), needs=NEEDS)
    assert recording.lines is not None and recording.lines.workers == 0
    severities = {}
    for workers in (None, 0, 2):
        lines = dataclasses.replace(recording.lines, workers=workers)
        [finding] = loops_of(judge(dataclasses.replace(recording, lines=lines), CHECKS))
        severities[workers] = finding.severity
        assert 0.1 < finding.evidence["projected_share"] < 0.5
        assert ("loader has no worker processes" in finding.message) == (workers == 0)
        assert "every step waits for it" in finding.message
    assert severities == {None: "note", 0: "warning", 2: "note"}


class Items:
    """A data set that writes its samples row by row."""

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, i: int) -> Tensor:
        out = torch.zeros(LENGTHS[i], 3)
        for k in range(LENGTHS[i]):  # in items
            out[k] = torch.ones(3) * k
        return out


def test_in_the_items_of_the_data_set() -> None:
    finding = the_loop(diagnosed(made(dataset=Items())), "in items", "n_points", 1)
    assert (finding.severity, finding.stage) == ("warning", "dataset item")
    # ones, times k, the row, and the copy into it
    assert finding.evidence["operations"] == 4 * sum(LENGTHS)


def over_layers(rows: Tensor, batch: Batch) -> Tensor:
    for _ in range(50):
        rows = rows * 0.5
    return pool(torch.stack([rows[:, i] for i in range(3)], 1), batch)


def names_of_events(rows: Tensor, batch: Batch) -> Tensor:
    names = [f"event {i}" for i in range(len(batch["lengths"]))]
    assert names
    return pool(rows, batch)


@pytest.mark.parametrize("handle", [pool, over_layers, names_of_events])
def test_what_costs_nothing_is_silent(handle: Callable[..., Any]) -> None:
    diagnosis = diagnosed(made(handle))
    assert diagnosis.findings == () and diagnosis.not_judged == ()


def test_one_read_a_step_is_no_alarm() -> None:
    def logging(predicted: Tensor, batch: Batch) -> Tensor:
        value = plain_loss(predicted, batch)
        assert value.item() >= 0  # logged
        return value

    [finding] = diagnosed(made(loss=logging)).findings
    assert (finding.code, finding.severity) == ("P02", "note")
    assert finding.location is not None and finding.location.line == line_of("logged")
    assert finding.evidence["syncs"] == 1


def test_many_reads_are_one_however_many_samples() -> None:
    def checking(rows: Tensor, batch: Batch) -> Tensor:
        for _ in range(40):
            assert bool(rows.isfinite().all())  # checked
        return pool(rows, batch)

    [finding] = diagnosed(made(checking)).findings
    assert (finding.code, finding.severity) == ("P02", "warning")
    assert finding.evidence["syncs"] == 40
    assert finding.location is not None and finding.location.line == line_of("checked")


@pytest.fixture(scope="module")
def case() -> Recording:
    slow = icecube(n_events=8, batch_size=8, config=TINY, faults=("case", "rank-loop"))
    return examine(slow, needs=NEEDS)


def test_the_case_with_line_axis_and_order(case: Recording) -> None:
    found = {f.stage: f for f in loops_of(judge(case, CHECKS))}
    assert set(found) == {"pack_one_by_one", "rank_dom_by_dom"}
    packing, rank = found["pack_one_by_one"], found["rank_dom_by_dom"]
    assert case.lines is not None
    for finding, order in ((packing, 1), (rank, 2)):
        assert (finding.evidence["axis"], finding.evidence["order"]) == ("doms", order)
        assert finding.evidence["rounds"] == case.lines.axes["doms"]
        assert finding.severity == "warning" and finding.location is not None
    assert rank.evidence["work_axis"] == "pulses*doms"
    waits = [f for f in judge(case, CHECKS).findings if f.code == "P02"]
    assert {f.stage for f in waits} == set(found)


def test_the_built_in_has_none() -> None:
    diagnosis = diagnosed(icecube(n_events=8, batch_size=8, config=TINY))
    assert diagnosis.findings == () and diagnosis.not_judged == ()


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_the_same_in_every_run(times: int) -> None:
    """Findings word for word, and every count that they come from."""
    needs = ("lines", "operations", "projection")
    runs = [examine(made(by_row), needs=needs) for _ in range(times)]
    assert all(run.lines == runs[0].lines for run in runs)
    assert all(run.operations == runs[0].operations for run in runs)
    texts = {judge(run, CHECKS).to_json() for run in runs}
    assert len(texts) == 1 and '"P01"' in texts.pop()


@pytest.mark.slow
def test_the_same_word_for_word_in_other_processes() -> None:
    code = (
        "from tests.test_loop_checks import *\n"
        "faults = 'case', 'rank-loop'\n"
        "print(diagnosed(icecube(n_events=6, batch_size=6, config=TINY, faults=faults)).to_json())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=Path(__file__).parents[1],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(texts) == 1 and texts.pop().count('"name": "python-loop"') == 2


def test_what_cannot_be_told_is_said() -> None:
    few = examine(made(dataset=[torch.rand(3, 3)], batch_size=1), needs=NEEDS)
    [reason] = [item for item in judge(few, CHECKS).not_judged if item.name == "python-loop"]
    assert "no growth" in reason.reason
    nothing = Recording(pipeline="p", batch_size=1)
    assert judge(nothing, CHECKS).findings == ()

    def fails(rows: Tensor, batch: Batch) -> Tensor:
        raise ValueError("no")

    assert all(isinstance(item, Unjudged) for item in diagnosed(made(fails)).not_judged)
