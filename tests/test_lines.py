"""Lines: every way to loop is counted, named with line and axis; what does not grow is not."""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.icecube import pipeline as icecube
from icediag.instruments.work import record_lines
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from icediag.records.work import LinesRecord, LoopRecord
from tests.pipelines import deepsets, graphs, images, language, odd, sequences

TINY = NetworkConfig(d_model=8, n_heads=2, n_layers=1)
LENGTHS = (3, 1, 5, 2, 4, 2, 7, 4, 6, 9)


def line_of(comment: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [found] = [i for i, text in enumerate(lines, 1) if text.endswith(f"# {comment}")]
    return found


def samples() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n, 3, generator=generator) for n in LENGTHS]


def collate(points: list[Tensor]) -> dict[str, Tensor]:
    lengths = torch.tensor([len(p) for p in points])  # natural
    return {
        "points": torch.cat(points),
        "lengths": lengths,
        "event": torch.repeat_interleave(torch.arange(len(points)), lengths),
    }


class Net(nn.Module):
    """Gives one number an event; the way in which its rows are handled is passed in."""

    def __init__(self, handle: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.handle = handle
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        rows = batch["points"]
        for layer in self.layers:
            rows = layer(rows)
        self.handle(rows, batch["lengths"])
        out = torch.zeros(len(batch["lengths"]), 3).index_add(0, batch["event"], rows)
        return out.sum(1)


def made(handle: Callable[[Tensor, Tensor], Any]) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="ways",
        dataset=samples(),
        collate=collate,
        model=Net(handle),
        loss=lambda predicted, batch: predicted.square().mean(),
        batch_size=len(LENGTHS),
    )


def plain_for(rows: Tensor, lengths: Tensor) -> float:
    total = 0.0
    for i in range(rows.shape[0]):  # plain for
        total += float(rows[i, 0])
    return total


def one_line_for(rows: Tensor, lengths: Tensor) -> list[Tensor]:
    out = []
    for row in rows: out.append(row)  # fmt: skip # noqa: E701, PERF402 # one line for
    return out


def while_loop(rows: Tensor, lengths: Tensor) -> int:
    i = 0
    while i < len(rows):  # while loop
        i += 1
    return i


def comprehension(rows: Tensor, lengths: Tensor) -> list[float]:
    return [float(value) for value in rows[:, 0]]  # comprehension


def long_comprehension(rows: Tensor, lengths: Tensor) -> dict[int, float]:
    return {  # long comprehension
        i: float(
            value,
        )
        for i, value in enumerate(rows[:, 0])
        if i >= 0
    }


def generator_expression(rows: Tensor, lengths: Tensor) -> float:
    return sum(float(value) for value in rows[:, 0])  # generator expression


def half(value: float) -> float:
    return value / 2


def mapped(rows: Tensor, lengths: Tensor) -> list[float]:
    return list(map(half, rows[:, 0].tolist()))  # mapped


def mapped_lambda(rows: Tensor, lengths: Tensor) -> list[float]:
    return list(map(lambda value: value / 2, rows[:, 0].tolist()))  # noqa: C417 # mapped lambda


def vectorized(rows: Tensor, lengths: Tensor) -> Any:
    return np.vectorize(half, otypes=[float])(rows[:, 0].detach().numpy())  # vectorized


def applied(rows: Tensor, lengths: Tensor) -> Any:
    frame = pd.DataFrame(rows.detach().numpy(), columns=["x", "y", "z"])
    return frame.apply(lambda row: row["x"] + row["y"], axis=1)  # applied


def iterated(rows: Tensor, lengths: Tensor) -> float:
    frame = pd.DataFrame(rows.detach().numpy(), columns=["x", "y", "z"])
    total = 0.0
    for _, row in frame.iterrows():  # iterated
        total += float(row["x"])
    return total


def keyed(rows: Tensor, lengths: Tensor) -> list[float]:
    return sorted(rows[:, 0].tolist(), key=lambda value: -value)  # keyed


def reduced(rows: Tensor, lengths: Tensor) -> float:
    return reduce(lambda a, b: a + b, rows[:, 0].tolist(), 0.0)  # reduced


def descend(values: list[float]) -> float:
    return values[0] + descend(values[1:]) if values else 0.0  # recursive


def recursive(rows: Tensor, lengths: Tensor) -> float:
    return descend(rows[:, 0].tolist())


def yielding(rows: Tensor) -> Iterator[float]:
    for value in rows[:, 0].tolist():  # noqa: UP028 # generated
        yield value


def generated(rows: Tensor, lengths: Tensor) -> list[float]:
    return list(yielding(rows))


def called(rows: Tensor, lengths: Tensor) -> float:
    total = 0.0
    for value in rows[:, 0].tolist():  # called
        total += layer_by_layer(value)
    return total


def layer_by_layer(value: float) -> float:
    for _ in range(4):
        value = half(value)
    return value


PULSES: list[tuple[Callable[[Tensor, Tensor], Any], str]] = [
    (plain_for, "for"),
    (one_line_for, "for"),
    (while_loop, "while"),
    (comprehension, "comprehension"),
    (long_comprehension, "comprehension"),
    (generator_expression, "comprehension"),
    (mapped, "call"),
    (mapped_lambda, "call"),
    (vectorized, "call"),
    (applied, "call"),
    (iterated, "for"),
    (keyed, "call"),
    (reduced, "call"),
    (recursive, "recursion"),
    (generated, "for"),
    (called, "for"),
]


def forward_loops(record: LinesRecord) -> list[LoopRecord]:
    assert record.not_judged == ()
    return [loop for loop in record.loops if loop.phase == "forward"]


@pytest.mark.parametrize(("way", "kind"), PULSES, ids=lambda way: getattr(way, "__name__", ""))
def test_every_way_to_loop_over_rows(way: Callable[..., Any], kind: str) -> None:
    record = record_lines(made(way))
    [loop] = forward_loops(record)
    assert loop.kind == kind
    assert loop.location.line == line_of(way.__name__.replace("_", " "))
    assert loop.location.file == "tests/test_lines.py"
    assert loop.growth.axis == "n_points"
    assert (loop.growth.order, loop.growth.slope, loop.growth.exact) == (1, 1.0, True)
    assert loop.counts == tuple(run.axes["n_points"] for run in record.runs)
    assert loop.inside is None


def by_event(rows: Tensor, lengths: Tensor) -> None:
    start = 0
    for n in lengths.tolist():  # by event
        rows[start : start + n].mean(0)
        start += n


def by_event_and_row(rows: Tensor, lengths: Tensor) -> float:
    total, start = 0.0, 0
    for n in lengths.tolist():  # outer
        for i in range(n):  # inner
            total += float(rows[start + i, 0])
        start += n
    return total


def pairs_of_rows(rows: Tensor, lengths: Tensor) -> int:
    n = 0
    for i in range(len(rows)):  # outer of pairs
        for j in range(len(rows)):  # inner of pairs
            n += i == j
    return n


def pairs_in_events(rows: Tensor, lengths: Tensor) -> int:
    return sum(  # pairs in events
        1 for n in lengths.tolist() for _ in range(n) for _ in range(n)
    )


def to_the_longest(rows: Tensor, lengths: Tensor) -> int:
    n = 0
    for _ in range(int(lengths.max())):  # to the longest
        n += 1
    return n


def test_over_events() -> None:
    [loop] = forward_loops(record_lines(made(by_event)))
    assert (loop.location.line, loop.growth.axis) == (line_of("by event"), "batch")
    assert (loop.growth.slope, loop.growth.intercept) == (1, 0)


def test_nested() -> None:
    outer, inner = forward_loops(record_lines(made(by_event_and_row)))
    assert (outer.location.line, outer.growth.axis) == (line_of("outer"), "batch")
    assert (inner.location.line, inner.growth.axis) == (line_of("inner"), "n_points")
    assert inner.inside == outer.location and outer.inside is None
    assert inner.entries == outer.counts


def test_quadratic_by_lines() -> None:
    outer, inner = forward_loops(record_lines(made(pairs_of_rows)))
    assert (outer.growth.axis, outer.growth.order) == ("n_points", 1)
    assert (inner.growth.axis, inner.growth.order) == ("n_points*n_points", 2)
    assert inner.location.line == line_of("inner of pairs")
    [within] = forward_loops(record_lines(made(pairs_in_events)))
    assert within.location.line == line_of("pairs in events")
    assert within.growth.order == 2 and "^2" in within.growth.axis


def test_over_the_longest() -> None:
    [loop] = forward_loops(record_lines(made(to_the_longest)))
    assert loop.location.line == line_of("to the longest")
    assert loop.growth.axis.startswith("longest")


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return rows * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = gradient.clone()
        for i in range(len(out)):  # in backward
            out[i] *= 2
        return out


def in_backward(rows: Tensor, lengths: Tensor) -> None:
    rows.add_(Slow.apply(rows.detach().requires_grad_()))  # type: ignore[no-untyped-call]


def hooked(rows: Tensor, lengths: Tensor) -> None:
    rows.register_hook(per_row)  # type: ignore[no-untyped-call]


def per_row(gradient: Tensor) -> None:
    for row in gradient:  # in hook
        assert row.shape == (3,)


def test_in_the_backward_pass() -> None:
    for way, place in ((in_backward, "in backward"), (hooked, "in hook")):
        record = record_lines(made(way))
        [loop] = [loop for loop in record.loops if loop.phase == "backward"]
        assert (loop.location.line, loop.growth.axis) == (line_of(place), "n_points")


def over_layers(rows: Tensor, lengths: Tensor) -> None:
    for _ in range(50):
        rows = rows * 0.5
    [rows[:, column] for column in range(3)]


def over_buckets(rows: Tensor, lengths: Tensor) -> None:
    # The number of buckets grows as the logarithm of the longest.
    for size in 2 ** torch.arange(int(lengths.max()).bit_length()):
        assert int(size) > 0


def by_different_length(rows: Tensor, lengths: Tensor) -> None:
    for n in torch.unique(lengths).tolist():
        assert n > 0


def vectorised(rows: Tensor, lengths: Tensor) -> None:
    event = torch.repeat_interleave(lengths)
    torch.zeros(len(lengths), 3).index_add(0, event, rows)


@pytest.mark.parametrize(
    "way",
    [over_layers, over_buckets, by_different_length, vectorised],
    ids=lambda way: way.__name__,
)
def test_what_does_not_grow_is_not_named(way: Callable[..., Any]) -> None:
    assert forward_loops(record_lines(made(way))) == []


def test_only_the_natural_loop_of_collate() -> None:
    record = record_lines(made(vectorised))
    [loop] = record.loops
    assert (loop.phase, loop.location.line) == ("collate", line_of("natural"))
    assert (loop.growth.axis, loop.growth.slope) == ("batch", 1)


class Items:
    """A data set that goes through the rows of each of its items."""

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, i: int) -> Tensor:
        return torch.tensor([[float(k), 0.0, 1.0] for k in range(LENGTHS[i])])  # in items


def test_in_the_items_of_the_data_set() -> None:
    model = Net(vectorised)
    loss: Any = lambda predicted, batch: predicted.square().mean()  # noqa: E731
    record = record_lines(
        Pipeline(
            name="items",
            dataset=Items(),
            collate=collate,
            model=model,
            loss=loss,
            batch_size=len(LENGTHS),
        )
    )
    [loop] = [loop for loop in record.loops if loop.phase == "dataset item"]
    assert (loop.location.line, loop.growth.axis) == (line_of("in items"), "n_points")
    [line] = [line for line in record.lines if line.phase == "dataset item"]
    # The comprehension's own line runs for every row, and twice for every item.
    assert line.location == loop.location
    assert line.counts == tuple(run.axes["n_points"] + 2 * run.samples for run in record.runs)


def test_in_the_loss() -> None:
    def loss(predicted: Tensor, batch: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for value in predicted:  # in the loss
            total = total + value.square()
        return total

    record = record_lines(
        Pipeline(
            name="loss",
            dataset=samples(),
            collate=collate,
            model=Net(vectorised),
            loss=loss,
            batch_size=len(LENGTHS),
        )
    )
    [loop] = [loop for loop in record.loops if loop.phase == "loss"]
    assert (loop.location.line, loop.growth.axis) == (line_of("in the loss"), "batch")
    assert loop.stage == "loss"


def test_the_built_in_faults_with_line_axis_and_stage() -> None:
    record = record_lines(
        icecube(n_events=12, batch_size=12, config=TINY, faults=("case", "rank-loop"))
    )
    packing, rank = sorted(forward_loops(record), key=lambda loop: loop.location.file)
    for loop, stage in ((packing, "pack_one_by_one"), (rank, "rank_dom_by_dom")):
        assert loop.stage == loop.function == stage
        assert loop.counts == tuple(run.axes["doms"] for run in record.runs)
        assert (loop.growth.axis, loop.growth.slope) == ("doms", 1)
    assert packing.text == "for row in range(doms.shape[0]):"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_none_in_the_built_in_model(seed: int) -> None:
    record = record_lines(icecube(n_events=16, batch_size=16, config=TINY, seed=seed))
    assert {loop.phase for loop in record.loops} == {"collate"}
    assert {loop.growth.axis for loop in record.loops} == {"events"}


@pytest.mark.parametrize("module", [deepsets, graphs, images, language, sequences])
def test_none_in_pipelines_of_others(module: Any) -> None:
    record = record_lines(module.pipeline())
    assert record.not_judged == ()
    assert {loop.phase for loop in record.loops} <= {"collate", "dataset item"}


def test_runs_are_identical_and_survive_being_saved() -> None:
    built = partial(icecube, n_events=8, batch_size=8, config=TINY, faults=("case",))
    first, second = record_lines(built()), record_lines(built())
    assert first == second
    recording = Recording(pipeline="p", batch_size=8, lines=first)
    assert Recording.from_json(recording.to_json()) == recording


def test_lines_by_stage_add_up_to_all_of_them() -> None:
    record = record_lines(made(plain_for))
    assert record.runs[-1].samples == record.batch_size == len(LENGTHS)
    for phase, executed in record.executed.items():
        here = [one for one in record.python if one.phase == phase]
        assert sum(one.lines for one in here) == executed[-1]
    forward = {one.grows: one.lines for one in record.python if one.phase == "forward"}
    rows = record.axes[forward_loops(record)[0].growth.axis]
    assert forward[True] >= 2 * rows and 0 < forward[False] < 20


def test_what_fails_is_noted() -> None:
    record = record_lines(odd.on_numbers(odd.RaisesMidway()))
    assert record.loops == ()
    assert "no light in this batch" in record.not_judged[0].reason
