"""The clock: exact by a clock that only moves when it is told to, and nothing is left changed."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icediag.icecube import pipeline as icecube
from icediag.instruments.clock import record_clock
from icediag.instruments.clock.join import measure_collate
from icediag.instruments.clock.loader import measure_loaders
from icediag.instruments.clock.memory import Change, _Peaks, replay
from icediag.instruments.clock.spans import EventTimer, HostTimer, Spans
from icediag.instruments.clock.step import Stepper
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from icediag.records.clock import ClockRecord, StageClock, middle, spread
from tests import clockwork
from tests.clockwork import HANDS
from tests.pipelines import deepsets, graphs, images, language, odd, sequences

SMALL = NetworkConfig(d_model=8, n_heads=1, n_layers=1)


def by_hand(pipeline: Any, **more: Any) -> ClockRecord:
    arguments: dict[str, Any] = {"repeats": 2, "budget_s": 1e9, "clock": HANDS, "processor": HANDS}
    return record_clock(pipeline, **(arguments | more))


def stage(record: ClockRecord, name: str) -> StageClock:
    [found] = [stage for stage in record.stages if stage.name == name]
    return found


def test_every_stage_has_its_own_time_and_that_of_what_is_inside() -> None:
    record = by_hand(clockwork.pipeline(8))
    assert record.missing == {}
    assert {s.name: (s.kind, s.depth, s.total_s[0], s.self_s[0]) for s in record.stages} == {
        "dataset item": ("item", 0, 8.0, 8.0),
        "collate": ("collate", 0, 0.25, 0.25),
        "transfer": ("transfer", 0, 0.0, 0.0),
        "model": ("module", 0, 96.0, 32.0),
        "first": ("module", 1, 16.0, 16.0),
        "first.layer": ("module", 2, 0.0, 0.0),
        "second": ("module", 1, 32.0, 32.0),
        "second.layer": ("module", 2, 0.0, 0.0),
        "bounded": ("function", 1, 16.0, 16.0),
        "loss": ("loss", 0, 0.5, 0.5),
        "backward": ("backward", 0, 64.0, 64.0),
        "optimizer": ("optimizer", 0, 128.0, 128.0),
    }
    whole = 8 + 0.25 + 96 + 0.5 + 64 + 128
    assert record.step_s == record.marked_s == record.processor_s == (whole, whole)
    assert record.other_s == (0.0, 0.0) and record.overhead == 1.0
    assert (record.batch_size, record.wanted, record.optimizer) == (8, 8, "Momentum")
    assert record.fetch_s == 8.25 and not record.own_step
    place = stage(record, "bounded").location
    assert place is not None and place.file == "tests/clockwork.py"
    assert place.line == clockwork.bounded.__code__.co_firstlineno


def test_the_users_own_step_is_timed_as_it_is() -> None:
    record = by_hand(clockwork.pipeline(4, train_step=clockwork.take_step))
    assert record.own_step and record.missing == {}
    assert stage(record, "clip").kind == "clip" and stage(record, "clip").calls == 1
    assert stage(record, "backward").total_s == (64.0, 64.0)
    assert stage(record, "mean").self_s == (0.5, 0.5)
    assert record.other_s == (256.0, 256.0)
    assert torch.nn.utils.clip_grad_norm_ is torch.nn.utils.clip_grad.clip_grad_norm_
    assert not hasattr(torch.nn.utils.clip_grad_norm_, "__wrapped__") or (
        torch.nn.utils.clip_grad_norm_.__module__ == "torch.nn.utils.clip_grad"
    )


@pytest.mark.parametrize("power", [1, 2])
def test_too_long_a_step_is_taken_on_fewer_samples(power: int) -> None:
    # A row takes 7 s and more in a step; the budget is for 8 steps.
    record = by_hand(clockwork.pipeline(64, power), budget_s=8 * 1000.0)
    assert record.wanted == 64
    took = record.step_s[0]
    assert took < 1000 and record.batch_size in (8, 16, 32)
    assert stage(record, "dataset item").total_s[0] == record.batch_size
    again = by_hand(clockwork.pipeline(64, power), budget_s=8 * 1e9)
    assert again.batch_size == 64


def test_repeats_end_with_the_budget_but_one_is_taken() -> None:
    record = by_hand(clockwork.pipeline(1), repeats=50, budget_s=1.0)
    assert len(record.step_s) == 1
    assert len(by_hand(clockwork.pipeline(1), repeats=9).step_s) == 9


def test_rounds_are_apart_and_of_a_size_that_is_asked_for() -> None:
    record = by_hand(clockwork.pipeline(8), repeats=3, rounds=2, size=4)
    assert record.rounds == (2, 2) and record.batch_size == 4 and record.wanted == 8
    assert len(record.step_s) == len(stage(record, "model").total_s) == 4
    assert len(set(record.step_s)) == 1 and len(record.yardstick_s) == 4
    # A size is taken whatever it costs.
    assert by_hand(clockwork.pipeline(8), budget_s=1.0, size=99).batch_size == 8


class FakeEvent:
    """Counts milliseconds by the number of events before it."""

    made = 0
    waited = 0

    def record(self) -> None:
        FakeEvent.made += 1
        self.at = FakeEvent.made

    def elapsed_time(self, other: "FakeEvent") -> float:
        assert FakeEvent.waited, "an event was read before the device was done"
        return float(other.at - self.at)


def test_events_of_a_device_are_read_after_it_is_done() -> None:
    FakeEvent.made = FakeEvent.waited = 0

    def synchronize() -> None:
        FakeEvent.waited += 1

    spans = Spans(EventTimer(FakeEvent, synchronize))
    with spans.span("outer", "module"):
        for _ in range(2):
            with spans.span("inner", "module"):
                pass
    # Events 1 (2 3) (4 5) 6.
    times: Any = spans.times()
    assert times == {
        ("outer",): (pytest.approx(5e-3), pytest.approx(3e-3)),
        ("outer", "inner"): (pytest.approx(2e-3), pytest.approx(2e-3)),
    }
    assert FakeEvent.waited == 1


def test_a_stage_that_raises_is_closed() -> None:
    spans = Spans(EventTimer(FakeEvent, lambda: None))

    def fails() -> None:
        with spans.span("outer", "module"):
            spans.begin("left open", "module")
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fails()
    assert spans.innermost == ()


def snapshot(model: Any) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [(id(t), t._version, t.detach().clone(), t.grad) for t in tensors],
        [(name, id(value)) for m in model.modules() for name, value in vars(m).items()],
        [m.training for m in model.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(legacy=True)[1],  # type: ignore[index]  # noqa: NPY002
        torch.autograd.backward,
        torch.nn.utils.clip_grad_norm_,
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


class Raises(nn.Module):
    """Goes well a few times, then not."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("no more")
        out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize(
    "make",
    [
        deepsets.pipeline,
        graphs.pipeline,
        images.pipeline,
        language.pipeline,
        sequences.pipeline,
        lambda: odd.on_numbers(odd.OwnTrain()),
        lambda: odd.on_numbers(odd.NoParameters()),
        lambda: odd.on_numbers(odd.Checkpointed()),
        lambda: odd.on_numbers(odd.Stateful()),
        lambda: odd.on_numbers(odd.Forces()),
        lambda: odd.on_numbers(odd.Lazy(), optimizer=torch.optim.Adam),
        lambda: odd.on_numbers(odd.FrozenNorm(), optimizer=torch.optim.LBFGS),
        lambda: odd.on_numbers(Raises(0)),
        lambda: odd.on_numbers(Raises(2)),
        lambda: odd.on_numbers(Raises(5)),
        lambda: icecube(n_events=4, batch_size=4, config=SMALL),
    ],
)
def test_everything_is_left_as_it_was_found(make: Any) -> None:
    pipeline = make()
    before = snapshot(pipeline.model) if not isinstance(pipeline.model, odd.Lazy) else []
    record = record_clock(pipeline, repeats=1, budget_s=0.0)
    if before:
        after = snapshot(pipeline.model)
        # Version counters of weights that moved and were restored are past what they were.
        moved = [[(i, value, grad) for i, _, value, grad in part[0]] for part in (before, after)]
        assert same(*moved)
        assert same(before[1:], after[1:])
    raises = isinstance(pipeline.model, Raises)
    assert ("steps" in record.missing or "memory" in record.missing) == raises
    if raises:
        reasons = " ".join(record.missing.values())
        assert "RuntimeError at tests/test_clock.py" in reasons and "no more" in reasons
    else:
        assert record.stages and record.memory is not None, record.missing
        assert len(record.step_s) == 1
    # It goes through a file.
    whole = Recording(pipeline="p", batch_size=1, clock=record)
    assert Recording.from_json(whole.to_json()) == whole


def test_lbfgs_takes_its_closure() -> None:
    record = record_clock(odd.on_numbers(nn.Linear(3, 1), optimizer=torch.optim.LBFGS), repeats=1)
    assert "steps" not in record.missing and record.optimizer == "LBFGS"
    paths = [(s.name, s.depth) for s in record.stages if s.kind in ("optimizer", "backward")]
    assert paths == [("optimizer", 0), ("backward", 1)]


def test_what_checkpointing_runs_again_belongs_to_backward() -> None:
    record = record_clock(odd.on_numbers(odd.Checkpointed()), repeats=1)
    assert [s.calls for s in record.stages if s.name == "inner"] == [1]
    assert [s.name for s in record.stages if s.depth == 0][-1] == "backward"


# Memory.


def test_memory_by_stage_is_that_of_the_tensors() -> None:
    pipeline = odd.on_numbers(
        nn.Sequential(nn.Linear(3, 50), nn.Identity(), nn.Linear(50, 1)),
        dataset=list(torch.randn(100, 3)),
        batch_size=100,
    )
    memory = record_clock(pipeline, repeats=1).memory
    assert memory is not None and memory.batch_size == 100
    kept = {stage.name: stage.kept_bytes for stage in memory.stages}
    # 100 rows of 50 and of 1 floats; an identity makes nothing.
    assert (kept["0"], kept["1"], kept["2"], kept["loss"]) == (20_000, 0, 400, 4)
    assert kept["model"] == 20_400
    # On the way back the gradients of both weights and biases stay, hidden values go.
    gradients = 4 * (150 + 50 + 50 + 1)
    assert kept["backward"] == gradients - 20_000
    assert memory.left_bytes == memory.left_tensors == memory.left_graphs == (0, 0, 0)
    assert memory.peak_bytes >= 40_000


def test_peaks_of_an_allocator_that_keeps_its_own() -> None:
    level = peak = 100

    def allocate(n: int) -> None:
        nonlocal level, peak
        level += n
        peak = max(peak, level)

    def reset() -> None:
        nonlocal peak
        peak = level

    peaks = _Peaks(lambda: level, lambda: peak, reset)
    spans = Spans(HostTimer(lambda: 0.0), (peaks,))
    with spans.span("outer", "module"):
        allocate(10)
        with spans.span("inner", "module"):
            allocate(50)
            allocate(-45)
        allocate(20)
        allocate(-20)
    allocate(-3)
    peaks.close()
    left, stages = replay(peaks.changes)
    assert left == 12
    assert [(s.name, s.peak_bytes, s.kept_bytes) for s in stages] == [
        ("outer", 60, 15),
        ("inner", 60, 5),
    ]


def test_replay_against_a_slow_twin() -> None:
    generator = random.Random(0)
    for _ in range(200):
        changes: list[Change] = []
        levels: list[tuple[tuple[str, ...], ...]] = []
        opened: list[tuple[str, ...]] = []
        for at in range(30):
            kind = generator.random()
            if kind < 0.2:
                path = (*(opened[-1] if opened else ()), generator.choice("ab"))
                opened.append(path)
                changes.append(Change(at, path=path, begins=True))
            elif kind < 0.4 and opened:
                changes.append(Change(at, path=opened.pop()))
            else:
                changes.append(Change(at, by=generator.randint(-3, 5)))
            levels.append(tuple(opened))
        changes += [Change(30 + i, path=path) for i, path in enumerate(reversed(opened))]
        bytes_left, stages = replay(generator.sample(changes, len(changes)))
        assert bytes_left == sum(change.by for change in changes)
        first = next((i for i, c in enumerate(changes) if c.begins), len(changes))
        running = [sum(c.by for c in changes[: i + 1]) for i in range(len(changes))]
        for seen in stages:
            inside = [
                running[i]
                for i in range(first, 30)
                if any(path[-1] == seen.name and len(path) - 1 == seen.depth for path in levels[i])
            ]
            if seen.depth == 0 and len({s.name for s in stages if s.depth == 0}) == 1:
                assert seen.peak_bytes == max(0, max(inside, default=0) - running[first])
        assert sum(s.kept_bytes for s in stages if s.depth == 0) <= sum(
            max(0, c.by) for c in changes
        )


class Keeps(nn.Module):
    """Keeps its hidden values, with their graph."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 64)
        self.history: list[Tensor] = []
        self.names: dict[int, str] = {}
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.layer(x)
        self.history.append(hidden.detach().clone() if self.detached else hidden)
        self.names[0] = "always the same"
        return hidden


@pytest.mark.parametrize("detached", [False, True])
def test_memory_that_grows_is_counted_exactly(detached: bool) -> None:
    model = Keeps(detached)
    memory = record_clock(odd.on_numbers(model), repeats=1).memory
    assert memory is not None
    grown = 4 * 64 * 4
    assert memory.left_bytes == (grown, 2 * grown, 3 * grown)
    assert memory.left_tensors == (1, 2, 3)
    assert memory.left_graphs == ((0, 0, 0) if detached else (1, 2, 3))
    [place] = memory.growing
    assert (place.stage, place.attribute, place.per_step) == ("model", "history", 1)
    assert place.location is not None
    assert place.location.line == Keeps.forward.__code__.co_firstlineno
    assert model.history == []


def test_the_profiler_says_nothing_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        sys.stderr.write("the user's own words\n")
        out: Tensor = model(batch)
        return out

    record_clock(odd.on_numbers(nn.Linear(3, 1), forward=forward), repeats=1, budget_s=0)
    err = capfd.readouterr().err
    assert set(err.splitlines()) == {"the user's own words"}


# Loading.


def test_collate_beside_joining_the_same_rows() -> None:
    record = by_hand(clockwork.pipeline(8)).collate
    assert record is not None
    assert (record.samples, record.rows, record.bytes_in, record.bytes_out) == (8, 8, 96, 96)
    assert record.collate_s == (0.25, 0.25, 0.25) and record.joined_s == (0.0, 0.0, 0.0)
    assert record.ratios == ()
    assert record.location is not None and record.location.file == "tests/clockwork.py"
    ragged = record_clock(icecube(n_events=4, batch_size=4, config=SMALL), repeats=1).collate
    assert ragged is not None and all(ratio > 0 for ratio in ragged.ratios)


def test_waiting_for_a_loader() -> None:
    pipeline = clockwork.pipeline(24)
    loader = torch.utils.data.DataLoader(
        pipeline.dataset, batch_size=4, collate_fn=pipeline.collate
    )
    own = clockwork.pipeline(24, loader=lambda: loader)
    [seen] = by_hand(own, repeats=1).loader
    # 4 samples of 1 s and a collate; a step of 4 rows without reading.
    assert (seen.own, seen.workers) == (True, 0)
    assert seen.wait_s == (4.25,) * 4
    assert seen.step_s == (32 + 4 * 6 + 16 + 0.5 + 64 + 128,) * 4
    assert seen.waiting == pytest.approx(4.25 / (4.25 + 264.5))
    [plain] = by_hand(pipeline, workers=(0,), batch_size=6, repeats=1).loader
    assert (plain.own, plain.workers, plain.wait_s) == (False, 0, (6.25, 6.25))


def test_slow_batches_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = clockwork.pipeline(24)
    stepper = Stepper(pipeline, [], [], torch.device("cpu"))
    missing: dict[str, str] = {}
    # A batch of 3 takes 3.25 s, the step on it some 258 s; the first of them is left out.
    for enough, kept in ((1e9, 6), (1000.0, 2), (0.0, 1)):
        [seen] = measure_loaders(stepper, 3, (0,), HANDS, missing, enough)
        assert len(seen.wait_s) == kept
    assert missing == {}
    for enough, taken in ((1e9, 9), (30.0, 4), (0.0, 3)):
        timed = measure_collate(stepper, 8, 9, HANDS, enough)
        assert timed is not None and len(timed.collate_s) == taken


def test_a_loader_that_fails_says_why() -> None:
    def fails() -> Any:
        raise OSError("no such disk")

    record = by_hand(clockwork.pipeline(2, loader=fails))
    assert record.loader == () and "no such disk" in record.missing["own loader"]


def test_loaders_with_workers_run() -> None:
    record = record_clock(deepsets.pipeline(), batch_size=2, repeats=1, workers=(0, 1))
    assert [seen.workers for seen in record.loader] == [0, 1], record.missing
    assert all(len(seen.wait_s) == 2 for seen in record.loader)


def test_an_iterable_data_set_is_read_again_and_a_one_shot_one_is_not() -> None:
    stream = odd.on_numbers(nn.Linear(3, 1), dataset=iter(list(torch.randn(4, 3))))
    record = record_clock(stream, repeats=2, budget_s=9)
    assert record.batch_size == 4 and record.access is None
    assert record.missing["data order"].startswith("the data set is a one-shot iterator")


def test_middle_and_spread() -> None:
    assert middle((3.0, 1.0, 2.0)) == 2.0 and middle(()) == 0.0
    assert spread((1.0, 2.0, 3.0)) == 0.5 and spread((1.0,)) == 0.0


def test_fetch_takes_many_at_once_where_the_data_set_does() -> None:
    class Many(clockwork.Samples):
        def __getitems__(self, indices: list[int]) -> list[Tensor]:
            return [torch.ones(3) for _ in indices]

    stepper = Stepper(clockwork.pipeline(dataset=Many(4)), [], [], torch.device("cpu"))
    before = HANDS()
    assert len(stepper.fetch(4)) == 4 and HANDS() == before
