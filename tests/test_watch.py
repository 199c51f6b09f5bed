"""The watch: problems are named in time, healthy trainings in silence, nothing is changed."""

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import icediag
from icediag.cli import main as command_line
from icediag.instruments.trees.file import load_batch
from icediag.watching import TrainingStoppedError, WatchWarning
from icediag.watching.keep import BATCH, STATE, Keeper
from icediag.watching.log import LINES
from icediag.watching.problem import Problem
from icediag.watching.rules import WINDOW, Rules, Sample

Change = Callable[[nn.Module, torch.optim.Optimizer, int], None]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def batches(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(n):
        x = torch.randn(16, 4, generator=generator)
        yield x, x[:, :2] * 2 + 1


def run(
    steps: int = 60,
    *,
    model: nn.Module | None = None,
    lr: float = 0.05,
    before: Change = lambda *_: None,
    after_backward: Change = lambda *_: None,
    loss_of: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss,
    **options: Any,
) -> tuple[list[Problem], int]:
    """Train; gives the problems and the number of steps that were done."""
    model = model or net()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    done = 0
    options = {"budget": 1.0, **options}
    with (
        warnings.catch_warnings(),
        icediag.watch(model, optimizer, **options) as watch,
    ):
        warnings.simplefilter("ignore", WatchWarning)
        for batch in batches(steps):
            before(model, optimizer, watch.steps)
            optimizer.zero_grad()
            loss = loss_of(model(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            after_backward(model, optimizer, watch.steps)
            optimizer.step()
            watch.step(loss, batch)
            done += 1
    return watch.problems, done


def kinds(problems: list[Problem]) -> dict[str, int]:
    return {problem.kind: problem.step for problem in problems}


def test_a_healthy_training_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(200) == ([], 200)
        assert run(200, baseline_loss=5.0)[0] == []


def test_nothing_of_the_training_changes() -> None:
    watched, alone = net(), net()
    run(80, model=watched)
    optimizer = torch.optim.SGD(alone.parameters(), 0.05)
    for x, y in batches(80):
        optimizer.zero_grad()
        nn.functional.mse_loss(alone(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for a, b in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not watched._forward_hooks


def poison_weights(model: nn.Module, _: object, step: int) -> None:
    if step == 20:
        with torch.no_grad():
            next(model.parameters())[0, 0] = torch.nan


def poison_gradient(model: nn.Module, _: object, step: int) -> None:
    if step >= 20:
        list(model.parameters())[2].grad[0, 0] = torch.inf  # type: ignore[index]


def test_a_loss_that_is_not_finite_is_named_in_its_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError, match="loss of step 21 is nan") as caught:
        run(before=poison_weights, out=tmp_path, on_problem="raise")
    assert caught.value.problem.step == 21
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] <= 20
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())
    net().load_state_dict(state["model"])
    x, y = load_batch(tmp_path / BATCH)
    expected = list(batches(21))[-1]
    assert torch.equal(x, expected[0]) and torch.equal(y, expected[1])
    lines = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    [problem] = [line for line in lines if line["event"] == "problem"]
    assert problem["kind"] == "non-finite" and problem["step"] == 21
    assert [line["step"] for line in lines if line["event"] == "step" and "loss" in line][:2] == [
        *(1, 11),
    ]


def test_a_gradient_that_is_not_finite_is_named_at_once_or_by_its_loss() -> None:
    problems, _ = run(after_backward=poison_gradient)
    assert problems[0].kind == "non-finite" and problems[0].step in (21, 22)


def test_the_batch_is_kept_whose_gradient_is_not_finite(tmp_path: Path) -> None:
    """Its own loss is finite, that of the next step is not: the next batch is not to blame."""
    steps = count(1)

    def singular(predicted: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.mse_loss(predicted, target)
        # The root of 0 is 0, its derivative infinite.
        return loss + (0 * predicted.sum()).sqrt() if next(steps) == 25 else loss

    problems, _ = run(30, loss_of=singular, out=tmp_path)
    first = problems[0]
    assert (first.kind, first.step) == ("non-finite", 25)
    assert first.message == "the gradient of 0.weight and 3 more is not finite at step 25"
    x, _ = load_batch(tmp_path / BATCH)
    assert torch.equal(x, list(batches(25))[-1][0])


def test_a_gradient_of_no_few_parameters_is_no_alarm() -> None:
    model: Any = net()
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    model.append(nn.Linear(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(60, model=model)[0] == []


def test_flat_at_the_baseline() -> None:
    def zero_inputs(predicted: Tensor, target: Tensor) -> Tensor:
        noise = torch.randn(()) * 0.01
        return (predicted * 0).mean() + 1.57 + noise

    problems, _ = run(loss_of=zero_inputs, baseline_loss=math.pi / 2)
    assert kinds(problems)["flat"] == WINDOW
    assert "1.571" in next(p for p in problems if p.kind == "flat").message
    problems, _ = run(loss_of=zero_inputs, baseline_loss=2.5)
    assert "flat" not in kinds(problems)


def test_flat_without_a_baseline() -> None:
    problems, _ = run(900, lr=1e-9)
    assert WINDOW <= kinds(problems)["flat"] <= 900


def test_what_was_trained_already_may_be_flat() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-9)
    for x, y in batches(1):
        nn.functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with icediag.watch(model, optimizer) as watch:
        for _ in range(60):
            watch.step(torch.tensor(1.0))
    assert watch.problems == []


def test_weights_that_do_not_move() -> None:
    assert 0 < kinds(run(lr=0.0)[0])["weights-do-not-move"] <= 50


def test_collapse() -> None:
    model: Any = net()
    with torch.no_grad():
        model[2].weight.zero_()
    model[2].weight.requires_grad_(False)
    assert 0 < kinds(run(model=model)[0])["collapse"] <= 50


def test_dead_units() -> None:
    model: Any = net()
    with torch.no_grad():
        model[0].bias[:12] = -1e3
    problem = next(p for p in run(model=model)[0] if p.kind == "dead-units")
    assert problem.step <= 50 and problem.evidence == {"layer": "0", "dead": 12, "units": 16}


def test_clipping_always_on() -> None:
    def clip(model: nn.Module, *_: object) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    problems, _ = run(120, after_backward=clip)
    assert kinds(problems)["clipping-always-on"] <= 50
    assert "0.001" in next(p for p in problems if p.kind == "clipping-always-on").message

    def clip_seldom(model: nn.Module, *_: object) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)

    assert "clipping-always-on" not in kinds(run(200, after_backward=clip_seldom)[0])


def test_a_warning_names_the_line_of_the_loop() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with (
        pytest.warns(WatchWarning, match="nan") as caught,
        icediag.watch(model, optimizer) as watch,
    ):
        watch.step(torch.tensor(torch.nan))
    assert caught[0].filename == __file__


def test_each_kind_is_named_once_and_given_to_a_function() -> None:
    said: list[Problem] = []
    run(150, lr=0.0, on_problem=said.append)
    assert sorted({p.kind for p in said}) == sorted(p.kind for p in said)


def test_it_keeps_to_its_budget() -> None:
    ticks = count()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def samples(budget: float) -> int:
        from icediag.watching import Watch

        seen: list[int] = []
        watch = Watch(model, optimizer, budget=budget, clock=lambda: float(next(ticks)))
        with watch:
            for x, y in batches(200):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                watch.step(loss)
                seen.append(watch._sampled)
        return len(set(seen))

    assert samples(1.0) == 20
    assert samples(1e-6) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [({"budget": 0}, "budget"), ({"budget": 2}, "budget"), ({"on_problem": "shout"}, "on_problem")],
)
def test_arguments(options: dict[str, Any], word: str) -> None:
    model = net()
    with pytest.raises(ValueError, match=word):
        icediag.watch(model, torch.optim.SGD(model.parameters(), 0.1), **options)


def test_rules_on_bare_numbers() -> None:
    rules = Rules()
    for step in range(1, 10):
        spread = Sample(step=step, gradient_norm=1.0 + step, update=0.1, spread=1e-3)
        assert list(rules.sample(spread)) == []
    falling = Rules(baseline_loss=1.0)
    assert not [p for s in range(200) for p in falling.loss(s, 1.004 - 0.0001 * s)]


def test_the_batch_is_replayed_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from icediag.icecube import pipeline
    from icediag.instruments.trees.file import save_batch

    made = pipeline(n_events=8)
    batch = made.collate([made.dataset[i] for i in range(8)])
    batch.pulse_features[2, 0] = torch.nan
    save_batch(batch, tmp_path / "batch.pt")
    path = str(tmp_path / "batch.pt")
    monkeypatch.setattr(sys, "argv", ["icediag", "shapes", "--events", "8", "--batch", path])
    command_line.main()
    out, err = capsys.readouterr()
    assert "non-finite-value at collate (icediag/model/collate.py:" in out and err == ""
    (tmp_path / "batch.pt").write_bytes(b"not a batch")
    assert command_line.main() == 2
    assert "expected a batch that a watch kept" in capsys.readouterr().err


def test_the_batch_is_replayed_with_the_weights_that_broke_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from icediag.icecube import pipeline
    from icediag.instruments.trees.file import save_batch

    made = pipeline(n_events=8, batch_size=8)
    save_batch(made.collate([made.dataset[i] for i in range(8)]), tmp_path / BATCH)
    optimizer = torch.optim.SGD(made.model.parameters(), 0.1)
    keeper = Keeper(made.model, optimizer, tmp_path)
    with torch.no_grad():
        next(made.model.parameters()).fill_(1e38)
    keeper.keep(7)
    keeper.write(None)
    files = ["--batch", str(tmp_path / BATCH), "--state", str(tmp_path / STATE)]
    monkeypatch.setattr(sys, "argv", ["icediag", "shapes", "--events", "8", *files])
    command_line.main()
    out, err = capsys.readouterr()
    assert "error V01 non-finite-value at dom_encoder.encode.0" in out and err == ""
    monkeypatch.setattr(sys, "argv", ["icediag", "shapes", "--events", "8", *files[:2]])
    command_line.main()
    assert "non-finite-value" not in capsys.readouterr().out
    for content, word in (
        (b"no state", "expected a state that a watch kept"),
        (None, "does not fit"),
    ):
        monkeypatch.setattr(sys, "argv", ["icediag", "shapes", "--events", "8", *files])
        if content is None:
            torch.save({"model": net().state_dict()}, tmp_path / STATE)
        else:
            (tmp_path / STATE).write_bytes(content)
        assert command_line.main() == 2
        assert word in capsys.readouterr().err


def test_what_it_costs_is_measured_in_turn() -> None:
    from icediag.model.network import NetworkConfig
    from icediag.watching.cost import measure_watch

    ticks = count()
    row = measure_watch(
        events=4,
        block=2,
        repeats=3,
        config=NetworkConfig(d_model=8, n_heads=1, n_layers=1),
        clock=lambda: float(next(ticks)),
    )
    assert (row.pairs, row.ratio, row.part_ms) == (3, 1.0, 2000.0)  # of two steps, a second each
    assert row.part.startswith("2 steps with icediag.watch (")
    assert "by its own clock, budget 1%" in row.part
