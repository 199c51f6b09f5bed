"""A metric disagrees with the loss: runs that fire and others that stay silent."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from icediag import Pipeline
from icediag.checks import metric_disagrees
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.loss_probe import record_loss
from icediag.model.directions import to_unit_vector
from icediag.model.losses import competition_metric
from icediag.model.network import NetworkConfig
from icediag.recording import Recording, Unjudged
from tests.test_loss_probe import Batch, numbers

Metric = Callable[[Any, Batch], Any]


def answer(pipeline: Pipeline) -> tuple[Finding, ...] | Unjudged:
    recording = Recording(pipeline="p", batch_size=1, loss_probe=record_loss(pipeline))
    return metric_disagrees.check(Recording.from_json(recording.to_json()))


def mse(p: Tensor, b: Batch) -> Tensor:
    return functional.mse_loss(p, b["y"])


def labelled(p: Tensor, b: Batch) -> Tensor:
    return functional.cross_entropy(p, b["label"])


def accuracy(p: Tensor, b: Batch) -> Tensor:
    return (p.argmax(-1) == b["label"]).float().mean()


def log_width(p: Tensor, b: Batch) -> Tensor:
    return (torch.exp(-p[:, 2:]) * (p[:, :2] - b["y"]).square() + p[:, 2:]).mean()


AGREE: dict[str, tuple[Callable[[Any, Batch], Tensor], Metric, int]] = {
    "absolute": (mse, lambda p, b: (p - b["y"]).abs().mean(), 2),
    "median": (mse, lambda p, b: (p - b["y"]).norm(dim=1).median(), 2),
    "largest": (mse, lambda p, b: (p - b["y"]).norm(dim=1).max().item(), 2),
    "explained": (mse, lambda p, b: 1 - mse(p, b) / b["y"].var(), 2),
    "one column": (mse, lambda p, b: {"second": (p - b["y"])[:, 1].square().mean()}, 2),
    "in degrees": (mse, lambda p, b: math.degrees((p - b["y"]).abs().mean()), 2),
    "accuracy": (labelled, accuracy, 3),
    "of the width too": (log_width, lambda p, b: (p[:, :2] - b["y"]).abs().mean(), 3),
    "width alone": (log_width, lambda p, b: p[:, 2].exp().mean(), 3),
    "coarse": (mse, lambda p, b: ((p - b["y"]).abs() < 0.5).float().mean(), 2),
}


@pytest.mark.parametrize("name", AGREE)
def test_metrics_that_agree(name: str) -> None:
    loss, metric, width = AGREE[name]
    assert answer(numbers(loss, metric=metric, width=width)) == ()


DISAGREE: dict[str, tuple[Callable[[Any, Batch], Tensor], Metric, int, str]] = {
    "columns exchanged": (mse, lambda p, b: (p - b["y"].flip(1)).abs().mean(), 2, "warning"),
    "next row": (mse, lambda p, b: (p - b["y"].roll(1, 0)).abs().mean(), 2, "warning"),
    "labels of other rows": (
        labelled,
        lambda p, b: (p.argmax(-1) == b["label"].flip(0)).float().mean(),
        3,
        "warning",
    ),
    "targets alone": (mse, lambda p, b: (b["y"] - b["y"].mean(0)).abs().mean(), 2, "warning"),
    "not a number at best": (
        lambda p, b: 1 - functional.cosine_similarity(p, b["y"]).mean(),
        lambda p, b: (functional.cosine_similarity(p, b["y"]) + 1e-5).arccos().mean(),
        2,
        "warning",
    ),
    "every row against every other": (
        mse,
        lambda p, b: (p[:, :1] - b["y"][:, 0]).abs().mean(),
        2,
        "note",
    ),
    "one of two": (
        mse,
        lambda p, b: {"mae": (p - b["y"]).abs().mean(), "other": (p - b["y"].flip(0)).abs().mean()},
        2,
        "warning",
    ),
}


@pytest.mark.parametrize("name", DISAGREE)
def test_metrics_that_do_not(name: str) -> None:
    loss, metric, width, severity = DISAGREE[name]
    found = answer(numbers(loss, metric=metric, width=width))
    assert not isinstance(found, Unjudged)
    assert [f.severity for f in found] == [severity], found
    assert found[0].stage == "metric" and found[0].location is not None
    if name == "one of two":
        assert found[0].evidence["metric"] == "other"


SMALL = NetworkConfig(d_model=8, n_heads=1, n_layers=1)


@pytest.mark.parametrize("loss", ["angular", pytest.param("vmf", marks=pytest.mark.slow)])
def test_the_built_in_metric_goes_by_angles_and_the_loss_by_a_vector(loss: Any) -> None:
    built = icecube(n_events=16, batch_size=16, config=SMALL, loss=loss)
    assert answer(built) == ()

    def exchanged(p: Any, b: Any) -> Tensor:
        return competition_metric(p.zenith, p.azimuth, b.targets)

    def degrees(p: Any, b: Any) -> Tensor:
        truth = to_unit_vector(*torch.rad2deg(b.targets).unbind(-1))
        angle: Tensor = (p.direction * truth).sum(-1).clamp(-1, 1).arccos()
        return angle.mean()

    for wrong in (exchanged, degrees):
        found = answer(dataclasses.replace(built, metric=wrong))
        assert not isinstance(found, Unjudged)
        assert [f.severity for f in found] == ["warning"], found


def test_it_says_what_it_cannot_judge() -> None:
    found = answer(numbers(mse))
    assert isinstance(found, Unjudged) and "no metric" in found.reason

    def broken(p: Tensor, b: Batch) -> Tensor:
        raise KeyError("no such field")

    found = answer(numbers(mse, metric=broken))
    assert isinstance(found, Unjudged) and "no such field" in found.reason
    found = answer(numbers(mse, metric=lambda p, b: "good"))
    assert isinstance(found, Unjudged) and "expected a number" in found.reason
