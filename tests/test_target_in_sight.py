"""Predictions of what comes next, with it in sight and without."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline
from icediag.checks import judge, target_in_sight
from icediag.instruments.loss_probe import record_loss
from icediag.recording import Recording
from tests.pipelines import language

VOCABULARY, LENGTH = 12, 10


class Next(nn.Module):
    """Attention in one layer, under a mask that begins `ahead` places after each query."""

    def __init__(self, ahead: int, *, cuts: bool) -> None:
        super().__init__()
        self.ahead, self.cuts = ahead, cuts
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.place = nn.Embedding(LENGTH, 16)
        self.body = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens[:, :-1] if self.cuts else tokens
        n = tokens.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).triu(self.ahead)
        hidden = self.embed(tokens) + self.place(torch.arange(n))
        out: Tensor = self.head(self.body(hidden, mask))
        return out


class Forecast(nn.Module):
    """The next value of a series, by a recurrent net that may run backwards too."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.net = nn.GRU(2, 8, batch_first=True, bidirectional=both)
        self.head = nn.Linear(16 if both else 8, 2)

    def forward(self, series: Tensor) -> Tensor:
        out: Tensor = self.head(self.net(series)[0])
        return out


def severities(model: nn.Module, data: Tensor, loss: Any) -> list[tuple[str, int]]:
    pipeline = Pipeline(
        name="next",
        dataset=list(data),
        collate=torch.stack,
        model=model,
        loss=loss,
        batch_size=9,
    )
    recording = Recording(pipeline="p", batch_size=9, loss_probe=record_loss(pipeline))
    diagnosis = judge(Recording.from_json(recording.to_json()), [target_in_sight])
    return [(finding.severity, finding.evidence["lag"]) for finding in diagnosis.findings]


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize(("ahead", "sees"), [(1, False), (2, True), (LENGTH, True)])
def test_masks_that_let_the_next_token_through(ahead: int, sees: bool, cuts: bool) -> None:
    def loss(logits: Tensor, tokens: Tensor) -> Tensor:
        logits = logits if cuts else logits[:, :-1]
        return functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], ignore_index=0)

    torch.manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (12, LENGTH))
    assert severities(Next(ahead, cuts=cuts), tokens, loss) == [("error", 1)] * sees


@pytest.mark.parametrize(("both", "lag"), [(False, 1), (True, 1), (True, 2)])
def test_forecasts(both: bool, lag: int) -> None:
    def loss(predicted: Tensor, series: Tensor) -> Tensor:
        return (predicted[:, :-lag] - series[:, lag:]).square().mean()

    torch.manual_seed(0)
    series = torch.randn(12, LENGTH, 2)
    assert severities(Forecast(both), series, loss) == [("error", lag)] * both


def test_what_is_to_give_what_it_is_given_is_not_judged() -> None:
    torch.manual_seed(0)
    series = torch.randn(12, LENGTH, 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * LENGTH, 2 * LENGTH), nn.Unflatten(1, (-1, 2)))
    assert severities(net, series, functional.mse_loss) == []


def test_a_language_model_in_order() -> None:
    record = record_loss(language.pipeline())
    recording = Recording(pipeline="p", batch_size=6, loss_probe=record)
    assert judge(recording, [target_in_sight]).findings == ()
