"""Helpers of the graph pipeline, in a module of their own."""

import torch
from torch import Tensor


def gather_sources(nodes: Tensor, edges: Tensor) -> Tensor:
    return nodes[edges[0]]


class Aggregator:
    """A helper object with a method, a static and a class method."""

    scale = 1.0

    def total(self, messages: Tensor, edges: Tensor, n_nodes: int) -> Tensor:
        out = torch.zeros(n_nodes, messages.shape[1])
        return self.scaled(out.index_add(0, edges[1], self.halve(messages)))

    @staticmethod
    def halve(messages: Tensor) -> Tensor:
        return messages / 2

    @classmethod
    def scaled(cls, messages: Tensor) -> Tensor:
        return messages * cls.scale


class SumAggregator(Aggregator):
    """Inherits all of it."""
