"""The whole training implementation, put together: data, collate, network, loss, faults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from .collate import Batch, collate
from .dataset import IceCubeDataset
from .event import Event, EventDataset, FileDataset
from .faults import chosen_faults
from .losses import BASELINES, LOSSES, Loss, LossName
from .network import DirectionNetwork, NetworkConfig, Parts
from .simulate import default_events
from .split import split_by_hash
from .table import TableDataset
from .truth import event_truth


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A training implementation, ready to run.

    Attributes:
        dataset: All events.
        train_indices: Which of them to train on.
        validation_indices: Which of them are held out; may be none.
        collate: events -> batch.
        network: The network.
        loss: (prediction, targets) -> scalar.
        loss_name: Which it is.
        baseline_loss: What a predictor that knows nothing scores.
        faults: Names of the faults that are switched on.
    """

    dataset: EventDataset
    train_indices: npt.NDArray[np.int64]
    validation_indices: npt.NDArray[np.int64]
    collate: Callable[[Sequence[Event]], Batch]
    network: DirectionNetwork
    loss: Loss
    loss_name: LossName
    baseline_loss: float
    faults: tuple[str, ...]


def open_events(
    data: Path | None = None, *, files: int | None = None, n_events: int = 4096, seed: int = 0
) -> FileDataset:
    """Open a data set in the competition's layout, or the embedded, simulated events.

    Args:
        data: The data set's folder; None for the embedded events.
        files: How many of its files, from the first on; None for all.
        n_events: Number of embedded events.
        seed: Of the simulation.

    Raises:
        DataError: The data set is not what it must be.
    """
    if data is None:
        table, truth = default_events(n_events, seed)
        return TableDataset(table, truth=event_truth(truth))
    return IceCubeDataset(data, files=files)


def assemble(
    *,
    data: Path | None = None,
    files: int | None = None,
    n_events: int = 4096,
    validation: float = 0.1,
    config: NetworkConfig | None = None,
    loss: LossName = "angular",
    faults: Sequence[str] = (),
    seed: int = 0,
) -> Assembly:
    """Put a training implementation together.

    The global random generators are left as they were; the network's weights follow from `seed`.

    Args:
        data: See `open_events`.
        files: See `open_events`.
        n_events: See `open_events`.
        validation: Share of events to hold out, chosen by hash of event_id; 0..1.
        config: Of the network.
        loss: `angular`, `vmf` or `competition`.
        faults: Names of faults to switch on; `case` for all that the case names.
        seed: Of weights, embedded events and split.

    Raises:
        DataError: The data set is not what it must be.
        ValueError: Another argument is off.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if not 0 <= validation < 1:
        raise ValueError(f"validation: expected a share from 0 to below 1, got {validation}")
    chosen = chosen_faults(faults)
    config = config or NetworkConfig()
    if loss == "vmf" and (
        config.head != "unit_vector" or any(f.name == "unbounded-output" for f in chosen)
    ):
        raise ValueError("loss: vmf needs the unit_vector head, the only one that gives kappa")
    files_of_events = open_events(data, files=files, n_events=n_events, seed=seed)
    dataset: EventDataset = files_of_events
    parts = Parts()
    for fault in chosen:
        parts = fault.parts(parts) if fault.parts else parts
        # One fault alone replaces the data set, so none is lost here.
        dataset = fault.dataset(files_of_events) if fault.dataset else dataset
    ids = np.asarray(dataset.event_ids)
    if validation:
        train, held_out = split_by_hash(ids, validation=validation, seed=seed)
    else:
        train, held_out = np.arange(ids.size), np.arange(0)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the generators of all GPUs as well.
        torch.default_generator.manual_seed(seed)
        network = DirectionNetwork(config, positions_m=dataset.geometry(), parts=parts)
    return Assembly(
        dataset=dataset,
        train_indices=np.asarray(train, dtype=np.int64),
        validation_indices=np.asarray(held_out, dtype=np.int64),
        collate=collate,
        network=network,
        loss=LOSSES[loss],
        loss_name=loss,
        baseline_loss=BASELINES[loss],
        faults=tuple(fault.name for fault in chosen),
    )
