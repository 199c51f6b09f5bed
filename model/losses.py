"""Losses on directions, and the competition's metric."""

# B events

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .directions import angle_between, to_unit_vector
from .heads import Prediction

#: Mean angle between a fixed direction and one that is uniform on the sphere: what a predictor that
#: knows nothing scores, radians.
UNINFORMED = math.pi / 2


def mean_angular_error(
    prediction: Prediction, targets: Float[Tensor, "events 2"]
) -> Float[Tensor, ""]:
    """Mean angle between prediction and truth, radians, 0..pi; gradient finite everywhere.

    Args:
        prediction: For B events.
        targets: `(B, 2)` azimuth, zenith, radians.
    """
    return angle_between(prediction.direction, to_unit_vector(*targets.unbind(-1))).mean()


def competition_metric(
    azimuth: Float[Tensor, "events"],
    zenith: Float[Tensor, "events"],
    targets: Float[Tensor, "events 2"],
) -> Float[Tensor, ""]:
    """The metric of the competition, computed as there: mean |arccos(clip(a . b, -1, 1))|, radians.

    In float64, for scoring. Not for training: the slope of arccos at +-1 is infinite, so a perfect
    prediction has a NaN gradient.
    """
    azimuth, zenith, targets = azimuth.double(), zenith.double(), targets.double()
    truth = to_unit_vector(*targets.unbind(-1))
    dot = (to_unit_vector(azimuth, zenith) * truth).sum(-1)
    return dot.clamp(-1, 1).arccos().abs().mean()


def log_sinh_over(kappa: Float[Tensor, "events"]) -> Float[Tensor, "events"]:
    """log(sinh(k) / k) - k, for k >= 0, without overflow and without cancellation.

    Above 0.5: log1p(-exp(-2 k)) - log(2 k). Below, where that is a difference of near equals, the
    series k^2/6 - k^4/180 + k^6/2835 - k, whose next term, k^8/37800, is below 1e-7 there.
    """
    small = kappa < 0.5
    # Each branch sees only arguments at which value and slope are finite.
    low = torch.where(small, kappa, 0.0)
    high = torch.where(small, 1.0, kappa)
    square = low * low
    series = square * (1 / 6 - square * (1 / 180 - square / 2835)) - low
    closed = torch.log1p(-torch.exp(-2 * high)) - torch.log(2 * high)
    return torch.where(small, series, closed)


def von_mises_fisher_nll(
    prediction: Prediction, targets: Float[Tensor, "events 2"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the truth under a von Mises-Fisher density on the sphere.

    density = kappa / (4 pi sinh kappa) exp(kappa cos angle); Mardia and Jupp, "Directional
    Statistics" (2000), section 9.3.2. Written as
    log 4 pi + [log(sinh k / k) - k] + k (1 - cos), with 1 - cos = |a - b|^2 / 2, it is stable for
    kappa from 1e-6 to 1e5. A predictor that knows nothing scores
    log 4 pi = 2.53; there is no floor.

    Raises:
        ValueError: The prediction has no kappa.
    """
    if prediction.kappa is None:
        raise ValueError(
            "prediction: a von Mises-Fisher loss needs kappa, which only the unit_vector head gives"
        )
    truth = to_unit_vector(*targets.unbind(-1))
    one_less_cos = (prediction.direction - truth).square().sum(-1) / 2
    kappa = prediction.kappa
    return (math.log(4 * math.pi) + log_sinh_over(kappa) + kappa * one_less_cos).mean()


Loss = Callable[[Prediction, Tensor], Tensor]
LossName = Literal["angular", "vmf", "competition"]


def arccos_error(prediction: Prediction, targets: Float[Tensor, "events 2"]) -> Float[Tensor, ""]:
    """The metric used as a loss, infinite slope and all: for comparison, not for use."""
    truth = to_unit_vector(*targets.unbind(-1))
    return (prediction.direction * truth).sum(-1).clamp(-1, 1).arccos().abs().mean()


LOSSES: dict[LossName, Loss] = {
    "angular": mean_angular_error,
    "vmf": von_mises_fisher_nll,
    "competition": arccos_error,
}

#: What each loss gives a predictor that knows nothing.
BASELINES: dict[LossName, float] = {
    "angular": UNINFORMED,
    "vmf": math.log(4 * math.pi),
    "competition": UNINFORMED,
}
