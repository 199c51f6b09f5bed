"""Scores: mean and median angular error, event by event, and the mean loss."""

# B events of a batch, N events in all

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le, Unit
from jaxtyping import Float
from torch import Tensor, nn

from icediag.model.collate import Batch
from icediag.model.directions import angle_between, to_unit_vector
from icediag.model.errors import DataError
from icediag.model.heads import Prediction
from icediag.model.losses import Loss

#: Event ids that a message names before it says "and N more".
NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of N events.

    Attributes:
        events: N.
        loss: Mean loss of an event.
        mean: Mean angular error, rad: the competition's metric.
        median: Median angular error, rad; the mean of the middle two where N is even.
    """

    events: int
    loss: float
    mean: float
    median: float


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for matrix products on a GPU, nothing on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def angular_errors(
    prediction: Prediction, targets: Float[Tensor, "events 2"]
) -> Annotated[Float[Tensor, "events"], Unit("rad"), Ge(0), Le(torch.pi)]:
    """`(B,)` float64 angle between predicted and true direction, rad, from the predicted angles.

    The same number as the competition's |arccos(a . b)| but for that formula's rounding, which near
    0 and pi is 1e-8.
    """
    predicted = to_unit_vector(prediction.azimuth.double(), prediction.zenith.double())
    return angle_between(predicted, to_unit_vector(*targets.double().unbind(-1)))


def name_events(event_ids: list[int]) -> str:
    """For a message: `events 3, 4 and 254 more`."""
    first = ", ".join(str(i) for i in event_ids[:NAMED])
    more = f" and {len(event_ids) - NAMED} more" if len(event_ids) > NAMED else ""
    return f"event{'s' if len(event_ids) > 1 else ''} {first}{more}"


def score(
    network: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    device: torch.device,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Score | None:
    """Score events.

    Each event counts the same, whatever the sizes of the batches. The network is in `eval` mode
    meanwhile; no random number is drawn.

    Args:
        network: Batch in, `Prediction` out, on `device`.
        batches: On the host.
        loss: Mean over a batch's events.
        device: Where to compute.
        stop: Asked after each batch; True ends it.

    Returns:
        The score, or None where it was stopped.

    Raises:
        DataError: A prediction or loss is not a finite number; its events are named.
        ValueError: There are no events.
    """
    was_training = network.training
    network.eval()
    errors: list[Tensor] = []
    losses: list[Tensor] = []
    event_ids: list[Tensor] = []
    try:
        with torch.no_grad():
            for host_batch in batches:
                batch = host_batch.to(device, non_blocking=True)
                with autocast(device):
                    prediction = network(batch)
                # Nothing is read from the device before the end.
                losses.append(loss(prediction, batch.targets).double() * batch.batch_size)
                errors.append(angular_errors(prediction, batch.targets))
                event_ids.append(host_batch.event_ids)
                if stop():
                    return None
    finally:
        network.train(was_training)
    if not errors:
        raise ValueError("batches: expected at least one, got none")
    errors_N = torch.cat(errors).cpu()
    mean_loss = torch.stack(losses).cpu().sum().item() / len(errors_N)
    bad_N = ~errors_N.isfinite()
    if bad_N.any() or not math.isfinite(mean_loss):
        of = torch.cat(event_ids)
        named = of[bad_N] if bad_N.any() else of
        raise DataError(f"the score is not finite ({name_events(named.tolist())})")
    return Score(
        events=len(errors_N),
        loss=mean_loss,
        mean=errors_N.mean().item(),
        median=_median(errors_N),
    )


def _median(values: Tensor) -> float:
    """Of N >= 1 values. `Tensor.median` of an even number is the lower of the middle two alone."""
    ordered = values.sort().values
    middle = len(ordered) // 2
    return (ordered[middle].item() + ordered[-1 - middle].item()) / 2
