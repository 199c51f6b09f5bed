"""PointNet on ragged point clouds: modules, tuple batches, padding and a mask, classification."""

# B clouds, L longest cloud, F features

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline

from .case import Fault, Patient

N_CLOUDS, N_CLASSES = 96, 3


class Clouds:
    """Ellipsoids, of which the longest axis is the class; x, y, z and a brightness."""

    def __init__(self, fault: str | None) -> None:
        generator = torch.Generator().manual_seed(3)
        self.clouds: list[tuple[Tensor, int]] = []
        for index in range(N_CLOUDS):
            label = index % N_CLASSES
            n = int(torch.randint(6, 40, (), generator=generator))
            points = torch.randn(n, 3, generator=generator) * 0.7
            points[:, label] *= 2.0
            bright = torch.randn(n, 1, generator=generator)
            if fault == "millimetres":
                points = points * 4000 + 15000
            if fault == "centimetres":
                points = points * 100
            if fault == "constant-column":
                bright = torch.full_like(bright, 0.25)
            if fault == "bright-tail":
                bright = bright.mul(3.5).exp()
            self.clouds.append((torch.cat([points, bright], 1), label))

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.clouds[index]


Batch = tuple[Tensor, Tensor, Tensor]


def collate(samples: list[tuple[Tensor, int]]) -> Batch:
    """Pad to the longest cloud; True in the mask is a point."""
    points = nn.utils.rnn.pad_sequence([cloud for cloud, _ in samples], batch_first=True)
    lengths = torch.tensor([len(cloud) for cloud, _ in samples])
    mask = torch.arange(points.shape[1]) < lengths[:, None]
    return points, mask, torch.tensor([label for _, label in samples])


def collate_sorted(samples: list[tuple[Tensor, int]]) -> Batch:
    """Sorts the clouds by length, and forgets the labels."""
    points, mask, labels = collate(samples)
    order = mask.sum(1).argsort(descending=True)
    return points[order], mask[order], labels


def collate_by_point(samples: list[tuple[Tensor, int]]) -> Batch:
    """Copies point by point."""
    longest = max(len(cloud) for cloud, _ in samples)
    points = torch.zeros(len(samples), longest, 4)
    mask = torch.zeros(len(samples), longest, dtype=torch.bool)
    for row, (cloud, _) in enumerate(samples):
        for place, point in enumerate(cloud):
            points[row, place] = point
            mask[row, place] = True
    return points, mask, torch.tensor([label for _, label in samples])


class PaddedNorm(nn.BatchNorm1d):
    """Batch statistics over the points of all clouds, padding included."""

    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points.transpose(1, 2)).transpose(1, 2)


class PointEncoder(nn.Module):
    """Each point by itself."""

    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 32)
        self.second = nn.Linear(32, 32)
        self.norm = PaddedNorm(32) if fault == "norm-over-padding" else nn.LayerNorm(32)
        self.drop = nn.Dropout(0.1 if fault == "dropout" else 0.0)
        if fault == "dead-units":
            nn.init.constant_(self.first.bias, -60.0)
        if fault == "frozen-layer":
            self.second.requires_grad_(False)

    def forward(self, points: Tensor) -> Tensor:
        hidden = self.drop(functional.relu(self.first(points)))
        out: Tensor = self.norm(functional.gelu(self.second(hidden)))
        return out


class Pool(nn.Module):
    """Masked maximum and mean."""

    def forward(
        self,
        points: Float[Tensor, "clouds longest features"],
        mask: Bool[Tensor, "clouds longest"],
    ) -> Float[Tensor, "clouds pooled"]:
        highest = points.masked_fill(~mask[..., None], -torch.inf).amax(1)
        mean = (points * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.cat([highest, mean], 1)


class UnmaskedPool(nn.Module):
    """Padding counts."""

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([points.amax(1), points.mean(1)], 1)


class LoopPool(nn.Module):
    """Cloud by cloud, point by point, with a read from the device each."""

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        rows = []
        for cloud, kept in zip(points, mask, strict=True):
            total = torch.zeros(cloud.shape[1])
            n = 0
            for place in range(len(cloud)):
                if kept[place].item():
                    total = total + cloud[place]
                    n += 1
            highest = cloud[kept].amax(0)
            rows.append(torch.cat([highest, total / n]))
        return torch.stack(rows)


class RootPool(Pool):
    """Weighs points by their length, whose slope is infinite where padding was set to 0."""

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        kept = points * mask[..., None]
        return super().forward(points * kept.square().sum(2, keepdim=True).sqrt(), mask)


class BatchCentredPool(Pool):
    """Takes the batch's mean away, in evaluation as well."""

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        pooled = super().forward(points, mask)
        return pooled - pooled.mean(0, keepdim=True)


POOLS: dict[str, type[nn.Module]] = {
    "unmasked-pool": UnmaskedPool,
    "loop-pool": LoopPool,
    "batch-centred": BatchCentredPool,
    "root-of-padding": RootPool,
}


class PointNet(nn.Module):
    """Encoder, pool, classifier."""

    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.encoder = PointEncoder(fault)
        self.pool = POOLS.get(fault or "", Pool)()
        self.classifier = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, N_CLASSES))

    def forward(self, batch: Batch) -> Tensor:
        points, mask, _ = batch
        hidden = self.encoder(points)
        if self.fault == "detached":
            hidden = hidden.detach()
        pooled = self.pool(hidden, mask)
        if self.fault == "log-of-negative":
            pooled = pooled.log()
        logits: Tensor = self.classifier(pooled)
        return logits


def loss(logits: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(logits, batch[2])


def weighted_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Some classes count more."""
    weight = torch.tensor([1.0, 2.0, 0.5])
    return functional.cross_entropy(logits, batch[2], weight=weight, label_smoothing=0.05)


def constant_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Predictions against themselves."""
    return functional.cross_entropy(logits, logits.detach().argmax(1))


LOSSES = {"loss-without-targets": constant_loss, "weighted": weighted_loss}
COLLATES = {"labels-left-behind": collate_sorted, "collate-by-point": collate_by_point}


def pipeline(fault: str | None = None) -> Pipeline:
    torch.manual_seed(0)
    rates = {"rate-zero": 0.0, "rate-huge": 300.0}
    return Pipeline(
        name="clouds",
        dataset=Clouds(fault),
        collate=COLLATES.get(fault or "", collate),
        model=PointNet(fault),
        loss=LOSSES.get(fault or "", loss),
        optimizer=lambda parameters: torch.optim.Adam(parameters, rates.get(fault or "", 2e-3)),
        batch_size=24,
        contracts={
            "tests.faults.clouds:PointEncoder": {
                "points": (Float[Tensor, "clouds longest 4"], Ge(-30), Le(30))
            }
        },
        sources=("tests.faults.clouds",),
    )


def build(fault: str | None) -> Pipeline:
    return pipeline(fault)


PATIENT = Patient(
    name="clouds",
    build=build,
    variants=("dropout", "weighted"),
    faults=(
        Fault(name="millimetres", checks=("unnormalized-input",), stages=("encoder", "collate")),
        Fault(name="constant-column", checks=("constant-feature",), stages=("encoder", "collate")),
        Fault(name="bright-tail", checks=("heavy-tail",), stages=("encoder", "collate")),
        Fault(name="labels-left-behind", checks=("targets-shuffled",), stages=("collate",)),
        Fault(name="collate-by-point", checks=("python-loop",), stages=("collate",)),
        Fault(name="loop-pool", checks=("python-loop",), stages=("pool",)),
        Fault(
            name="unmasked-pool",
            checks=("padding-leak", "padding-in-statistics"),
            stages=("pool", "model"),
        ),
        Fault(
            name="norm-over-padding",
            checks=("padding-in-statistics",),
            stages=("encoder.norm", "PaddedNorm"),
        ),
        Fault(name="centimetres", checks=("contract-broken",), stages=("encoder",)),
        Fault(name="root-of-padding", checks=("numerical-pole",), stages=("pool",)),
        Fault(name="batch-centred", checks=("batch-leak",), stages=("pool", "model")),
        Fault(name="dead-units", checks=("dead-units",), stages=("encoder",)),
        Fault(name="frozen-layer", checks=("no-gradient",), stages=("encoder.second",)),
        Fault(name="detached", checks=("no-gradient",), stages=("encoder",)),
        Fault(name="log-of-negative", checks=("non-finite-value",), stages=("model",)),
        Fault(name="loss-without-targets", checks=("loss-ignores-targets",), stages=("loss",)),
        Fault(name="rate-zero", checks=("learning-rate",)),
        Fault(name="rate-huge", checks=("learning-rate",)),
    ),
)
