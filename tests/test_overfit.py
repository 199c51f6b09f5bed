"""The overfit test: verdicts, yardsticks, and that all is left as it was found."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.instruments.baseline import constant_baseline, pairing_of, target_paths
from icediag.instruments.gradient_flow.run import record_gradients
from icediag.instruments.overfit.run import record_overfit
from icediag.instruments.running.workbench import workbench
from icediag.records.overfit import Trial
from tests.healthy_learning import HEALTHY, of, table, warm_up
from tests.pipelines import deepsets, graphs, images, language, odd, sequences
from tests.test_preserve import generators, snapshot

FACTORIES: tuple[Callable[[], Pipeline], ...] = (
    deepsets.pipeline,
    images.pipeline,
    language.pipeline,
    graphs.pipeline,
    sequences.pipeline,
    lambda: odd.on_numbers(odd.OwnTrain()),
    lambda: odd.on_numbers(odd.FrozenNorm()),
    lambda: odd.on_numbers(odd.Stateful()),
    lambda: odd.on_numbers(odd.InPlace()),
    lambda: odd.on_numbers(odd.Lazy()),
    lambda: odd.on_numbers(odd.Checkpointed()),
    lambda: odd.on_numbers(odd.RaisesMidway()),
    lambda: odd.on_numbers(odd.NoParameters()),
    lambda: odd.on_numbers(odd.OwnParameter()),
)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("instrument", [record_overfit, record_gradients])
def test_all_is_left_as_it_was(
    factory: Callable[[], Pipeline], instrument: Callable[..., Any]
) -> None:
    pipeline = factory()
    modules = list(pipeline.model.modules())
    for i, module in enumerate(modules):
        module.training = i % 2 == 0
    for parameter in pipeline.model.parameters():
        if not isinstance(parameter, nn.parameter.UninitializedParameter):
            parameter.grad = torch.full_like(parameter, 0.5)
            break
    before, drawn, threads = snapshot(pipeline.model), generators(), torch.get_num_threads()
    dropout = nn.functional.dropout
    record = instrument(pipeline, seed=5)
    assert record.reason is not None or record != type(record)()
    assert snapshot(pipeline.model) == before
    assert generators() == drawn
    assert nn.functional.dropout is dropout and torch.get_num_threads() == threads


def state_of(thing: Any) -> str:
    return repr([(k, v) for k, v in thing.state_dict().items()])


@pytest.mark.parametrize("instrument", [record_overfit, record_gradients])
def test_what_a_loop_holds_is_left_as_it_was(instrument: Callable[..., Any]) -> None:
    pipeline = warm_up()
    loop: Any = pipeline.train_step.__self__  # type: ignore[union-attr]
    batch = next(iter(torch.utils.data.DataLoader(pipeline.dataset, 8)))
    for _ in range(4):  # so that there is a state
        loop.step(pipeline.model, batch, loop.optimizer)
    held = (loop.optimizer, loop.scheduler, loop.average)
    before, weights = [state_of(thing) for thing in held], snapshot(pipeline.model)
    assert instrument(pipeline).reason is None
    assert [state_of(thing) for thing in held] == before
    assert snapshot(pipeline.model) == weights


def test_all_is_left_as_it_was_after_an_exception() -> None:
    calls = [0]

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == 5:
            raise ValueError("no more")
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    pipeline = table(train_step=step)
    before, drawn = snapshot(pipeline.model), generators()
    record = record_overfit(pipeline)
    assert any(trial.failure and "no more" in trial.failure for trial in record.trials)
    assert snapshot(pipeline.model) == before and generators() == drawn


def baseline_of(pipeline: Pipeline) -> float:
    with workbench(pipeline, wanted=32, device="cpu", seed=0, notes=[]) as bench:
        n = len(bench.samples)
        found = constant_baseline(bench, bench.batches(list(range(n))), n)
    assert found is not None
    return found[0]


def test_the_baseline_is_that_of_the_best_constant() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), 5 + 3 * torch.randn(32, 1)
    squared = of(nn.Linear(4, 1), x, y, nn.functional.mse_loss)
    assert baseline_of(squared) == pytest.approx(float(y.var(correction=0)), rel=1e-4)
    absolute = of(nn.Linear(4, 1), x, y, nn.functional.l1_loss)
    assert baseline_of(absolute) == pytest.approx(float((y - y.median()).abs().mean()), rel=0.02)
    k = torch.randint(0, 3, (32,))
    counts = torch.bincount(k) / 32
    entropy = float(-(counts * counts.log()).sum())
    classes = of(nn.Linear(4, 3), x, k, nn.functional.cross_entropy)
    assert baseline_of(classes) == pytest.approx(entropy, rel=1e-3)
    # Log-probabilities: any constant could be bettered by one that is none.
    logs = of(nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), x, k, nn.functional.nll_loss)
    assert baseline_of(logs) == pytest.approx(entropy, rel=1e-3)
    shares = of(
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
        x,
        k,
        lambda p, t: -p.gather(1, t[:, None]).log().mean(),
    )
    assert baseline_of(shares) == pytest.approx(entropy, rel=1e-3)
    # A likelihood as prediction has no best constant.
    likelihood = of(nn.Linear(4, 1), x, y, lambda p, _: -p.mean())
    with pytest.raises(AssertionError):
        baseline_of(likelihood)
    # A state beside the answer: the loss goes by the answer.
    recurrent = of(
        nn.LSTM(4, 3), x, k, lambda given, t: nn.functional.cross_entropy(given[0] * 9, t)
    )
    assert baseline_of(recurrent) == pytest.approx(entropy, rel=1e-3)


def test_what_one_event_can_be_brought_to_counts_for_each_of_a_sum() -> None:
    """The loss of an autoencoder, summed over events, never comes near that of one event alone."""
    torch.manual_seed(0)
    x = torch.randn(16, 6)

    # With a floor above 0, as of the likelihood of what is no 0 or 1.
    def summed(predicted: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(predicted, target, reduction="sum") + 3.0 * len(target)

    def mean(predicted: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(predicted, target) + 3.0 / 6

    for loss, times in ((summed, 16), (mean, 1)):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 6))
        made = of(
            net,
            x,
            x,
            loss,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
        )
        record = record_overfit(made)
        assert [trial.verdict for trial in record.trials] == ["learns"] * 3
        floors = [trial.floor for trial in record.trials]
        assert None not in floors
        assert floors[2] == pytest.approx(times * (floors[0] or 0))


def test_targets_are_told_by_moving_them() -> None:
    for pipeline, paths in ((table(), ("1",)), (deepsets.pipeline(), ("3",))):
        with workbench(pipeline, wanted=8, device="cpu", seed=0, notes=[]) as bench:
            batch = bench.batches(list(range(8)))
            assert target_paths(bench, batch) == paths
            assert (pairing_of(bench, batch, paths) or 0) > 0.01


@pytest.mark.parametrize(
    ("losses", "spread", "verdict"),
    [
        ([1.0, 0.5, 0.1, 0.1, 0.1], 1.0, "learns"),
        ([1.0] * 40 + [0.8] * 40, 1.0, "slow"),
        ([1.02] * 80, 1.0, "flat at the uninformed baseline"),
        ([1.02] * 80, 1e-4, "stuck at a constant prediction"),
        ([1.02, 1.0, 3.0, 5.0, 9.0, 9.0, 9.0], 1.0, "diverges"),
        ([1.0, 0.9, math.nan], 1.0, "non-finite"),
        ([], 1.0, "not judged"),
        # Far above the baseline, and on its way.
        ([100.0 - i for i in range(80)], 1.0, "slow"),
    ],
)
def test_verdicts(losses: list[float], spread: float, verdict: str) -> None:
    for shift in (0.0, -7.0):  # a negative loss is a loss
        trial = Trial(
            name="batch",
            events=8,
            losses=tuple(loss + shift for loss in losses),
            baseline=1.0 + shift,
            floor=0.0 + shift,
            spread_first=1.0,
            spread_last=spread,
            size_last=1.0,
        )
        assert trial.verdict == verdict


def test_a_loss_without_a_floor_is_judged() -> None:
    gaussian = next(make for make in HEALTHY if make.__name__ == "gaussian")
    torch.manual_seed(1)
    record = record_overfit(gaussian(), steps=600)
    assert record.batch is not None and record.batch.verdict in ("learns", "slow")
    assert min(record.batch.losses) < record.batch.losses[0]


def test_steps_with_a_closure_and_none_at_all() -> None:
    lbfgs = table(optimizer=lambda p: torch.optim.LBFGS(p, max_iter=5))
    record = record_overfit(lbfgs)
    assert record.batch is not None and record.batch.verdict == "learns"
    assert record.batch.optimizer == "LBFGS" and not record.default_optimizer
    record = record_overfit(table())
    assert record.default_optimizer and record.batch is not None
    assert (record.batch.optimizer, record.batch.learning_rate) == ("Adam", 1e-3)
    nothing = record_overfit(odd.on_numbers(odd.NoParameters()))
    assert nothing.reason == "the model has no parameters: nothing to train"


def test_a_batch_that_is_written_to_is_collated_anew() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(10, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x.sub_(1.0))
            return out

    seen: list[float] = []

    def forward(model: Any, batch: Any) -> Tensor:
        seen.append(float(batch[0].sum()))
        out: Tensor = model(batch[0])
        return out

    x, y = torch.randn(8, 10), torch.randn(8, 1)
    pipeline = of(Centred(), x, y, nn.functional.mse_loss, forward=forward)
    record_overfit(pipeline, batch_size=8)
    assert len({round(total, 3) for total in seen[-20:]}) == 1
