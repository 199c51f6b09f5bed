"""A small convolutional net on images, with torch's own data set and collate."""

import torch
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from icediag import Pipeline


def pipeline(n: int = 8) -> Pipeline:
    torch.manual_seed(0)
    # 8 channels and 8 images: a size that coincides is no axis.
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return Pipeline(
        name="images",
        dataset=TensorDataset(torch.rand(16, 3, 8, 8), torch.randint(0, 10, (16,))),
        collate=default_collate,
        model=model,
        forward=lambda model, batch: model(batch[0]),
        loss=lambda logits, batch: nn.functional.cross_entropy(logits, batch[1]),
        batch_size=n,
    )
