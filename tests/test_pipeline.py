"""Tests of the description of a pipeline: what cannot be one is refused where it is made."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate

from icediag import Pipeline
from icediag.instruments.recorder.record import record

ROWS = [torch.full((2,), float(i)) for i in range(8)]


def made(dataset: Any) -> Pipeline:
    return Pipeline(
        name="mean",
        dataset=dataset,
        collate=default_collate,
        model=nn.Linear(2, 1),
        loss=lambda p, b: p.square().mean(),
        batch_size=4,
    )


def test_a_loader_of_batches_is_no_data_set() -> None:
    with pytest.raises(ValueError, match="Pipeline.loader"):
        made(DataLoader(ROWS, batch_size=2))  # type: ignore[arg-type]


def test_a_loader_of_samples_is_one() -> None:
    loader = DataLoader(ROWS, batch_size=None)  # type: ignore[arg-type,var-annotated]
    recording = record(made(loader))
    (item,) = recording.stages[0].tensors
    assert (item.shape, recording.batch_size) == ((2,), 4)
