"""A ragged graph net: dict batches, functions imported from a helper module."""

import torch
from torch import Tensor, nn

from icediag import Pipeline

from .helpers import SumAggregator, gather_sources

__all__ = ["GraphNet", "Graphs", "collate", "gather_sources", "loss", "pipeline"]

#: (nodes, edges) of each graph.
SIZES = ((3, 4), (5, 9), (2, 2), (4, 5), (6, 11), (3, 3))


class Graphs:
    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(i)
        nodes, edges = SIZES[i]
        return {
            "x": torch.randn(nodes, 12, generator=generator),
            "edges": torch.randint(0, nodes, (2, edges), generator=generator),
            "y": torch.randn((), generator=generator),
        }


def collate(graphs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    counts = torch.tensor([len(graph["x"]) for graph in graphs])
    first = counts.cumsum(0) - counts
    return {
        "x": torch.cat([graph["x"] for graph in graphs]),
        "edges": torch.cat([g["edges"] + at for g, at in zip(graphs, first, strict=True)], dim=1),
        "graph_of_node": torch.repeat_interleave(torch.arange(len(graphs)), counts),
        "nodes_of_graph": counts,
        "y": torch.stack([graph["y"] for graph in graphs]),
    }


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(12, 8)
        self.update = nn.Linear(8, 8)
        self.head = nn.Linear(8, 1)
        self.aggregator = SumAggregator()
        self.gather = gather_sources

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        nodes = self.lift(batch["x"])
        for _ in range(2):
            messages = self.gather(nodes, batch["edges"])
            nodes = self.update(self.aggregator.total(messages, batch["edges"], len(nodes)))
        out: Tensor = self.head(self.readout(nodes, batch["graph_of_node"]))
        return out.squeeze(-1)

    def readout(self, nodes: Tensor, graph_of_node: Tensor) -> Tensor:
        return torch.zeros(int(graph_of_node.max()) + 1, 8).index_add(0, graph_of_node, nodes)


def loss(predicted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.mse_loss(predicted, batch["y"])


def pipeline(stages: tuple[str, ...] = ()) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="graphs",
        dataset=Graphs(),
        collate=collate,
        model=GraphNet(),
        loss=loss,
        batch_size=6,
        stages=stages,
    )
