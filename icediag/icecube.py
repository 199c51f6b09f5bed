"""The built-in pipeline: `model/` wrapped as a `Pipeline`, as a user would wrap their own."""

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icediag.model.assembly import assemble
from icediag.model.collate import Batch
from icediag.model.dom_encoder import DomEncoder
from icediag.model.event import AUXILIARY, CHARGE, SENSOR_ID, TIME
from icediag.model.geometry import fourier_features
from icediag.model.heads import Prediction
from icediag.model.losses import Loss, LossName, competition_metric
from icediag.model.network import DirectionNetwork, NetworkConfig
from icediag.model.training.checkpoint import (
    Checkpoint,
    config_of,
    load_network,
    read_checkpoint,
)
from icediag.pipeline import Domain, Pipeline, Raw


def stages_of(network: DirectionNetwork) -> tuple[str, ...]:
    """Functions that are stages of the flow beside the modules, whichever parts are in use."""
    parts = network.parts
    functions: tuple[Callable[..., Any], ...] = (
        parts.relative_inputs,
        parts.pooling_weights,
        parts.rank,
        DomEncoder.pool,
        fourier_features,
        parts.pack,
    )
    return tuple(f"{function.__module__}:{function.__qualname__}" for function in functions)


def _on_batch(loss: Loss) -> Callable[[Prediction, Batch], Tensor]:
    """A loss of (prediction, targets) as one of (prediction, batch)."""

    @wraps(loss)
    def on_batch(prediction: Prediction, batch: Batch) -> Tensor:
        return loss(prediction, batch.targets)

    return on_batch


def _metric(prediction: Prediction, batch: Batch) -> Tensor:
    """What the competition scores by."""
    return competition_metric(prediction.azimuth, prediction.zenith, batch.targets)


def _save(path: Path, network: DirectionNetwork, optimizer: torch.optim.Optimizer) -> None:
    """Write what `icediag train` writes of the two."""
    Checkpoint(
        network=network.state_dict(),
        network_config=config_of(network),
        optimizer=optimizer.state_dict(),
        progress={},
        rng={},
        run={},
    ).write(path)


def _load(path: Path, network: DirectionNetwork, optimizer: torch.optim.Optimizer) -> None:
    """Put it back as a run that is resumed does."""
    checkpoint = read_checkpoint(path)
    load_network(path, checkpoint, network)
    optimizer.load_state_dict(checkpoint.optimizer)


def pipeline(
    *,
    data: Path | None = None,
    files: int | None = None,
    n_events: int = 1024,
    config: NetworkConfig | None = None,
    loss: LossName = "angular",
    faults: tuple[str, ...] = (),
    batch_size: int = 256,
    seed: int = 0,
) -> Pipeline:
    """Wrap the training implementation.

    Args:
        data: A data set in the competition's layout; None for embedded, simulated events.
        files: How many of its files; None for all.
        n_events: Number of embedded events.
        config: Of the network.
        loss: Which loss.
        faults: Faults to switch on.
        batch_size: Events a batch.
        seed: Of weights and embedded events.

    Raises:
        DataError: The data set is not what it must be.
        ValueError: Another argument is off.
    """
    whole = assemble(
        data=data,
        files=files,
        n_events=n_events,
        validation=0,
        config=config,
        loss=loss,
        faults=faults,
        seed=seed,
    )
    return Pipeline(
        name="icecube" + (f" with {', '.join(whole.faults)}" if whole.faults else ""),
        dataset=whole.dataset,
        collate=whole.collate,
        model=whole.network,
        loss=_on_batch(whole.loss),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3),
        batch_size=batch_size,
        outputs={
            "azimuth": Domain(0, 2 * math.pi, periodic=True),
            "zenith": Domain(0, math.pi),
        },
        baseline_loss=whole.baseline_loss,
        stages=stages_of(whole.network),
        contracts={
            "icediag.model.normalize:Normalizer": {
                "times": Raw("time", unit="ns"),
                "charges": Raw("charge", unit="p.e."),
                "auxiliary": Raw("auxiliary"),
            },
            "icediag.model.relative:RelativeEncoder": {
                "times": Raw("time", unit="ns"),
                "charges": Raw("charge", unit="p.e."),
            },
            "icediag.model.dom_encoder:DomEncoder": {"weights": Raw("charge", unit="p.e.")},
        },
        raw={
            "time": lambda batch: batch.pulse_features[:, TIME],
            "charge": lambda batch: batch.pulse_features[:, CHARGE],
            "sensor_id": lambda batch: batch.pulse_features[:, SENSOR_ID],
            "auxiliary": lambda batch: batch.pulse_features[:, AUXILIARY],
        },
        sources=("icediag.model",),
        metric=_metric,
        save=_save,
        load=_load,
    )
