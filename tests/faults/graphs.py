"""Message passing on a batch of graphs: a dataclass with offsets, nodes and an edge list."""

# N nodes, E edges, B graphs, F features

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline

from .case import Fault, Patient

N_GRAPHS, N_KINDS = 96, 200


@dataclass
class Graph:
    kind: Tensor
    x: Tensor
    edges: Tensor
    y: Tensor


@dataclass
class Batch:
    kind: Int64[Tensor, "nodes"]
    x: Float[Tensor, "nodes 3"]
    edges: Int64[Tensor, "2 edges"]
    graph: Int64[Tensor, "nodes"]
    y: Float[Tensor, "graphs"]

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def graphs() -> list[Graph]:
    """Random graphs; the target is the mean over edges of a product of their ends."""
    generator = torch.Generator().manual_seed(13)
    made = []
    for _ in range(N_GRAPHS):
        n = int(torch.randint(4, 18, (), generator=generator))
        x = torch.randn(n, 3, generator=generator)
        edges = torch.randint(0, n, (2, 3 * n), generator=generator)
        kind = torch.randint(0, N_KINDS, (n,), generator=generator)
        y = (x[edges[0], 0] * x[edges[1], 1]).mean() * 4
        made.append(Graph(kind, x, edges, y))
    return made


def collate(samples: list[Graph]) -> Batch:
    sizes = torch.tensor([len(sample.x) for sample in samples])
    offsets = sizes.cumsum(0) - sizes
    return Batch(
        kind=torch.cat([sample.kind for sample in samples]),
        x=torch.cat([sample.x for sample in samples]),
        edges=torch.cat([s.edges + o for s, o in zip(samples, offsets, strict=True)], 1),
        graph=torch.arange(len(samples)).repeat_interleave(sizes),
        y=torch.stack([sample.y for sample in samples]),
    )


def collate_without_offsets(samples: list[Graph]) -> Batch:
    """All edges lie in the first graphs."""
    batch = collate(samples)
    batch.edges = torch.cat([sample.edges for sample in samples], 1)
    return batch


def collate_small_hash(samples: list[Graph]) -> Batch:
    """Graph and kind in one number of 16 bits, which wraps around."""
    batch = collate(samples)
    batch.kind = (batch.graph.short() * 5160 + batch.kind.short()).long() % N_KINDS
    return batch


class Layer(nn.Module):
    def __init__(self, width: int, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.message = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.update = nn.Linear(2 * width, width)
        self.norm = nn.BatchNorm1d(width) if fault == "batch-norm" else nn.LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "nodes width"], edges: Int64[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes width"]:
        if self.fault == "edge-by-edge":
            total = torch.zeros_like(x)
            for source, target in edges.t().tolist():
                total[target] = total[target] + self.message(torch.cat([x[source], x[target]]))
        else:
            messages = self.message(torch.cat([x[edges[0]], x[edges[1]]], 1))
            if self.fault == "self-distance":
                # Of an edge from a node to itself the root is taken of 0.
                apart = (x[edges[0]] - x[edges[1]]).square().sum(1, keepdim=True).sqrt()
                messages = messages * torch.exp(-apart)
            total = torch.zeros_like(x).index_add(0, edges[1], messages)
        out: Tensor = self.norm(x + functional.relu(self.update(torch.cat([x, total], 1))))
        return out


class GraphNet(nn.Module):
    def __init__(self, fault: str | None, width: int = 32) -> None:
        super().__init__()
        self.fault = fault
        self.embed_kind = nn.Embedding(N_KINDS, 8)
        self.enter = nn.Linear(3 + (1 if fault == "kind-as-number" else 8), width)
        self.layers = nn.ModuleList(Layer(width, fault) for _ in range(2))
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, batch: Batch) -> Tensor:
        if self.fault == "kind-as-number":
            kind = batch.kind[:, None] / N_KINDS
        elif self.fault == "kind-in-half":
            kind = self.embed_kind((batch.kind + 4000).bfloat16().long() - 4000)
        else:
            kind = self.embed_kind(batch.kind)
        x = batch.x * 0 if self.fault == "inputs-lost" else batch.x
        if self.fault == "scaled-again":
            x = (x - 3.0) / 40.0
        edges = batch.edges.t() if self.fault == "edges-turned" else batch.edges
        hidden = self.enter(torch.cat([x, kind], 1))
        for layer in self.layers:
            hidden = layer(hidden, edges)
        n = len(batch.y)
        if self.fault == "mask-by-graph":
            pooled = torch.stack([hidden[batch.graph == g].mean(0) for g in range(n)])
        else:
            sums = torch.zeros(n, hidden.shape[1]).index_add(0, batch.graph, hidden)
            pooled = sums / batch.graph.bincount(minlength=n)[:, None]
        if self.fault == "graphs-shifted":
            pooled = pooled.roll(1, 0)
        out: Tensor = self.head(pooled).squeeze(1)
        return out


def loss(predictions: Tensor, batch: Batch) -> Tensor:
    return functional.huber_loss(predictions, batch.y)


COLLATES = {"no-offsets": collate_without_offsets, "small-hash": collate_small_hash}


def build(fault: str | None) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="graphs",
        dataset=graphs(),
        collate=COLLATES.get(fault or "", collate),
        model=GraphNet(fault),
        loss=loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 3e-3),
        batch_size=24,
        sources=("tests.faults.graphs",),
    )


PATIENT = Patient(
    name="graphs",
    build=build,
    variants=("batch-norm",),
    faults=(
        Fault(name="no-offsets", checks=("batch-leak",)),
        Fault(name="scaled-again", checks=("double-normalization",), stages=("enter", "model")),
        Fault(name="edges-turned", checks=("contract-broken",), stages=("layers",)),
        Fault(name="self-distance", checks=("numerical-pole",), stages=("layers",)),
        Fault(name="small-hash", checks=("integer-overflow",), stages=("collate",)),
        Fault(name="edge-by-edge", checks=("python-loop",), stages=("layers",)),
        Fault(name="kind-as-number", checks=("id-as-magnitude",), stages=("enter", "model")),
        Fault(name="kind-in-half", checks=("integer-overflow",)),
        Fault(
            name="inputs-lost", checks=("constant-feature", "no-gradient", "constant-prediction")
        ),
        Fault(name="mask-by-graph", checks=("python-loop",), stages=("model",)),
        Fault(name="graphs-shifted", checks=("batch-leak", "targets-shuffled")),
    ),
)
