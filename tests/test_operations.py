"""Operations: costs against slow twins, places, growth, and nothing left behind."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from icediag import Pipeline
from icediag.icecube import pipeline as icecube
from icediag.instruments.work import record_operations
from icediag.instruments.work.costs import Cost, cost_of
from icediag.instruments.work.foresee import limits, next_size
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from icediag.records.work import OperationRecord, OperationsRecord, WorkRun
from tests.pipelines import deepsets, graphs, images, language, odd, sequences

TINY = NetworkConfig(d_model=8, n_heads=2, n_layers=1)


class Costs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.costs: list[Cost] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.costs.append(cost_of(func, args, kwargs or {}, out))
        return out


def costs_of(run: Callable[[], Any]) -> list[Cost]:
    seen = Costs()
    with seen:
        run()
    return seen.costs


def multiplications(*sizes: int) -> int:
    """Counted one by one."""
    return sum(1 for _ in itertools.product(*(range(size) for size in sizes)))


def test_flops_of_products_against_counting_them() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    [cost] = costs_of(lambda: a @ b)
    assert cost.flops == 2 * multiplications(3, 7, 5) > 0
    x, w = torch.ones(2, 3, 6, 5), torch.ones(4, 3, 3, 3)
    cost = sum_of(costs_of(lambda: nn.functional.conv2d(x, w)))
    assert cost.flops == 2 * multiplications(2, 4, 4, 3, 3, 3, 3) > 0
    matrix, vector = torch.ones(6, 4), torch.ones(4)
    assert sum_of(costs_of(lambda: matrix @ vector)).flops == 2 * multiplications(6, 4)
    assert sum_of(costs_of(lambda: vector @ vector)).flops == 2 * multiplications(4)


def test_flops_of_attention_and_its_backward_against_counting_them() -> None:
    q, k, v = (torch.randn(2, 3, n, 4, requires_grad=True) for n in (5, 7, 7))
    forward = sum_of(costs_of(lambda: nn.functional.scaled_dot_product_attention(q, k, v)))
    product = 2 * multiplications(2, 3, 5, 7, 4)
    assert forward.flops == 2 * product > 0
    out = nn.functional.scaled_dot_product_attention(q, k, v)
    backward = sum_of(costs_of(lambda: torch.autograd.backward(out.sum())))
    # Scores are computed again, then two products for each of the two of the way forward.
    assert backward.flops == 5 * product


def sum_of(costs: list[Cost]) -> Cost:
    total = Cost()
    for cost in costs:
        for name in ("launches", "elements", "bytes_read", "bytes_written", "flops", "syncs"):
            setattr(total, name, getattr(total, name) + getattr(cost, name))
    return total


def loose(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float32)


X, Y, ONE, TABLE = loose(6), loose(6), loose(1), loose(600).view(100, 6)
TWO_ROWS, ONE_ROW = torch.tensor([3, 4]), torch.tensor([3])

#: What is done, and by hand: elements read, of 4 bytes; of indices, of 8 bytes; written.
MOVES: list[tuple[Callable[[], Any], int, int, int]] = [
    (lambda: X + Y, 12, 0, 6),
    (lambda: X + ONE.expand(6), 7, 0, 6),
    (lambda: X.mul_(1), 6, 0, 6),
    (lambda: X.zero_(), 0, 0, 6),
    (lambda: X.copy_(Y), 6, 0, 6),
    (lambda: X.sum(), 6, 0, 1),
    (lambda: TABLE[TWO_ROWS], 12, 2, 12),
    (lambda: TABLE.index_select(0, TWO_ROWS), 12, 2, 12),
    (lambda: TABLE.index_copy_(0, ONE_ROW, Y.view(1, 6)), 6, 1, 6),
    (lambda: torch.cat([X, X]), 12, 0, 12),
    (lambda: X.view(2, 3).t()[1], 0, 0, 0),
    (lambda: torch.empty(9), 0, 0, 0),
]


@pytest.mark.parametrize("move", range(len(MOVES)))
def test_bytes_against_a_count_by_hand(move: int) -> None:
    run, read, indices, written = MOVES[move]
    cost = sum_of(costs_of(run))
    assert cost.bytes_read == 4 * read + 8 * indices
    assert cost.bytes_written == 4 * written
    assert cost.launches == (1 if written else 0)


def test_waits() -> None:
    x = loose(6)
    mask = x > 2
    waits: dict[str, Callable[[], Any]] = {
        "item": lambda: x[0].item(),
        "if": lambda: bool(x[0] > 1),
        "int": lambda: int(x[0]),
        "nonzero": lambda: x.nonzero(),
        "where": lambda: torch.where(mask),
        "mask": lambda: x[mask],
        "masked_select": lambda: x.masked_select(mask),
        "unique": lambda: torch.unique(x),
        "write": lambda: x.clone().__setitem__(mask, x[:3]),
        "repeat": lambda: torch.repeat_interleave(torch.ones(3, dtype=torch.long)),
        "bincount": lambda: torch.bincount(x.long()),
        "equal": lambda: torch.equal(x, x),
    }
    for name, run in waits.items():
        assert sum_of(costs_of(run)).syncs == 1, name
    free: dict[str, Callable[[], Any]] = {
        "fill": lambda: x.clone().__setitem__(mask, 0.0),
        "gather": lambda: x[torch.tensor([1, 2])],
        "add": lambda: x + x,
        "known": lambda: torch.repeat_interleave(torch.tensor([1, 2]), output_size=3),
        "scalar": lambda: torch.repeat_interleave(x, 2),
    }
    for name, run in free.items():
        assert sum_of(costs_of(run)).syncs == 0, name


class Fills(nn.Module):
    """Writes numbers and rows of one value by a mask: on a GPU the latter wait."""

    def forward(self, x: Tensor) -> Tensor:
        table = x.clone()
        table[table > 9] = 0.0  # a number
        first = torch.zeros(len(x), 3, dtype=torch.bool)
        first[0, 0] = True
        table[first] = x.sum()  # one value
        table[first] = x[0, :1]  # a row of one
        return table.sum(1)


def test_only_numbers_are_filled_in_without_waiting() -> None:
    record = record_operations(numbers(Fills(), dataset=[torch.randn(3, requires_grad=True)] * 4))
    waits = {line(row): row.syncs[-1] for row in rows(record, op="index_put", phase="forward")}
    assert waits == {line_of("a number"): 0, line_of("one value"): 1, line_of("a row of one"): 1}
    [kernels] = {row.launches[-1] for row in rows(record, op="index_put") if row.syncs[-1]}
    assert kernels == 4


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return 2 * x * gradient  # Square.backward


class Places(nn.Module):
    """Each of its operations on a line that is found by its comment."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)  # layer
        x = x.exp()  # exp
        table = torch.zeros_like(x)
        for row in range(x.shape[0]):
            table[row] = x[row]  # write
        table = Square.apply(table)  # type: ignore[no-untyped-call]
        rows = table.sum(1).tolist()  # read
        assert math.isfinite(sum(rows))
        out: Tensor = table.mean(1)
        return out


def line_of(comment: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [found] = [i for i, text in enumerate(lines, 1) if text.endswith(f"# {comment}")]
    return found


def numbers(model: nn.Module, n: int = 12, **more: Any) -> Pipeline:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "name": "numbers",
        "dataset": list(torch.randn(n, 3)),
        "collate": torch.stack,
        "model": model,
        "loss": lambda predicted, batch: predicted.square().mean(),
        "batch_size": n,
    }
    return Pipeline(**(arguments | more))


def line(row: OperationRecord) -> int | None:
    return row.location.line if row.location is not None else None


def rows(record: OperationsRecord, **wanted: Any) -> list[OperationRecord]:
    return [
        row
        for row in record.operations
        if all(getattr(row, name) == value for name, value in wanted.items())
    ]


@pytest.fixture(scope="module")
def places() -> OperationsRecord:
    return record_operations(numbers(Places(), optimizer=lambda p: torch.optim.Adam(p, 1e-3)))


def test_places_of_the_way_forward(places: OperationsRecord) -> None:
    assert places.not_judged == ()
    assert [run.samples for run in places.runs] == sorted(run.samples for run in places.runs)
    [addmm] = rows(places, op="addmm")
    assert (addmm.phase, addmm.stage, line(addmm)) == ("forward", "layer", line_of("layer"))
    assert addmm.location is not None and addmm.location.file == "tests/test_operations.py"
    assert addmm.flops == tuple(2 * run.samples * 9 for run in places.runs)
    [read] = rows(places, op="tolist")
    assert (line(read), set(read.syncs)) == (line_of("read"), {1})
    assert read.growth is None


def test_places_of_the_way_back(places: OperationsRecord) -> None:
    products = rows(places, phase="backward", op="mm")
    assert {(row.stage, line(row), row.node) for row in products} == {
        ("layer", line_of("layer"), "AddmmBackward0")
    }
    [product] = rows(places, phase="backward", node="ExpBackward0", op="mul")
    assert (product.stage, line(product)) == ("model", line_of("exp"))
    custom = rows(places, node="SquareBackward", op="mul")
    assert {line(row) for row in custom} == {line_of("Square.backward")}
    copies = rows(places, node="CopySlices", op="clone")
    assert {line(row) for row in copies} == {line_of("write")}


def test_a_row_written_in_place_copies_the_whole_table_on_the_way_back(
    places: OperationsRecord,
) -> None:
    copies = [row for row in rows(places, node="CopySlices", op="copy") if row.elements[-1]]
    [whole] = [row for row in copies if row.growth is not None]
    n = [run.samples for run in places.runs]
    assert whole.growth is not None
    assert (whole.growth.axis, whole.growth.exact) == ("batch", True)
    # Every row that is written copies all rows, and all but one copy themselves.
    assert whole.elements == tuple(3 * k * k + 3 * (k - 1) for k in n)


def test_the_optimizer_counts_one_step_as_on_a_gpu(places: OperationsRecord) -> None:
    steps = rows(places, phase="optimizer")
    assert steps and all(set(row.syncs) == {0} for row in steps)
    assert any(row.op.startswith("_foreach_") for row in steps)
    assert not any(row.op == "zeros_like" for row in steps)


def test_growth_of_the_loops_of_the_built_in_faults() -> None:
    made = icecube(
        n_events=12, batch_size=12, config=TINY, faults=("packing-loop", "rank-loop"), seed=3
    )
    record = record_operations(made)
    doms = tuple(run.axes["doms"] for run in record.runs)
    items = rows(record, op="_local_scalar_dense", stage="pack_one_by_one")
    # One reading of the longest, and two of each DOM.
    assert sorted(row.calls for row in items) == sorted([(1,) * len(doms), doms, doms])
    [masks] = rows(record, op="eq", stage="rank_dom_by_dom")
    assert masks.growth is not None
    assert (masks.growth.axis, masks.growth.slope, masks.growth.intercept) == ("doms", 1, 0)
    assert masks.elements == tuple(run.axes["doms"] * run.axes["pulses"] for run in record.runs)


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_grows_in_the_built_in_model(seed: int) -> None:
    record = record_operations(icecube(n_events=16, batch_size=16, config=TINY, seed=seed))
    # Every sample is read by itself.
    step = [row for row in record.operations if row.phase != "dataset item"]
    assert step and [row for row in step if row.growth is not None] == []
    assert sum(row.syncs[-1] for row in record.operations) == 0
    assert record.axes["batch" if "batch" in record.axes else "events"] == 16


def test_runs_are_identical_and_survive_being_saved() -> None:
    made = icecube(n_events=8, batch_size=8, config=TINY, faults=("case",))
    first, second = record_operations(made), record_operations(made)
    assert first == second
    recording = Recording(pipeline="p", batch_size=8, operations=first)
    assert Recording.from_json(recording.to_json()) == recording


@pytest.mark.parametrize("module", [deepsets, graphs, images, language, sequences])
def test_pipelines_of_others(module: Any) -> None:
    record = record_operations(module.pipeline())
    assert record.not_judged == ()
    assert {"forward", "backward"} <= {row.phase for row in record.operations}
    assert len(record.runs) >= 4


def test_what_is_done_twice_is_seen_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            a = (x * 3).exp()
            b = (x * 3).exp()
            noise = torch.rand(4) + torch.rand(4)
            c = x.round()
            x.add_(1)
            d = x.round()
            out: Tensor = (a + b + c + d).sum(1) + (self.layer(x) + noise).sum(1)
            return out

    record = record_operations(numbers(Twice()))
    assert record.not_judged == ()
    again = record.repeated
    assert {(repeated.op, repeated.times) for repeated in again} == {("mul", 1), ("exp", 1)}
    [mul] = [repeated for repeated in again if repeated.op == "mul"]
    assert mul.location is not None and mul.first is not None
    assert mul.first.line == mul.location.line - 1
    assert mul.bytes == 2 * 12 * 3 * 4


def test_what_fails_is_noted() -> None:
    record = record_operations(odd.on_numbers(odd.RaisesMidway()))
    assert record.operations == ()
    assert {note.name for note in record.not_judged} == {"forward"}
    assert "no light in this batch" in record.not_judged[0].reason


def test_it_leaves_everything_as_it_was() -> None:
    model = odd.Stateful()
    made = numbers(model, optimizer=lambda p: torch.optim.SGD(p, 0.1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    record_operations(made)
    assert torch.equal(state, torch.get_rng_state())
    assert model.calls == 0 and model.history == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_train_step_of_the_users_own() -> None:
    def train_step(model: nn.Module, batch: Tensor, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(batch).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    made = replace(
        numbers(Places()), train_step=train_step, optimizer=lambda p: torch.optim.SGD(p, 0.1)
    )
    record = record_operations(made)
    assert record.not_judged == ()
    phases = {row.phase for row in record.operations}
    assert {"forward", "step", "backward", "optimizer"} <= phases
    assert {row.phase for row in rows(record, op="addmm")} == {"forward"}


def test_an_optimizer_that_wants_a_closure_is_noted() -> None:
    record = record_operations(numbers(Places(), optimizer=lambda p: torch.optim.LBFGS(p)))
    assert [note.name for note in record.not_judged] == ["optimizer"]
    assert {"forward", "backward"} <= {row.phase for row in record.operations}


def counted(*rows: tuple[Any, ...], whole: int = 128) -> OperationsRecord:
    """Rows of (calls, bytes a call) by run, of 2, 4, 8 and 16 samples; each has twice the rows."""
    return OperationsRecord(
        batch_size=whole,
        axes={"events": whole, "rows": 2 * whole},
        runs=tuple(WorkRun(samples=n, axes={"events": n, "rows": 2 * n}) for n in (2, 4, 8, 16)),
        operations=tuple(
            OperationRecord(
                phase="forward",
                stage="s",
                op="add",
                calls=calls,
                launches=calls,
                elements=(0,) * 4,
                bytes_read=tuple(n * size for n, size in zip(calls, sizes, strict=True)),
                bytes_written=(0,) * 4,
                flops=(0,) * 4,
                syncs=(0,) * 4,
            )
            for calls, sizes in rows
        ),
    )


def test_the_whole_batch_is_counted_where_that_takes_little() -> None:
    flat = counted(((1,) * 4, (20, 40, 80, 160)))  # 10 bytes an event: 1,280 of all
    assert next_size(flat, limits(100, 1_280)) == 128
    assert next_size(flat, limits(100, 1_279)) is None
    square = counted(((1,) * 4, (4, 16, 64, 256)))  # 16,384
    assert next_size(square, limits(100, 17_000)) == 128
    assert next_size(square, limits(100, 16_000)) is None
    assert next_size(counted(((1,) * 4, (9,) * 4), whole=16), limits(9, 999)) is None


def test_what_follows_nothing_is_counted_on_a_batch_between_first() -> None:
    unknown = counted(((1,) * 4, (30, 10, 90, 50)))  # 400 as the samples grow, 3,200 as the square
    assert next_size(unknown, limits(100, 3_200)) == 128
    assert next_size(unknown, limits(100, 3_199)) == 64
    # Of 64 samples it may be 16 times as much.
    assert next_size(unknown, limits(100, 850)) == 64
    assert next_size(unknown, limits(100, 840)) is None
    assert next_size(counted(((1,) * 4, (30, 10, 90, 50)), whole=64), limits(9, 799)) is None


def test_a_recurrence_is_one_operation_each_way() -> None:
    """As on a GPU, whatever the length: a CPU does it step by step."""
    record = record_operations(sequences.pipeline())
    rows = [row for row in record.operations if row.op in ("gru", "lstm")]
    assert {row.phase for row in rows} == {"forward", "backward"}
    assert all(set(row.calls) == {1} and set(row.syncs) == {0} for row in rows)
    assert all(min(row.flops) > 0 and min(row.launches) > 1 for row in rows)
    # Nothing of it is left beside it.
    assert not any(row.op == "tanh" for row in record.operations)
