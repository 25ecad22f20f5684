"""What all networks on graphs share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lightning_nas.query.encoders.base import Graphs

__all__ = ["GraphNetwork", "Lookup", "embed", "trimmed"]


class GraphNetwork(nn.Module, ABC):
    """Turns graphs into vectors; neither padding nor the order of the vertices changes them.

    Attributes:
        width: Length of the vectors.
    """

    width: int

    @abstractmethod
    def forward(self, graphs: Graphs) -> Tensor:
        """Vectors ``(n, width)`` of `n` graphs."""


class Lookup(nn.Module):
    """The product of one-hot labels and a matrix, without the product; zero for padding.

    Args:
        kinds: Number of labels.
        width: Columns of the matrix.

    Example:
        >>> table = Lookup(kinds=2, width=3)
        >>> bool((table(torch.tensor([1, -1])) == torch.stack([table.weight[1], torch.zeros(3)])).all())
        True
    """

    def __init__(self, kinds: int, width: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.weight = nn.Parameter(torch.zeros(kinds + 1, width))
        nn.init.xavier_uniform_(self.weight[:kinds])

    def forward(self, labels: Tensor) -> Tensor:
        """Rows ``labels.shape + (width,)``; the last row of the matrix stands for padding and stays zero."""
        return nn.functional.embedding(labels.remainder(self.kinds + 1), self.weight, padding_idx=self.kinds)


def trimmed(graphs: Graphs) -> Graphs:
    """Graphs with no more padding at the end than one of them needs.

    Args:
        graphs: Graphs.

    Example:
        >>> graph = Graphs(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]), kinds=2)
        >>> trimmed(graph.padded(7)).labels.tolist()
        [[0, 1]]
    """
    used = int(graphs.mask().any(dim=0).nonzero().max()) + 1 if len(graphs) else 0
    return Graphs(graphs.adjacency[:, :used, :used], graphs.labels[:, :used], graphs.kinds)


def embed(network: nn.Module, graphs: Graphs, chunk: int = 512) -> Tensor:
    """What a network in evaluation mode says of many graphs, chunk by chunk, without gradients.

    Args:
        network: A network on graphs.
        graphs: The graphs.
        chunk: Graphs at once.

    Example:
        >>> class Size(torch.nn.Module):
        ...     def forward(self, graphs):
        ...         return graphs.mask().sum(dim=1)
        >>> graph = Graphs(torch.zeros(3, 1, 1), torch.zeros(3, 1, dtype=torch.long), kinds=1)
        >>> embed(Size(), graph, chunk=2)
        tensor([1, 1, 1])
    """
    small = trimmed(graphs)
    with torch.no_grad():
        return torch.cat([network(small[k : k + chunk]) for k in range(0, len(small), chunk)])
