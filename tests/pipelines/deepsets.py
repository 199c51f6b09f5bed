"""DeepSets on tuples, plain torch, with batch statistics and a padded batch."""

import torch
from torch import Tensor, nn

from icediag import Pipeline

LENGTHS = (3, 1, 5, 2, 4, 2, 3, 4)


def samples() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 6, generator=generator), torch.randn((), generator=generator))
        for n in LENGTHS
    ]


def collate(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    clouds = nn.utils.rnn.pad_sequence([points for points, _ in batch], batch_first=True)
    lengths = torch.tensor([len(points) for points, _ in batch])
    padding = torch.arange(clouds.shape[1]) >= lengths[:, None]
    return clouds, padding, lengths, torch.stack([target for _, target in batch])


def masked_mean(points: Tensor, padding: Tensor) -> Tensor:
    kept = points.masked_fill(padding[..., None], 0.0)
    return kept.sum(1) / (~padding).sum(1, keepdim=True)


class DeepSets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True))
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)

    def forward(self, batch: tuple[Tensor, ...]) -> Tensor:
        clouds, padding, *_ = batch
        pooled = masked_mean(self.encode(clouds), padding)
        out: Tensor = self.head(self.norm(pooled)).squeeze(-1)
        return out


def pipeline() -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="deepsets",
        dataset=samples(),
        collate=collate,
        model=DeepSets(),
        loss=lambda predicted, batch: (predicted - batch[3]).square().mean(),
        batch_size=8,
    )
