"""Genotypes as graphs of their operations."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.base import Encoder, Graphs
from lightning_nas.spaces import Space
from lightning_nas.spaces.operation_graph import operation_graph, vocabulary

__all__ = ["GraphEncoder"]


class GraphEncoder(Encoder):
    """A graph for each genotype, for predictors that work on graphs and for Weisfeiler-Lehman features.

    Vertices are the operations, the inputs and the outputs of the cells, see `operation_graph`.

    Args:
        space: Name of a search space, or a space.
        prune: Whether skip connections become wires, and what computes nothing is left out.

    Example:
        >>> import random
        >>> encoder = GraphEncoder("nasbench201")
        >>> graphs = encoder([encoder.space.sample(random.Random(0))])
        >>> graphs.adjacency.shape, int(graphs.adjacency.sum()), graphs.kinds
        (torch.Size([1, 8, 8]), 10, 7)
    """

    makes = "graphs"

    def __init__(self, space: str | Space = "nasbench201", prune: bool = False) -> None:
        super().__init__(space)
        self.prune = prune
        self.vocabulary = vocabulary(self.space)

    def encode(self, genotypes: Sequence[Genotype]) -> Graphs:
        """The graphs of genotypes."""
        return Graphs.stack(
            [operation_graph(self.space, genotype, self.prune) for genotype in genotypes], self.vocabulary
        )
