"""What a loss takes for logits, and what it is handed."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline
from icediag.checks import judge, squashed_logits
from icediag.finding import Finding
from icediag.instruments.examine import examine
from icediag.instruments.squashing import record_squashing

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Batch], Tensor]


class Ends(nn.Module):
    """A layer, and whatever a network may end in."""

    def __init__(self, end: Callable[[Tensor], Tensor], width: int = 3) -> None:
        super().__init__()
        self.layer, self.end = nn.Linear(4, width), end

    def forward(self, batch: Batch) -> Tensor:
        return self.end(self.layer(batch[0]))


def made(end: Callable[[Tensor], Tensor], loss: Loss, width: int = 3) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="ends",
        dataset=[(torch.randn(4), torch.tensor(i % 3)) for i in range(12)],
        collate=torch.utils.data.default_collate,
        model=Ends(end, width),
        loss=loss,
        batch_size=6,
    )


def findings_of(pipeline: Pipeline) -> tuple[Finding, ...]:
    recording = examine(pipeline, needs=squashed_logits.NEEDS)
    return judge(recording, [squashed_logits]).findings


def entropy(p: Tensor, b: Batch) -> Tensor:
    return functional.cross_entropy(p, b[1])


def likelihood(p: Tensor, b: Batch) -> Tensor:
    return functional.nll_loss(p, b[1])


def binary(p: Tensor, b: Batch) -> Tensor:
    return functional.binary_cross_entropy_with_logits(p[:, 0], (b[1] > 0).float())


def same(x: Tensor) -> Tensor:
    return x


BAD: dict[str, tuple[Any, Loss, str, str]] = {
    "softmax": (lambda x: x.softmax(1), entropy, "log_softmax", "warning"),
    "sigmoid": (torch.sigmoid, entropy, "log_softmax", "warning"),
    "clamped": (lambda x: x.softmax(-1).clamp(1e-6, 1), entropy, "log_softmax", "warning"),
    "in-place": (lambda x: x.sigmoid_(), binary, "binary_cross_entropy_with_logits", "warning"),
    "sigmoid-twice": (torch.sigmoid, binary, "binary_cross_entropy_with_logits", "warning"),
    "exp-of-log-softmax": (lambda x: x.log_softmax(1).exp(), entropy, "log_softmax", "warning"),
    "exp-of-log-sigmoid": (
        lambda x: functional.logsigmoid(x).exp_(),
        binary,
        "binary_cross_entropy_with_logits",
        "warning",
    ),
    "no-logarithm": (lambda x: x.softmax(1), likelihood, "nll_loss", "warning"),
    "scores": (same, likelihood, "nll_loss", "error"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_squashed_before(name: str) -> None:
    end, loss, op, severity = BAD[name]
    (finding,) = findings_of(made(end, loss))
    assert (finding.severity, finding.stage) == (severity, "loss")
    assert finding.evidence["operation"] == op
    assert finding.location is not None
    assert finding.location.file == "tests/test_squashing.py"


def test_the_floor_is_what_the_loss_reaches_at_best() -> None:
    (finding,) = findings_of(made(lambda x: x.softmax(1), entropy))
    sure = functional.one_hot(torch.arange(3), 3).float()
    least = float(functional.cross_entropy(sure, torch.arange(3)))
    assert finding.evidence["floor"] == pytest.approx(least)
    assert finding.evidence["uninformed"] == pytest.approx(math.log(3))


GOOD: dict[str, tuple[Any, Loss]] = {
    "logits": (same, entropy),
    "log-softmax": (lambda x: x.log_softmax(1), likelihood),
    "log-softmax-twice": (lambda x: x.log_softmax(1), entropy),
    "logarithm": (lambda x: x.softmax(1).clamp_min(1e-9).log(), likelihood),
    "logarithm-in-place": (lambda x: x.softmax(1).log_(), likelihood),
    "exp-of-scores": (torch.exp, entropy),
    "exp-of-what-was-changed": (lambda x: (x.log_softmax(1) / 2).exp(), entropy),
    "exp-and-back": (lambda x: x.log_softmax(1).exp().log(), likelihood),
    "log-sigmoid": (functional.logsigmoid, entropy),
    "temperature": (lambda x: x.tanh() * 10, entropy),
    "scaled": (lambda x: x.sigmoid() * 10 - 5, entropy),
    "binary": (same, binary),
    "own-binary": (
        torch.sigmoid,
        lambda p, b: functional.binary_cross_entropy(p[:, 0], (b[1] > 0).float()),
    ),
    "attention": (lambda x: (x.softmax(1).unsqueeze(2) * x.unsqueeze(1)).sum(1), entropy),
    "other-axis": (lambda x: x.softmax(0), entropy),
    "squares": (torch.sigmoid, lambda p, b: (p[:, 0] - b[1]).square().mean()),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_in_order(name: str) -> None:
    end, loss = GOOD[name]
    assert findings_of(made(end, loss)) == ()


def test_a_loss_that_raises_is_not_judged() -> None:
    def raising(p: Tensor, b: Batch) -> Tensor:
        raise ValueError("no such loss")

    record = record_squashing(made(same, raising))
    assert record.squashed == ()
    assert any("no such loss" in item.reason for item in record.not_judged)
