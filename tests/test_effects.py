"""What faults cost: repairs in flight, trainings with and without, and what findings become."""

import dataclasses
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag import Domain, Pipeline, Raw
from icediag.causes import SPEAKS_TO, sentence, told_of, with_effects
from icediag.checks import CHECKS, judge
from icediag.finding import Diagnosis, Finding, Severity
from icediag.instruments.effects.repairs import repairs_of, shuffled
from icediag.instruments.effects.run import record_effects
from icediag.instruments.examine import examine
from icediag.instruments.running.workbench import workbench
from icediag.recording import Recording
from icediag.records.effects import Answer, Effect, EffectsRecord
from icediag.reports.effects import render_effects
from tests.test_preserve import generators, snapshot


class Encoder(nn.Module):
    """Works on raw times of order 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 16)

    def forward(self, times: Tensor) -> Tensor:
        out: Tensor = self.layer(times[:, None]).relu()
        return out


class Net(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.encoder, self.head = Encoder(), nn.Linear(16, 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        out: Tensor = self.head(self.encoder(batch[0] * self.scale))
        return out


def of_times(scale: float, **more: Any) -> Pipeline:
    """Learns |time|; the encoder is promised raw times and gets `scale` times that."""
    torch.manual_seed(0)
    times = torch.randn(32)
    given: dict[str, Any] = {
        "name": "times",
        "dataset": [(t, t.abs() + 1) for t in times],
        "collate": lambda batch: (
            torch.stack([x for x, _ in batch]),
            torch.stack([y for _, y in batch])[:, None],
        ),
        "model": Net(scale),
        "loss": lambda p, b: nn.functional.mse_loss(p, b[1]),
        "optimizer": lambda parameters: torch.optim.Adam(parameters, 3e-2),
        "batch_size": 16,
        "contracts": {f"{__name__}:Encoder": {"times": Raw("time", unit="ns")}},
        "raw": {"time": lambda batch: batch[0]},
        "sources": (__name__,),
    }
    return Pipeline(**(given | more))


def measured(pipeline: Pipeline, *needs: str) -> Recording:
    recording = examine(pipeline, needs=needs)
    found = record_effects(pipeline, recording=recording, budget=3.0)
    return dataclasses.replace(recording, effects=found)


def test_a_fault_that_hurts_is_confirmed_and_told() -> None:
    recording = measured(of_times(1e-3), "provenance")
    record = recording.effects
    assert record is not None and record.reason is None, record
    (effect,) = record.effects
    assert (effect.kind, effect.stage, effect.answer) == ("raw values", "encoder", "confirmed")
    assert effect.mean > 0 and record.seeds >= 2 and record.steps >= 16
    (finding,) = judge(recording, [c for c in CHECKS if c.NAME == "normalized-relative"]).findings
    assert finding.severity == "error" and finding.effect is not None
    assert finding.effect["answer"] == "confirmed" and "raw time" in finding.effect["summary"]


def test_a_fault_that_costs_nothing_is_not_said_to_hurt() -> None:
    recording = measured(of_times(1.05), "provenance")
    assert recording.effects is not None
    (effect,) = recording.effects.effects
    assert effect.fall > 0 and effect.answer != "confirmed"
    (finding,) = judge(recording, [c for c in CHECKS if c.NAME == "normalized-relative"]).findings
    # The contract is broken whatever it costs, and the cost is told.
    assert finding.severity == "error" and finding.effect is not None


def test_nothing_to_repair_is_nothing_trained() -> None:
    record = measured(of_times(1.0), "provenance", "gradients").effects
    assert record is not None and not record.effects
    assert record.reason == "nothing that was found can be repaired in flight"


def test_a_learning_rate_of_0_is_replaced() -> None:
    pipeline = of_times(1.0, optimizer=lambda p: torch.optim.Adam(p, 0.0))
    recording = measured(pipeline, "gradients")
    assert recording.effects is not None
    (effect,) = recording.effects.effects
    assert (effect.kind, effect.stage) == ("rate", "optimizer") and effect.mean > 0
    (finding,) = judge(recording, [c for c in CHECKS if c.NAME == "learning-rate"]).findings
    assert finding.effect is not None and finding.severity == "error"


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_left_as_it_was(fails: bool) -> None:
    calls = [0]

    def loss(predictions: Tensor, batch: Any) -> Tensor:
        calls[0] += 1
        if fails and calls[0] == limit[0]:
            raise ValueError("no more")
        return nn.functional.mse_loss(predictions, batch[1])

    limit = [-1]
    pipeline = of_times(1e-3, loss=loss)
    recording = examine(pipeline, needs=("provenance",))
    pipeline.model.head.training = False
    pipeline.model.head.weight.grad = torch.ones_like(pipeline.model.head.weight)
    limit[0] = calls[0] + 40
    before, drawn = snapshot(pipeline.model), generators()
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in pipeline.model.modules()]
    record = record_effects(pipeline, recording=recording, budget=1.0)
    assert (record.reason is not None and "no more" in record.reason) == fails
    assert snapshot(pipeline.model) == before and generators() == drawn
    after = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in pipeline.model.modules()]
    assert after == hooks


def test_columns_are_brought_into_their_domains_and_back() -> None:
    pipeline = of_times(1.0, outputs={"size": Domain(0.0, 2.0)})
    with torch.no_grad():
        pipeline.model.head.bias.add_(50.0)
    recording = examine(pipeline, needs=("bounds",))
    skipped: list[str] = []
    with workbench(pipeline, wanted=8, device="cpu", seed=0, notes=[]) as bench:
        batch = bench.batches(list(range(8)))
        (repair,) = repairs_of(bench, batch, recording, skipped)
        assert repair.kind == "bounded outputs" and not skipped
        with torch.no_grad():
            before = bench.predict(batch())
            with repair.force():
                inside = bench.predict(batch())
            after = bench.predict(batch())
    assert before.min() > 10 and torch.equal(before, after)
    assert (inside >= 0).all() and (inside <= 2).all()


@pytest.mark.parametrize("channels", [3, 1])
def test_channels_of_images_are_standardised_and_no_columns_of_pixels(channels: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(36, 1))
    pipeline = Pipeline(
        name="images",
        dataset=list(128 + 60 * torch.randn(16, channels, 5, 5)),
        collate=torch.stack,
        model=model,
        loss=lambda p, x: (p[:, 0] - x.mean((1, 2, 3)) / 128).square().mean(),
    )
    recording = examine(pipeline, needs=("features",))
    skipped: list[str] = []
    seen: list[Tensor] = []
    with workbench(pipeline, wanted=16, device="cpu", seed=0, notes=[]) as bench:
        batch = bench.batches(list(range(16)))
        (repair,) = repairs_of(bench, batch, recording, skipped)
        assert repair.kind == "standardised features" and not skipped
        with torch.no_grad(), repair.force():
            handle = bench.model[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            bench.predict(batch())
            handle.remove()
    (image,) = seen
    assert image.shape == (16, channels, 5, 5)
    for channel in image.unbind(1):
        assert abs(channel.mean()) < 0.01 and abs(channel.std() - 1) < 0.01


def test_weights_are_drawn_anew_from_their_own_values() -> None:
    net = Net(1.0)
    net.encoder.layer.weight.requires_grad_(False)
    first = net.head.weight.detach().clone()
    kept = net.encoder.layer.weight.detach().clone()
    shuffled(net, 1)
    assert not torch.equal(net.head.weight, first) and torch.equal(net.encoder.layer.weight, kept)
    assert torch.equal(net.head.weight.sort().values, first.sort().values)


@pytest.mark.parametrize(
    ("as_it_is", "repaired", "fall", "answer"),
    [
        ((1.0, 1.1, 0.9, 1.0), (0.5, 0.55, 0.45, 0.5), 0.5, "confirmed"),
        ((1.0, 1.1, 0.9, 1.0), (1.0, 1.1, 0.9, 1.0), 0.5, "refuted"),
        ((1.0, 1.1, 0.9, 1.0), (1.2, 1.3, 1.1, 1.2), 0.5, "refuted"),
        ((1.0, 1.4, 0.6, 1.0), (0.6, 1.5, 0.7, 0.9), 0.5, "not shown"),
        # Where nothing was learnt, equal losses say nothing.
        ((1.5, 1.5, 1.5, 1.5), (1.5, 1.5, 1.5, 1.5), 0.0, "too short"),
        ((math.inf,) * 3, (0.5,) * 3, 0.5, "confirmed"),
        ((0.5,) * 3, (math.inf,) * 3, 0.5, "refuted"),
        ((1.0,), (0.1,), 0.9, "not shown"),
    ],
)
def test_answers(
    as_it_is: tuple[float, ...], repaired: tuple[float, ...], fall: float, answer: Answer
) -> None:
    effect = Effect(
        kind="rate", stage="x", repair="y", as_it_is=as_it_is, repaired=repaired, fall=fall
    )
    assert effect.answer == answer


def test_a_seed_that_goes_far_astray_does_not_hide_the_others() -> None:
    """Losses of a network on bytes of images, beside it on what they are scaled to."""
    astray = Effect(
        kind="standardised features",
        stage="stem",
        repair="y",
        as_it_is=(1.40, 1.42, 4.60, 2.01, 1.40, 32.6, math.inf),
        repaired=(0.001, 0.001, 0.003, 0.002, 0.0, 0.001, 0.001),
        fall=1.3,
        unit=1.386,
    )
    assert astray.answer == "confirmed" and not astray.capped  # infinite: there is no interval
    astray = replace(astray, as_it_is=(*astray.as_it_is[:-1], 1.94))
    assert astray.answer == "not shown"
    capped = replace(astray, ceiling=1.386)
    assert capped.answer == "confirmed" and capped.capped
    assert capped.mean == pytest.approx(1.385, abs=0.01)
    record = EffectsRecord(effects=(capped,), seeds=7, steps=60, events=16)
    assert "losses above 1.39, that of knowing nothing, count as that" in sentence(capped, record)


def test_the_interval_is_students() -> None:
    effect = Effect(
        kind="rate", stage="x", repair="y", as_it_is=(1.0, 2.0, 3.0), repaired=(0.0, 0.0, 0.0)
    )
    assert effect.interval is not None
    # Mean 2, standard error 1 / sqrt(3), t = 4.303 with two degrees of freedom.
    half = 4.303 / math.sqrt(3)
    assert effect.interval == pytest.approx((2 - half, 2 + half))


@pytest.mark.parametrize(
    ("answer", "severity", "becomes"),
    [
        ("confirmed", "warning", "warning"),
        ("refuted", "warning", "note"),
        ("not shown", "warning", "note"),
        ("too short", "warning", "warning"),
        ("refuted", "error", "error"),
    ],
)
def test_what_was_not_seen_to_hurt_is_a_note(
    answer: Answer, severity: Severity, becomes: Severity
) -> None:
    losses = {
        "confirmed": ((1.0, 1.0), (0.1, 0.1), 0.9),
        "refuted": ((1.0, 1.0), (1.0, 1.0), 0.9),
        "not shown": ((1.0, 1.0), (0.2, 1.4), 0.9),
        "too short": ((1.0, 1.0), (1.0, 1.0), 0.0),
    }[answer]
    effect = Effect(
        kind="rate",
        stage="optimizer",
        repair="y",
        as_it_is=losses[0],
        repaired=losses[1],
        fall=losses[2],
    )
    assert effect.answer == answer
    record = EffectsRecord(effects=(effect,), seeds=2, steps=16, events=4)
    finding = Finding(
        code="G08",
        name="learning-rate",
        severity=severity,
        stage="optimizer",
        message="m",
        evidence={},
        remedy="r",
    )
    other = dataclasses.replace(finding, name="dead-units")
    told, untold = with_effects((finding, other), record)
    assert told.severity == becomes and told.effect == told_of(effect, record)
    assert untold == other
    assert told.effect is not None
    assert effect.interval is not None
    most = told.effect["at_most"]
    assert most == effect.at_most == pytest.approx(max(0.0, effect.interval[1]))
    letter = render_effects(
        Recording(pipeline="p", batch_size=4, effects=record), Diagnosis(pipeline="p"), width=120
    )
    assert (f"{most:.0%}" if most < 1 else "unknown") in letter and "of the way" in letter
    # That it costs at most all there is to be learnt says nothing.
    assert ("too wide to tell" in told.effect["summary"]) == (answer == "not shown" and most >= 1)


def test_every_repair_speaks_to_a_check_that_exists() -> None:
    names = {check.NAME for check in CHECKS}
    told = set().union(*SPEAKS_TO.values())
    assert told <= names
