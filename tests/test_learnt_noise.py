"""What was learnt by heart is random numbers: a run that fires and ones that stay silent."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline
from icediag.checks import learnt_noise
from icediag.finding import Finding
from icediag.instruments.overfit.run import record_overfit
from icediag.recording import Recording, Unjudged
from tests.healthy_learning import mlp, of


class Coder(nn.Module):
    """A code of four numbers with noise on it; of the mean of the code the decoder may not hear."""

    def __init__(self, *, hears: bool, noise: float) -> None:
        super().__init__()
        self.encode, self.decode = mlp(12, 48, 4), mlp(4, 48, 12)
        self.hears, self.noise = hears, noise

    def forward(self, x: Tensor) -> Any:
        mean = self.encode(x)
        drawn = self.noise * torch.randn_like(mean) if self.noise else 0.0
        return {"x": self.decode((mean if self.hears else 0 * mean) + drawn), "mean": mean}


def coded(*, hears: bool, noise: float) -> Pipeline:
    torch.manual_seed(0)
    x = torch.randn(16, 3) @ torch.randn(3, 12)
    return of(
        Coder(hears=hears, noise=noise),
        x,
        x,
        lambda p, y: functional.mse_loss(p["x"], y) + 1e-3 * p["mean"].square().mean(),
        batch_size=16,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
    )


def answer(pipeline: Pipeline) -> tuple[Finding, ...] | Unjudged:
    recording = Recording(pipeline="p", batch_size=16, overfit=record_overfit(pipeline))
    return learnt_noise.check(Recording.from_json(recording.to_json()))


def test_it_fires() -> None:
    found = answer(coded(hears=False, noise=1.0))
    assert not isinstance(found, Unjudged)
    [finding] = found
    assert (finding.severity, finding.stage) == ("note", "model")
    assert min(finding.evidence["with_others"]) > finding.evidence["baseline"]


@pytest.mark.parametrize("noise", [0.3, 0.0])
def test_it_stays_silent(noise: float) -> None:
    assert answer(coded(hears=True, noise=noise)) == ()


def test_it_says_what_it_cannot_judge() -> None:
    found = learnt_noise.check(Recording(pipeline="empty", batch_size=1))
    assert isinstance(found, Unjudged) and found.name == learnt_noise.NAME
