"""A recurrent net on packed sequences, from a stream of numpy arrays, in named tuples."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import IterableDataset

from icediag import Pipeline

LENGTHS = (4, 7, 2, 5, 6, 3)


class Stream(IterableDataset[dict[str, Any]]):
    def __iter__(self) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(0)
        for n in LENGTHS:
            yield {"signal": rng.normal(size=(n, 5)).astype(np.float32), "label": np.float32(n)}

    def __len__(self) -> int:
        return len(LENGTHS)


class Sequences(NamedTuple):
    packed: PackedSequence
    labels: Tensor


def collate(samples: list[dict[str, Any]]) -> Sequences:
    signals = [torch.from_numpy(sample["signal"]) for sample in samples]
    labels = torch.tensor([float(sample["label"]) for sample in samples])
    return Sequences(pack_sequence(signals, enforce_sorted=False), labels)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 9)
        self.head = nn.Linear(9, 1)

    def forward(self, batch: Sequences) -> Tensor:
        _, last = self.rnn(batch.packed)
        out: Tensor = self.head(last[0]).squeeze(-1)
        return out


def pipeline() -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="sequences",
        dataset=Stream(),
        collate=collate,
        model=Recurrent(),
        loss=lambda predicted, batch: (predicted - batch.labels).abs().mean(),
        batch_size=6,
    )
