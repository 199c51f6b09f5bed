"""The loop and its parts: schedule, decay, order, scores, logs, and what stops a run."""

import itertools
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from icediag.model.collate import collate
from icediag.model.errors import DataError
from icediag.model.heads import Prediction
from icediag.model.losses import competition_metric, mean_angular_error
from icediag.model.training.compiling import compile_parts
from icediag.model.training.config import TrainConfig
from icediag.model.training.curve import draw_curve
from icediag.model.training.evaluate import angular_errors, score
from icediag.model.training.files import atomic_write
from icediag.model.training.interrupts import Interrupts
from icediag.model.training.loader import TrainLoader, in_order
from icediag.model.training.metrics import MetricsLog, read_metrics
from icediag.model.training.optimizer import make_optimizer, parameter_groups
from icediag.model.training.progress import Note, Scored, Started, Stepped, TrainEvent
from icediag.model.training.schedule import learning_rate
from icediag.model.training.seeds import epoch_seed, restore_rng, rng_state, seed_everything
from tests.small_training import SmallDataset, metric_lines, run, small_network

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("max_minutes", 0.0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.nan),
        ("weight_decay", -0.1),
        ("warmup", -1),
        ("schedule", "linear"),
        ("clip", 0.0),
        ("log_every", 0),
        ("save_every", 0),
        ("score_every", 0),
        ("max_scored", 0),
        ("workers", -1),
        ("device", "tpu"),
        ("seed", -1),
    ],
)
def test_config_names_the_argument(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected "):
        TrainConfig(**{name: value})


def test_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert TrainConfig(device="auto").torch_device() == CPU
    with pytest.raises(ValueError, match=r"^device: "):
        TrainConfig(device="cuda").torch_device()


# Schedule


def rates(config: TrainConfig, total: int) -> list[float]:
    return [learning_rate(step, total, config) for step in range(total)]


def twin(scheduler_of: Any, total: int, lr: float) -> list[float]:
    """The learning rates that a scheduler of torch gives, step by step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = scheduler_of(optimizer)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@settings(deadline=None)
@given(total=st.integers(3, 60), warmup=st.integers(0, 60))
def test_cosine_against_torch(total: int, warmup: int) -> None:
    config = TrainConfig(lr=0.3, warmup=warmup)
    warmup = min(warmup, total)
    rise = [0.3 * (step + 1) / warmup for step in range(warmup)]
    fall = total - warmup
    if fall > 1:
        rise += twin(
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, fall - 1, eta_min=0.003),
            fall,
            0.3,
        )
    elif fall:
        rise.append(0.3)
    np.testing.assert_allclose(rates(config, total), rise, rtol=1e-9)


@pytest.mark.parametrize("total", [10, 37, 100])
@pytest.mark.parametrize("warmup", [2, 5, 9])
def test_one_cycle_against_torch(total: int, warmup: int) -> None:
    config = TrainConfig(lr=0.3, schedule="one-cycle", warmup=warmup)
    expected = twin(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.3, total, pct_start=warmup / total, cycle_momentum=False
        ),
        total,
        0.3,
    )
    np.testing.assert_allclose(rates(config, total), expected, rtol=1e-9)


@settings(deadline=None)
@given(
    total=st.integers(1, 300),
    warmup=st.none() | st.integers(0, 400),
    schedule=st.sampled_from(["cosine", "one-cycle", "constant"]),
)
def test_every_schedule_stays_within_the_peak(
    total: int, warmup: int | None, schedule: Any
) -> None:
    found = rates(TrainConfig(lr=2.0, warmup=warmup, schedule=schedule), total)
    assert all(0 < rate <= 2.0 + 1e-12 for rate in found)
    if schedule == "constant" and warmup == 0:
        assert set(found) == {2.0}


def test_warm_up_is_in_proportion() -> None:
    config = TrainConfig()
    assert [config.warmup_steps(n) for n in (1, 200, 10**6)] == [0, 10, 1000]
    assert TrainConfig(schedule="one-cycle").warmup_steps(10**6) == 300_000
    assert TrainConfig(warmup=7).warmup_steps(5) == 5
    with pytest.raises(ValueError, match=r"^step: expected 0\.\.4"):
        learning_rate(5, 5, config)


# Optimizer


def test_only_matrices_decay() -> None:
    network = small_network()
    decayed, rest = parameter_groups(network, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    names = {id(p): name for name, p in network.named_parameters()}
    in_decayed = {names[id(p)] for p in decayed["params"]}
    in_rest = {names[id(p)] for p in rest["params"]}
    linear = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert in_decayed == linear
    assert in_rest == set(names.values()) - linear
    assert {"transformer.norm.weight", "to_token.bias"} <= in_rest


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(ValueError, match=r"^network: "):
        make_optimizer(nn.Identity(), TrainConfig())


def test_without_gradient_only_matrices_shrink() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = make_optimizer(network, TrainConfig(lr=0.1, weight_decay=0.5))
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    shrunk = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert shrunk == [True, False, False, False]


# Seeds and order


def test_random_state_goes_there_and_back() -> None:
    import random

    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    seed_everything(3)
    draw()
    state = rng_state()
    first = draw()
    restore_rng(state)
    assert draw() == first
    assert epoch_seed(0, 1) != epoch_seed(1, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_event_once_an_epoch_and_the_same_after_a_skip(workers: int) -> None:
    dataset = SmallDataset(23)
    indices = np.arange(3, 23)
    config = TrainConfig(batch_size=6, workers=workers)
    with warnings.catch_warnings():
        # From Python 3.12 on: forking while torch's threads run.
        warnings.simplefilter("ignore", DeprecationWarning)
        loader = TrainLoader(dataset, indices, collate, config, CPU)
        epochs = [[b.event_ids.tolist() for b in loader.epoch(number)] for number in (0, 1, 0)]
        rest = [b.event_ids.tolist() for b in loader.epoch(1, skip=2)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [6, 6, 6, 2]
        assert sorted(itertools.chain(*epoch)) == list(range(1003, 1023))
    assert epochs[0] == epochs[2] != epochs[1]
    assert rest == epochs[1][2:]


def test_loading_draws_nothing_from_the_global_generator() -> None:
    loader = TrainLoader(SmallDataset(8), np.arange(8), collate, TrainConfig(batch_size=4), CPU)
    before = torch.get_rng_state()
    list(loader.epoch(0))
    list(in_order(SmallDataset(8), np.arange(8), collate, TrainConfig(), CPU))
    assert torch.equal(torch.get_rng_state(), before)


# Scores


@pytest.mark.parametrize("n_events", [1, 10, 11])
def test_score_is_that_of_single_events(n_events: int) -> None:
    dataset = SmallDataset(n_events)
    network = small_network()
    network.eval()
    angles = []
    losses = []
    with torch.no_grad():
        for event in dataset.__getitems__(list(range(n_events))):
            batch = collate([event])
            prediction = network(batch)
            angles.append(
                competition_metric(prediction.azimuth, prediction.zenith, batch.targets).item()
            )
            losses.append(mean_angular_error(prediction, batch.targets).item())
    network.train()
    for batch_size in (1, 3, 4, 100):
        batches = in_order(
            dataset, np.arange(n_events), collate, TrainConfig(batch_size=batch_size), CPU
        )
        found = score(network, batches, mean_angular_error, CPU)
        assert found is not None
        assert found.events == n_events
        assert found.mean == pytest.approx(np.mean(angles), abs=1e-5)
        assert found.median == pytest.approx(np.median(angles), abs=1e-5)
        assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert network.training, "the mode must be put back"


def test_angular_errors_in_double() -> None:
    azimuth, zenith = torch.tensor([0.0, 6.283, 1.0]), torch.tensor([1.0, 1.0, 0.0])
    targets = torch.tensor([[0.0, 1.0], [0.0, 1.0], [5.0, math.pi]])
    prediction = Prediction(azimuth=azimuth, zenith=zenith, direction=torch.zeros(3, 3))
    found = angular_errors(prediction, targets)
    assert found.dtype == torch.float64
    expected = [
        competition_metric(azimuth[i : i + 1], zenith[i : i + 1], targets[i : i + 1]).item()
        for i in range(3)
    ]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


def test_score_that_is_not_finite_names_the_event() -> None:
    dataset = SmallDataset(3)

    def broken(batch: Any) -> Prediction:
        angle = torch.where(batch.event_ids == 1001, math.nan, 1.0)
        return Prediction(azimuth=angle, zenith=angle, direction=torch.zeros(3, 3))

    network = nn.Module()
    network.forward = broken
    batches = in_order(dataset, np.arange(3), collate, TrainConfig(), CPU)
    with pytest.raises(DataError, match=r"not finite \(event 1001\)"):
        score(network, batches, lambda *_: torch.zeros(()), CPU)


# The loop


def test_learns_a_few_events_by_heart(tmp_path: Path) -> None:
    notes: list[TrainEvent] = []
    summary, _ = run(
        tmp_path, n_events=5, held_out=0, epochs=60, on_event=notes.append,
        network=small_network(dropout=0.0), lr=0.02,
    )  # fmt: skip
    assert summary.stopped == "done"
    assert summary.mean is not None
    assert summary.mean < 0.3
    assert not summary.held_out
    assert any(isinstance(n, Note) and "nothing is held out" in n.text for n in notes)
    kinds = {line["kind"] for line in metric_lines(summary.metrics)}
    assert kinds == {"start", "step", "training"}


def test_what_a_run_tells_and_leaves(tmp_path: Path) -> None:
    told: list[TrainEvent] = []
    summary, _ = run(tmp_path / "new" / "run", on_event=told.append)
    # 16 events in batches of 5 are 4 steps an epoch.
    steps = [event for event in told if isinstance(event, Stepped)]
    assert [event.step for event in steps] == list(range(1, 9))
    assert [event.n_events for event in steps] == [5, 5, 5, 1] * 2
    assert all(event.loss is not None for event in steps)
    started = next(event for event in told if isinstance(event, Started))
    assert (started.train_events, started.scored_events, started.total_steps) == (16, 6, 8)
    scores = [event for event in told if isinstance(event, Scored)]
    assert [event.epoch for event in scores] == [1, 2]
    assert summary.best_mean == min(event.mean for event in scores)
    assert summary.mean == scores[-1].mean
    assert summary.best is not None
    assert summary.curve is not None
    assert summary.curve.read_bytes().startswith(b"\x89PNG")

    lines = read_metrics(summary.metrics)
    assert [line["kind"] for line in lines] == [
        "start", "step", "step", "validation", "step", "step", "validation",
    ]  # fmt: skip
    step = lines[1]
    assert {"step", "epoch", "loss", "lr", "grad_norm", "events_per_s", "data_wait"} <= set(step)
    losses = [event.loss for event in steps[:2] if event.loss is not None]
    assert step["loss"] == pytest.approx(sum(losses) / 2)
    # Each tick of the clock is a second: three a step with five events, and one to write.
    assert 0 < step["events_per_s"] < 5
    assert 0 < step["data_wait"] < 1
    assert not list(summary.metrics.parent.glob(".*.part"))


def test_epoch_loss_weighs_events_not_batches(tmp_path: Path) -> None:
    told: list[TrainEvent] = []
    run(tmp_path, on_event=told.append, epochs=1)
    steps = [(e.loss, e.n_events) for e in told if isinstance(e, Stepped) and e.loss is not None]
    (scored,) = (event for event in told if isinstance(event, Scored))
    assert len(steps) == 4
    assert scored.train_loss == pytest.approx(sum(loss * n for loss, n in steps) / 16)


def test_gradient_is_clipped(tmp_path: Path) -> None:
    network = small_network()
    seen: list[float] = []

    def watch(event: TrainEvent) -> None:
        if isinstance(event, Stepped):
            grads = [p.grad for p in network.parameters() if p.grad is not None]
            seen.append(torch.nn.utils.get_total_norm(grads).item())

    summary, _ = run(tmp_path, network=network, on_event=watch, clip=1e-3, epochs=1)
    assert seen == [pytest.approx(1e-3, rel=1e-2)] * 4
    norms = [line["grad_norm"] for line in metric_lines(summary.metrics) if "grad_norm" in line]
    assert min(norms) > 2e-3, "the norm that is logged is the one before clipping"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_not_finite_stops_before_the_step(tmp_path: Path, what: str) -> None:
    network = small_network()
    weights: list[list[Tensor]] = []
    calls = 0

    def loss(prediction: Prediction, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            weights.append([p.detach().clone() for p in network.parameters()])
            if what == "loss":
                return mean_angular_error(prediction, targets) * math.nan
            # Finite, with an infinite slope.
            return (prediction.direction.sum() * 0).sqrt()
        return mean_angular_error(prediction, targets)

    with pytest.raises(DataError, match=rf"^step 3: the {what} is not finite") as caught:
        run(tmp_path, network=network, loss=loss)
    assert "\n" not in str(caught.value)
    line = metric_lines(tmp_path / "metrics.jsonl")[-1]
    assert (line["kind"], line["what"], line["step"]) == ("non-finite", what, 3)
    assert len(line["event_ids"]) == 5
    assert str(line["event_ids"][0]) in str(caught.value)
    assert all(map(torch.equal, weights[0], network.parameters()))
    summary, _ = run(tmp_path, resume=True)
    assert summary.stopped == "done"
    assert "non-finite" not in {line["kind"] for line in metric_lines(summary.metrics)}


def test_time_limit(tmp_path: Path) -> None:
    summary, _ = run(tmp_path, epochs=100, max_minutes=0.5)
    assert summary.stopped == "time"
    assert 0 < summary.step < 20
    assert summary.mean is not None
    again, _ = run(tmp_path, epochs=100, max_minutes=0.5, resume=True)
    assert again.step > summary.step


def test_scores_at_most_the_events_allowed(tmp_path: Path) -> None:
    told: list[TrainEvent] = []
    run(tmp_path, on_event=told.append, max_scored=4, epochs=22)
    scores = [event for event in told if isinstance(event, Scored)]
    assert {event.events for event in scores} == {4}
    assert [event.epoch for event in scores] == list(range(2, 23, 2))


def test_no_training_event_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^train_indices: "):
        run(tmp_path, n_events=3, held_out=3)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        run(tmp_path / "file" / "run")


def test_same_seed_same_run(tmp_path: Path) -> None:
    first, a = run(tmp_path / "a", seed=4)
    second, b = run(tmp_path / "b", seed=4)
    other, _ = run(tmp_path / "c", seed=5)
    assert metric_lines(first.metrics) == metric_lines(second.metrics)
    assert metric_lines(first.metrics) != metric_lines(other.metrics)
    assert all(map(torch.equal, a.parameters(), b.parameters()))


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        first, a = run(tmp_path / "a")
        second, b = run(tmp_path / "b", workers=2)
    assert metric_lines(first.metrics) == metric_lines(second.metrics)
    assert all(map(torch.equal, a.parameters(), b.parameters()))


def test_compiled_parts_keep_their_names() -> None:
    network = small_network()
    names = list(network.state_dict())
    batch = collate(SmallDataset(4).__getitems__([0, 1, 2, 3]))
    network.eval()
    before = network(batch).direction
    parts = compile_parts(network, backend="eager")
    assert parts == [
        "dom_encoder.encode", "dom_encoder.decode", "transformer.layers.0.feed_forward",
    ]  # fmt: skip
    assert list(network.state_dict()) == names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler about itself
        assert torch.allclose(network(batch).direction, before, atol=1e-6)
    assert compile_parts(nn.Linear(2, 2)) == []


# Metrics, curve, files, signals


def test_log_is_cut_to_what_the_checkpoint_knows(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsLog(path) as log:
        for step in range(5):
            log.write({"kind": "step", "step": step})
            assert len(path.read_text().splitlines()) == step + 1, "each line is there at once"
    with path.open("a") as file:
        file.write('{"torn')
    assert len(read_metrics(path)) == 5
    with MetricsLog(path, keep=3) as log:
        assert log.lines == 3
        log.write({"kind": "step", "step": 30})
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2, 30]
    with MetricsLog(path, keep=100) as log:
        assert log.lines == 4
    with MetricsLog(path, keep=0) as log, pytest.raises(ValueError, match="JSON"):
        log.write({"kind": "step", "loss": math.nan})


def test_bad_metrics_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"kind": "start"}\n[1]\n')
    with pytest.raises(DataError, match="line 2: expected a JSON object"):
        draw_curve(path, tmp_path / "c.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_metrics(tmp_path / "absent")


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            EventAccumulator,
        )
    summary, _ = run(tmp_path)
    assert summary.tensorboard is not None
    found = EventAccumulator(str(summary.tensorboard))
    found.Reload()
    written = [line for line in read_metrics(summary.metrics) if line["kind"] == "validation"]
    scalars = found.Scalars("validation/mean")
    assert [s.step for s in scalars] == [line["step"] for line in written]
    assert [s.value for s in scalars] == pytest.approx([line["mean"] for line in written])


def test_without_tensorboard_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    told: list[TrainEvent] = []
    summary, _ = run(tmp_path, on_event=told.append, epochs=1)
    assert summary.tensorboard is None
    assert any(isinstance(event, Note) and "TensorBoard" in event.text for event in told)


def test_curve_of_a_run_without_scores(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"kind": "start", "step": 0}) + "\n")
    draw_curve(path, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    atomic_write(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_first_signal_is_noted_second_one_acts() -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert interrupts.asked()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
