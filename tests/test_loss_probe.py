"""Losses probed away from their models: each fault has its finding, healthy losses have none."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Domain, Pipeline
from icediag.checks import (
    judge,
    loss_ignores_targets,
    loss_mixes_samples,
    loss_not_periodic,
    singular_loss,
    summed_loss,
)
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.loss_probe import record_loss
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from tests.pipelines import odd

CHECKS = (
    loss_ignores_targets,
    singular_loss,
    loss_not_periodic,
    loss_mixes_samples,
    summed_loss,
)
Batch = dict[str, Tensor]
Loss = Callable[[Any, Batch], Tensor]


def numbers(loss: Loss, **more: Any) -> Pipeline:
    """Two numbers from four, with labels, signs and numbers of samples beside."""
    torch.manual_seed(0)
    x = torch.randn(20, 4)
    samples = [
        {"x": row, "y": 2 * row[:2] + 0.3, "label": torch.tensor(i % 3), "number": torch.tensor(i)}
        for i, row in enumerate(x)
    ]
    settings: dict[str, Any] = {"model": nn.Linear(4, more.pop("width", 2)), "batch_size": 20}
    return Pipeline(
        name="numbers",
        dataset=samples,
        collate=torch.utils.data.default_collate,
        forward=more.pop("forward", lambda model, batch: model(batch["x"])),
        loss=loss,
        **(settings | more),
    )


def judged(pipeline: Pipeline) -> tuple[tuple[Finding, ...], dict[str, str]]:
    recording = Recording(pipeline="p", batch_size=1, loss_probe=record_loss(pipeline))
    diagnosis = judge(Recording.from_json(recording.to_json()), CHECKS)
    return diagnosis.findings, {item.name: item.reason for item in diagnosis.not_judged}


def probability(model: nn.Module, batch: Batch) -> Tensor:
    return torch.sigmoid(model(batch["x"]))


def positive(batch: Batch) -> Tensor:
    return (batch["y"] > 0).float()


HEALTHY: dict[str, tuple[Loss, dict[str, Any]]] = {
    "mse": (lambda p, b: functional.mse_loss(p, b["y"]), {}),
    "l1": (lambda p, b: (p - b["y"]).abs().mean(), {}),
    "norm": (lambda p, b: (p - b["y"]).norm(dim=1).mean(), {}),
    "labels": (lambda p, b: functional.cross_entropy(p, b["label"]), {"width": 3}),
    "weighted": (
        lambda p, b: functional.cross_entropy(
            p, b["label"], weight=torch.tensor([1.0, 3.0, 0.2]), label_smoothing=0.1
        ),
        {"width": 3},
    ),
    "bce": (
        lambda p, b: functional.binary_cross_entropy(p, positive(b)),
        {"forward": probability},
    ),
    "log-width": (
        lambda p, b: (torch.exp(-p[:, 2:]) * (p[:, :2] - b["y"]).square() + p[:, 2:]).mean(),
        {"width": 3},
    ),
    "counts": (
        lambda p, b: functional.poisson_nll_loss(p, b["y"].abs().round(), log_input=True),
        {},
    ),
    "correlation": (
        lambda p, b: (
            1 - functional.cosine_similarity(p - p.mean(0), b["y"] - b["y"].mean(0), 0).mean()
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_losses_have_no_finding(name: str) -> None:
    loss, more = HEALTHY[name]
    findings, reasons = judged(numbers(loss, **more))
    assert findings == ()
    assert set(reasons) == {"loss-not-periodic"}


def root(p: Tensor, b: Batch) -> Tensor:
    return (p - b["y"]).square().sum(1).sqrt().mean()


def own_bce(p: Tensor, b: Batch) -> Tensor:
    p, y = torch.sigmoid(p), positive(b)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def sharp(p: Tensor, b: Batch) -> Tensor:
    """A von Mises-Fisher density whose normaliser is written as it stands in the book."""
    kappa = functional.softplus(p[:, 2])
    cosine = functional.cosine_similarity(p[:, :2], b["y"])
    return -(kappa.log() - kappa.sinh().log() + kappa * cosine).mean()


def divided(p: Tensor, b: Batch) -> Tensor:
    """Directions; a prediction of 0 has none."""
    unit: Tensor = p / p.norm(dim=1, keepdim=True)
    return (unit - b["y"]).square().mean()


def narrow(p: Tensor, b: Batch) -> Tensor:
    """Predictions below a thousandth have no length."""
    length = functional.threshold(p.norm(dim=1, keepdim=True), 1e-3, 0.0)
    return (p / length - b["y"]).square().mean()


def two_branches(p: Tensor, b: Batch) -> Tensor:
    """A normaliser of two forms that miss each other by log 2."""
    kappa = functional.softplus(p[:, 2]) + 1e-4
    small = kappa.clamp(max=20.0)
    normaliser = torch.where(kappa < 20, small.sinh().log(), kappa) - kappa.log()
    return (normaliser - kappa * functional.cosine_similarity(p[:, :2], b["y"])).mean()


FAULTS: dict[str, tuple[Loss, dict[str, Any], str, str]] = {
    "own-prediction": (
        lambda p, b: functional.cross_entropy(p, p.detach().argmax(1)),
        {"width": 3},
        *("loss-ignores-targets", "error"),
    ),
    "shape-of-targets-alone": (
        lambda p, b: functional.cross_entropy(p, torch.zeros_like(b["label"])),
        {"width": 3},
        *("loss-ignores-targets", "error"),
    ),
    "two-views": (
        lambda p, b: -functional.cosine_similarity(p[0], p[1].detach()).mean(),
        {"forward": lambda model, batch: (model(batch["x"]), model(batch["x"].flip(0)))},
        *("loss-ignores-targets", "note"),
    ),
    "pairs-of-samples": (
        lambda p, b: functional.cross_entropy(p, torch.arange(len(p))),
        {"forward": lambda model, batch: model(batch["x"]) @ model(batch["x"] + 0.1).T},
        *("loss-ignores-targets", "note"),
    ),
    "broadcast": (
        lambda p, b: (p[:, :1] - b["y"][:, 0]).square().mean(),
        {"width": 1},
        *("loss-mixes-samples", "error"),
    ),
    "weights-of-all": (
        lambda p, b: -(functional.log_softmax(p, -1)[:, :1] * b["y"][:, 0].exp()).mean(),
        {"width": 3},
        *("loss-mixes-samples", "warning"),
    ),
    "one-truth": (
        lambda p, b: (p - b["y"][:1]).square().mean(),
        {},
        *("loss-mixes-samples", "error"),
    ),
    "rolled": (
        lambda p, b: (p - b["y"].roll(1, 0)).abs().mean(),
        {},
        *("loss-mixes-samples", "error"),
    ),
    "root": (root, {}, "singular-loss", "warning"),
    "own-bce": (own_bce, {}, "singular-loss", "error"),
    "sharp": (sharp, {"width": 3}, "singular-loss", "error"),
    "two-branches": (two_branches, {"width": 3}, "singular-loss", "warning"),
    "whole-root": (
        lambda p, b: functional.mse_loss(p, b["y"]).sqrt(),
        {},
        *("singular-loss", "note"),
    ),
    "divided": (divided, {}, "singular-loss", "note"),
    "narrow": (narrow, {}, "singular-loss", "warning"),
    "sum": (
        lambda p, b: functional.cross_entropy(p, b["label"], reduction="sum"),
        {"width": 3},
        *("summed-loss", "note"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_finding(name: str) -> None:
    loss, more, check, severity = FAULTS[name]
    findings, _ = judged(numbers(loss, **more))
    assert [(f.name, f.severity) for f in findings] == [(check, severity)]
    assert all(f.stage == "loss" and f.evidence and f.remedy for f in findings)
    location = findings[0].location
    assert location is not None and location.file == "tests/test_loss_probe.py"


def concentration(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """A direction, and how sure of it the model is: above 0, and below 1 to begin with."""
    out = model(batch["x"])
    return functional.normalize(out[:, :2], dim=-1), functional.softplus(0.1 * out[:, 2]) + 1e-3


def of_concentration(normaliser: Callable[[Tensor], Tensor]) -> Pipeline:
    def loss(p: tuple[Tensor, Tensor], b: Batch) -> Tensor:
        cosine = (p[0] * functional.normalize(b["y"], dim=-1)).sum(-1)
        return (normaliser(p[1]) - p[1] * cosine).mean()

    return numbers(loss, width=3, forward=concentration)


def test_what_is_above_0_is_no_share_only_because_it_begins_below_1() -> None:
    findings, _ = judged(of_concentration(lambda k: k + torch.log(-torch.expm1(-2 * k)) - k.log()))
    assert findings == ()
    [finding], _ = judged(of_concentration(lambda k: k.sinh().log() - k.log()))
    assert (finding.name, finding.severity) == ("singular-loss", "error")
    assert finding.evidence["operation"] == "sinh"


def crossing(loss: Loss) -> list[Finding]:
    recording = Recording(pipeline="p", batch_size=1, loss_probe=record_loss(numbers(loss)))
    return list(judge(recording, [loss_mixes_samples]).findings)


def test_a_column_that_meets_a_row_is_named_at_its_line() -> None:
    """Where predictions of one row move the slopes of all, slopes do not tell it."""

    def weighed(p: Tensor, b: Batch) -> Tensor:
        error = (p[:, 0] - b["y"][:, 0]).square()
        return (p[:, 1:].exp() * error + 0.1 * p[:, 1:].square()).mean()

    [finding] = crossing(weighed)
    assert (finding.severity, finding.evidence["operation"]) == ("warning", "mul")
    assert "(13, 1) meets one of (13,) and gives (13, 13)" in finding.message
    assert finding.location is not None
    assert finding.location.line == weighed.__code__.co_firstlineno + 2
    [finding] = crossing(lambda p, b: (p[:, :1] - b["y"][:, 0]).square().mean())
    assert finding.severity == "error"
    assert crossing(lambda p, b: (p[:, :1] - b["y"][:, :1]).square().mean()) == []


@pytest.mark.parametrize("size", [0.0, 1e-6])
def test_predictions_that_are_alike_are_not_held_against_every_target(size: float) -> None:
    """A last layer of zeros, and a loss that shares its weights out over the batch."""

    def shared(p: Tensor, b: Batch) -> Tensor:
        overlap = (p.softmax(1) * functional.one_hot(b["label"], 3)).sum(0)
        total = p.softmax(1).sum(0) + functional.one_hot(b["label"], 3).sum(0)
        dice = 1 - (2 * overlap + 1) / (total + 1)
        return functional.cross_entropy(p, b["label"]) + dice.mean()

    model = nn.Linear(4, 3)
    nn.init.normal_(model.weight, std=size)
    nn.init.zeros_(model.bias)
    recording = Recording(
        pipeline="p", batch_size=1, loss_probe=record_loss(numbers(shared, model=model))
    )
    found = judge(recording, [loss_mixes_samples]).findings
    assert [finding.severity for finding in found] in ([], ["note"])


def kernel(one: Tensor, other: Tensor) -> Tensor:
    """Of all pairs, by squares and products."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1)
    return (2 * one @ other.T - squares).exp()


PAIRS: dict[str, Loss] = {
    "ranks": lambda p, b: (
        (1 - (p[:, 0][:, None] - p[:, 0]) * (b["y"][:, :1] - b["y"][:, 0]).sign()).relu().mean()
    ),
    "kernel": lambda p, b: (kernel(p, p) - 2 * kernel(p, b["y"])).mean(),
    "nearest": lambda p, b: (p[:, 0][:, None] - b["y"][:, 0]).square().amin(1).mean(),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_that_are_meant_are_not_named(name: str) -> None:
    assert all(finding.severity == "note" for finding in crossing(PAIRS[name]))


def test_shares_stay_shares() -> None:
    def own(p: Tensor, b: Batch) -> Tensor:
        y = positive(b)
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    def spoilt(p: Tensor, b: Batch) -> Tensor:
        """Where no share is, it jumps."""
        p = p.reshape(-1, 2)
        return (p - positive(b)).square().mean() - (p > 1).float().sum()

    finding, *_ = judged(numbers(own, forward=lambda m, b: 0.5 + 0.4 * m(b["x"]).tanh()))[0]
    assert (finding.name, finding.evidence["where"]) == ("singular-loss", "best")
    findings, _ = judged(numbers(spoilt, forward=lambda m, b: 0.5 + 0.4 * m(b["x"]).tanh()))
    assert "jumps" in findings[0].message
    assert judged(numbers(spoilt, forward=lambda m, b: probability(m, b)[:, None, :]))[0] == ()


def test_how_near_to_0_a_loss_is_not_finite() -> None:
    [finding], _ = judged(numbers(divided))
    assert "For predictions of 0" in finding.message and "there alone" in finding.message
    [finding], _ = judged(numbers(narrow))
    assert finding.evidence["where"] == "zero" and 1e-7 < finding.evidence["width"] <= 1e-2


def test_the_line_of_a_pole_and_of_an_overflow() -> None:
    [finding], _ = judged(numbers(root))
    assert finding.location is not None
    assert finding.location.line == root.__code__.co_firstlineno + 1
    assert finding.evidence["one_row_is_enough"] is True
    [finding], _ = judged(numbers(sharp, width=3))
    assert finding.location is not None
    assert finding.location.line == sharp.__code__.co_firstlineno + 4
    assert finding.evidence["operation"] == "sinh"


def on_sky(loss: Loss) -> Pipeline:
    return numbers(
        loss,
        forward=lambda model, batch: math.pi * (1 + model(batch["x"]).tanh()),
        outputs={
            "azimuth": Domain(0, 2 * math.pi, periodic=True),
            "other": Domain(0, 2 * math.pi),
        },
    )


def test_a_seam() -> None:
    def bad(p: Tensor, b: Batch) -> Tensor:
        return (p - b["y"] % (2 * math.pi)).square().mean()

    def good(p: Tensor, b: Batch) -> Tensor:
        return (1 - (p[:, 0] - b["y"][:, 0]).cos() + (p[:, 1] - b["y"][:, 1]).square()).mean()

    def half(p: Tensor, b: Batch) -> Tensor:
        return 1 - (p[:, 0] - b["y"][:, 0]).cos().mean()

    [finding], _ = judged(on_sky(bad))
    assert (finding.name, finding.severity) == ("loss-not-periodic", "error")
    assert finding.evidence["output"] == "azimuth"
    assert judged(on_sky(good)) == ((), {})
    [finding], _ = judged(on_sky(half))
    assert (finding.name, finding.severity) == ("loss-ignores-targets", "warning")
    assert finding.evidence["unused"] == ("other",)


#: What stands in targets beside the truth: a mask, a weight, a number, a value for the eye.
BESIDE: dict[str, tuple[Callable[[Tensor], Tensor], Loss]] = {
    "truth alone": (lambda y: y, lambda p, b: (p - b["t"]).square().mean()),
    "number of the sample": (
        lambda y: torch.cat([torch.arange(len(y))[:, None] * 3.0, y[:, :1]], 1),
        lambda p, b: (p[:, 0] - b["t"][:, 1]).square().mean(),
    ),
    "mask of ones": (
        lambda y: torch.cat([y[:, :1], torch.ones(len(y), 1)], 1),
        lambda p, b: ((p[:, 0] - b["t"][:, 0])[b["t"][:, 1] > 0.5]).square().mean(),
    ),
    "weight": (
        lambda y: torch.cat([y[:, :1], y[:, 1:].abs()], 1),
        lambda p, b: (b["t"][:, 1] * (p[:, 0] - b["t"][:, 0]).square()).mean(),
    ),
    "for the eye": (
        lambda y: torch.cat([y, y[:, :1].exp()], 1),
        lambda p, b: (p - b["t"][:, :2]).abs().mean(),
    ),
    "threshold far off": (
        lambda y: y,
        lambda p, b: (p[:, 0] - b["t"][:, 0] - 0.1 * (b["t"][:, 1] > 9).float()).abs().mean(),
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_truth_is_no_finding(name: str) -> None:
    table, loss = BESIDE[name]
    made = numbers(loss)
    ys = table(torch.stack([sample["y"] for sample in made.dataset]))
    samples = [sample | {"t": y} for sample, y in zip(made.dataset, ys, strict=True)]
    assert judged(dataclasses.replace(made, dataset=samples))[0] == ()


def test_a_column_of_the_targets_that_is_left_out() -> None:
    declared: dict[str, Any] = {"outputs": {"first": Domain(-9, 9), "second": Domain(-9, 9)}}

    def twice(p: Tensor, b: Batch) -> Tensor:
        return (p - b["y"][:, :1]).square().mean()

    def once(p: Tensor, b: Batch) -> Tensor:
        return (p[:, 0] - b["y"][:, 0]).square().mean()

    [finding], _ = judged(numbers(twice, **declared))
    assert (finding.name, finding.severity) == ("loss-ignores-targets", "warning")
    assert (finding.evidence["column"], finding.evidence["output"]) == (1, "second")
    assert [f.severity for f in judged(numbers(twice))[0]] == ["note"]
    [finding], _ = judged(numbers(once))
    assert (finding.severity, finding.evidence["column"]) == ("warning", 1)
    # Of an output that is not trained at all one finding is enough.
    [finding], _ = judged(numbers(once, **declared))
    assert finding.evidence["unused"] == ("second",)


def test_a_truth_in_a_field_of_its_own_that_is_left_out() -> None:
    def direction(p: Tensor, b: Batch) -> Tensor:
        return (p - b["azimuth"][:, None]).square().mean()

    made = numbers(direction, outputs={"azimuth": Domain(-9, 9), "zenith": Domain(-9, 9)})
    samples = [s | {"azimuth": s["y"][0], "zenith": s["y"][1]} for s in made.dataset]
    [finding], _ = judged(dataclasses.replace(made, dataset=samples))
    assert (finding.severity, finding.evidence["tensor"]) == ("warning", "zenith")


def test_what_cannot_be_probed_is_said() -> None:
    def of_model(p: Any, b: Batch) -> Tensor:
        loss: Tensor = p["loss"]
        return loss

    def inside(model: nn.Module, batch: Batch) -> Any:
        return {"loss": functional.mse_loss(model(batch["x"]), batch["y"])}

    findings, reasons = judged(numbers(of_model, forward=inside))
    assert findings == ()
    assert {"loss-ignores-targets", "loss-mixes-samples"} <= set(reasons)
    assert "inside the model" in reasons["singular-loss"]

    def random(p: Tensor, b: Batch) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        return (p + torch.randn(p.shape, generator=generator)).square().mean()

    findings, reasons = judged(numbers(random))
    assert findings == () and "does not repeat" in reasons["singular-loss"]


def test_a_lazy_model_is_probed() -> None:
    """Its weights have no shape until it has run."""
    found = record_loss(odd.on_numbers(odd.Lazy(), lambda p, x: (p - x[:, :2]).square().mean()))
    assert found.targets is not None and not found.not_tried


def test_a_loss_that_the_model_takes_itself_is_said_to_be() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out: Tensor = self.layer(x)
            return {"loss": out.square().mean(), "out": out}

    found = record_loss(odd.on_numbers(Own(), lambda given, _: given["loss"]))
    [missing] = found.not_tried
    assert found.name == "the loss" and "what the model gives" in missing.reason


def test_a_distribution_is_not_moved_to_where_it_cannot_be() -> None:
    """Its scale is above 0, whatever a search for better predictions would like."""

    def spread(model: nn.Module, x: Tensor) -> Any:
        mean, width = model(x).unbind(-1)
        return torch.distributions.Normal(mean, functional.softplus(width) + 1e-3)

    made = odd.on_numbers(
        nn.Linear(3, 2), lambda given, x: -given.log_prob(x[:, 0]).mean(), forward=spread
    )
    [missing] = record_loss(made).not_tried
    assert "distribution" in missing.reason


def test_the_built_in_losses() -> None:
    small = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    for loss in ("angular", "vmf"):
        built = icecube(n_events=16, batch_size=16, config=small, loss=loss)
        before = [parameter.clone() for parameter in built.model.parameters()]
        random = torch.get_rng_state()
        assert judged(built) == ((), {})
        assert torch.equal(random, torch.get_rng_state())
        for parameter, was in zip(built.model.parameters(), before, strict=True):
            assert torch.equal(parameter, was) and parameter.grad is None
        assert all(module.training for module in built.model.modules())
    [finding], _ = judged(icecube(n_events=16, batch_size=16, config=small, loss="competition"))
    assert (finding.name, finding.severity) == ("singular-loss", "error")
    assert finding.evidence["width"] >= 1e-5
