"""Four models as their authors write them, each with faults that can be switched on.

A PointNet on padded clouds, a ResNet on images, a language model, a graph network on molecules:
healthy without a fault.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline

N = 48


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- PointNet: padded clouds of hits in a detector, channels first, batch norm over all points ---


def clouds(fault: str) -> list[dict[str, Tensor]]:
    found = []
    for i in range(N):
        rng = _rng(i)
        n = int(torch.randint(20, 60, (), generator=rng))
        xyz = torch.randn(n, 3, generator=rng) * 150
        energy = torch.randn(n, generator=rng).exp() * 2
        if fault == "heavy-tail":
            energy = (torch.randn(n, generator=rng) * 2.5).exp()
        cell = torch.randint(0, 4000, (n,), generator=rng)
        time = 12000 + 4000 * torch.randn(n, generator=rng)
        found.append(
            {
                "xyz": xyz,
                "energy": energy,
                "cell": cell,
                "time": time,
                "y": torch.tensor(i % 3),
            }
        )
    return found


def pad_clouds(samples: list[dict[str, Tensor]], fault: str) -> dict[str, Tensor]:
    lengths = torch.tensor([len(s["xyz"]) for s in samples])
    columns = []
    for s in samples:
        scale = 1.0 if fault == "unnormalized" else 150.0
        energy = s["energy"] / 2 if fault == "heavy-tail" else s["energy"].log()
        time = (s["time"] - 12000) / 4000
        if fault == "half-time":
            time = (s["time"].half().float() - 12000) / 4000
        if fault == "under-scaled":
            time = (s["time"] - 12000) / 1e9
        if fault == "off-centre":
            time = (s["time"] - 12000) / 4000 + 20
        if fault == "double":
            time = (time - 12000) / 4000
        if fault == "constant":
            time = time.clamp(min=50.0)
        parts = [s["xyz"] / scale, energy[:, None], time[:, None]]
        if fault == "id":
            parts.append(s["cell"][:, None] / 4000)
        columns.append(torch.cat(parts, dim=1))
    cell = nn.utils.rnn.pad_sequence([s["cell"] for s in samples], batch_first=True)
    key = torch.arange(len(samples)) * 4000
    if fault == "overflow":
        key = torch.arange(len(samples), dtype=torch.int16) * 4000
    return {
        "points": nn.utils.rnn.pad_sequence(columns, batch_first=True),
        "cell": cell,
        "key": key[:, None] + cell,
        "lengths": lengths,
        "y": torch.stack([s["y"] for s in samples]),
    }


class PointNet(nn.Module):
    def __init__(self, columns: int, fault: str) -> None:
        super().__init__()
        self.cells = nn.Embedding(4000, 8)
        self.conv1 = nn.Conv1d(columns, 32, 1)
        self.conv2 = nn.Conv1d(32 + 8, 64, 1)
        self.norm = nn.LayerNorm(64)
        self.bn = nn.BatchNorm1d(64)
        self.fc = nn.Linear(64, 3)
        self.fault = fault

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        points, lengths = batch["points"], batch["lengths"]
        mask = torch.arange(points.shape[1]) < lengths[:, None]
        x = functional.relu(self.conv1(points.transpose(1, 2)))
        x = self.conv2(torch.cat([x, self.cells(batch["cell"]).transpose(1, 2)], dim=1))
        if self.fault == "padded-norm":
            x = self.bn(x)
        x = functional.relu(x).transpose(1, 2)
        if self.fault == "padded-mean":
            pooled = x.mean(1)
        else:
            pooled = (x * mask[..., None]).sum(1) / lengths[:, None]
        out: Tensor = self.fc(self.norm(pooled))
        return out


def pointnet(fault: str = "") -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="pointnet",
        dataset=clouds(fault),
        collate=lambda samples: pad_clouds(samples, fault),
        model=PointNet(6 if fault == "id" else 5, fault),
        loss=lambda out, batch: functional.cross_entropy(out, batch["y"]),
        batch_size=N,
    )


# --- ResNet on images ------


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.down = nn.Sequential(
            nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.down(x))


class ResNet(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        if fault == "plain-tensor":
            self.mean, self.std = mean, std
        else:
            self.register_buffer("mean", mean)
            self.register_buffer("std", std)
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        blocks: list[nn.Module] = [Block(8, 16, 2), Block(16, 32, 2)]
        self.blocks: Any = blocks if fault == "plain-list" else nn.ModuleList(blocks)
        self.fc = nn.Linear(32, 10)
        if fault == "stale-statistics":
            self.bn.num_batches_tracked = torch.tensor(5000)
            self.bn.running_mean = torch.full((8,), 40.0)

    def forward(self, images: Tensor) -> Tensor:
        if self.fault != "no-normalizer":
            images = (images - self.mean) / self.std
        if self.fault == "double":
            images = (images - self.mean) / self.std
        x = functional.relu(self.bn(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


def resnet(fault: str = "") -> Pipeline:
    torch.manual_seed(0)
    n = 32
    smooth = functional.interpolate(torch.rand(n, 3, 4, 4), size=16, mode="bilinear")
    pixels = (0.7 * smooth + 0.3 * torch.rand(n, 3, 16, 16)) * 255
    images = pixels.round() if fault in ("pixels", "no-normalizer") else pixels.round() / 255
    if fault == "already":
        images = (images - 0.485) / 0.229
    labels = torch.randint(0, 10, (n,))
    return Pipeline(
        name="resnet",
        dataset=list(zip(images, labels, strict=True)),
        collate=torch.utils.data.default_collate,
        model=ResNet(fault),
        forward=lambda model, batch: model(batch[0]),
        loss=lambda out, batch: functional.cross_entropy(out, batch[1]),
        batch_size=n,
    )


# --- A language model ------

VOCABULARY = 300


class Attention(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, n, d))
        return out


class Gpt(nn.Module):
    def __init__(self, fault: str, d: int = 32) -> None:
        super().__init__()
        self.fault = fault
        self.tokens = nn.Embedding(VOCABULARY, d)
        self.from_number = nn.Linear(1, d)
        self.mask = torch.full((64, 64), -math.inf).triu(1)
        self.register_buffer("frequencies", 10000 ** (-torch.arange(0, d, 2) / d))
        self.frequencies: Tensor
        if fault == "plain-tensor":
            del self.frequencies
            self.frequencies = 10000 ** (-torch.arange(0, d, 2) / d)
        self.attention = Attention(d)
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.head = nn.Linear(d, VOCABULARY)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch["tokens"]
        if self.fault == "id":
            x = self.from_number(tokens[..., None] / VOCABULARY)
        elif self.fault == "half-ids":
            x = self.tokens(tokens.bfloat16().long().clamp(max=VOCABULARY - 1))
        else:
            x = self.tokens(tokens)
        angle = torch.arange(tokens.shape[1])[:, None] * self.frequencies
        x = x + torch.cat([angle.sin(), angle.cos()], -1)
        x = x + self.attention(self.ln1(x))
        if self.fault == "padded-norm":
            x = functional.layer_norm(x, x.shape[1:])
        x = x + self.mlp(self.ln2(x))
        out: Tensor = self.head(x)
        return out


def next_token(logits: Tensor, batch: dict[str, Tensor], fault: str) -> Tensor:
    targets = batch["tokens"][:, 1:].flatten()
    ignored = -100 if fault == "padded-loss" else 0
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, ignore_index=ignored)


def gpt(fault: str = "") -> Pipeline:
    torch.manual_seed(0)
    lengths = torch.randint(10, 30, (24,)).tolist()
    texts = [{"tokens": torch.randint(1, VOCABULARY, (n,))} for n in lengths]

    def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        tokens = nn.utils.rnn.pad_sequence([s["tokens"] for s in samples], batch_first=True)
        return {"tokens": tokens}

    return Pipeline(
        name="gpt",
        dataset=texts,
        collate=collate,
        model=Gpt(fault),
        loss=lambda logits, batch: next_token(logits, batch, fault),
        batch_size=24,
    )


# --- A graph network on molecules ---


class Conv(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * d + 1, d)

    def forward(self, x: Tensor, edges: Tensor, distance: Tensor) -> Tensor:
        messages = self.lin(torch.cat([x[edges[0]], x[edges[1]], distance], dim=-1))
        return x + torch.zeros_like(x).index_add(0, edges[1], functional.silu(messages))


class Gnn(nn.Module):
    def __init__(self, fault: str, d: int = 16) -> None:
        super().__init__()
        self.fault = fault
        self.elements = nn.Embedding(100, d)
        self.charge = nn.Linear(3 if fault == "id" else 2, d)
        self.norm = nn.LayerNorm(2)
        self.convs = nn.ModuleList([Conv(d), Conv(d)])
        self.head = nn.Linear(d, 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        features = batch["features"]
        if self.fault == "log-twice":
            features = torch.cat([features[:, :1], features[:, 1:].log1p().log1p()], dim=1)
        else:
            features = torch.cat([features[:, :1], features[:, 1:].log1p()], dim=1)
        if self.fault == "uneven":
            features = self.norm(features * torch.tensor([1.0, 500.0]))
        if self.fault == "id":
            features = torch.cat([features, batch["kind"][:, None] / 100], dim=1)
        x = self.elements(batch["kind"]) + self.charge(features)
        distance = (batch["pos"][batch["edges"][0]] - batch["pos"][batch["edges"][1]]).norm(
            dim=-1, keepdim=True
        )
        if self.fault == "over-scaled":
            distance = distance * 1000
        for conv in self.convs:
            x = conv(x, batch["edges"], distance)
        graph = batch["graph"]
        pooled = torch.zeros(len(batch["y"]), x.shape[1]).index_add(0, graph, x)
        counts = torch.bincount(graph, minlength=len(batch["y"]))
        out: Tensor = self.head(pooled / counts[:, None]).squeeze(-1)
        return out


def molecules(fault: str) -> list[dict[str, Tensor]]:
    found = []
    for i in range(N):
        rng = _rng(100 + i)
        n = int(torch.randint(5, 25, (), generator=rng))
        pos = torch.randn(n, 3, generator=rng) * 1.5
        near = (torch.cdist(pos, pos) < 2.5) & ~torch.eye(n, dtype=torch.bool)
        kinds = torch.tensor([1, 6, 7, 8, 9, 15, 16, 17, 35, 53])
        charge = torch.randn(n, generator=rng) * 0.6
        mass = torch.randn(n, generator=rng).exp()
        found.append(
            {
                "pos": pos,
                "edges": near.nonzero().T,
                "kind": kinds[torch.randint(0, 10, (n,), generator=rng)],
                "features": torch.stack([charge, mass], dim=1),
                "y": torch.randn((), generator=rng),
            }
        )
    return found


def join(graphs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    counts = torch.tensor([len(g["pos"]) for g in graphs])
    first = counts.cumsum(0) - counts
    return {
        "pos": torch.cat([g["pos"] for g in graphs]),
        "kind": torch.cat([g["kind"] for g in graphs]),
        "features": torch.cat([g["features"] for g in graphs]),
        "edges": torch.cat([g["edges"] + at for g, at in zip(graphs, first, strict=True)], dim=1),
        "graph": torch.repeat_interleave(torch.arange(len(graphs)), counts),
        "y": torch.stack([g["y"] for g in graphs]),
    }


def gnn(fault: str = "") -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="gnn",
        dataset=molecules(fault),
        collate=join,
        model=Gnn(fault),
        loss=lambda out, batch: functional.mse_loss(out, batch["y"]),
        batch_size=N,
    )


HEALTHY: dict[str, Callable[..., Pipeline]] = {
    "pointnet": pointnet,
    "resnet": resnet,
    "gpt": gpt,
    "gnn": gnn,
}
