"""What an encoder promises, and a batch of graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.operation_graph import OperationGraph

__all__ = ["KINDS", "Encoded", "Encoder", "Graphs", "Kind", "join", "select"]

Kind = Literal["features", "graphs", "tokens"]
"""What is encoded: numbers that say how much, graphs, or numbers that stand for words."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Graphs:
    """A batch of `n` small directed graphs, each padded to `v` vertices in topological order.

    Args:
        adjacency: ``(n, v, v)`` floats, 1 where an edge leads from the row's vertex to the column's.
        labels: ``(n, v)`` integers, the index of each vertex in a vocabulary; -1 for padding.
        kinds: Length of the vocabulary.

    Example:
        >>> graph = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=3)
        >>> len(graph), graph.one_hot().shape, graph.mask().tolist()
        (1, torch.Size([1, 2, 3]), [[True, True]])
    """

    adjacency: Tensor
    labels: Tensor
    kinds: int

    @classmethod
    def stack(cls, graphs: Sequence[OperationGraph], vocabulary: Sequence[str]) -> Graphs:
        """The batch of some graphs.

        Raises:
            ValueError: If a label is not in the vocabulary.
        """
        index = {label: k for k, label in enumerate(vocabulary)}
        unknown = {label for graph in graphs for label in graph.labels} - set(index)
        if unknown:
            raise ValueError(f"labels {sorted(unknown)} are not in the vocabulary {tuple(vocabulary)}")
        width = max((len(graph.labels) for graph in graphs), default=0)
        labels = torch.tensor(
            [[index[label] for label in graph.labels] + [-1] * (width - len(graph.labels)) for graph in graphs],
            dtype=torch.long,
        ).reshape(len(graphs), width)
        adjacency = torch.zeros(len(graphs), width, width)
        where = [(row, source, target) for row, graph in enumerate(graphs) for source, target in graph.edges]
        if where:
            adjacency[tuple(torch.tensor(where).T)] = 1.0
        return cls(adjacency, labels, len(index))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> Graphs:
        return Graphs(self.adjacency[rows], self.labels[rows], self.kinds)

    def mask(self) -> Tensor:
        """``(n, v)`` booleans: which vertices are not padding."""
        return self.labels >= 0

    def one_hot(self) -> Tensor:
        """``(n, v, kinds)`` floats, zero for padding."""
        return torch.eye(self.kinds + 1)[self.labels][..., : self.kinds]

    def padded(self, vertices: int) -> Graphs:
        """The same graphs with room for more vertices."""
        more = max(0, vertices - self.labels.shape[1])
        adjacency = torch.nn.functional.pad(self.adjacency, (0, more, 0, more))
        return Graphs(adjacency, torch.nn.functional.pad(self.labels, (0, more), value=-1), self.kinds)


Encoded = Tensor | Graphs
"""Encoded genotypes: ``(n, features)``, or `n` graphs."""


def select(encoded: Encoded, rows: Tensor | slice) -> Encoded:
    """Some rows of encoded genotypes.

    Args:
        encoded: Encoded genotypes.
        rows: Their numbers, or a slice.
    """
    return encoded[rows]


def join(parts: Iterable[Encoded]) -> Encoded:
    """Encoded genotypes one after the other.

    Raises:
        ValueError: If there are none, or graphs and features are mixed.
    """
    given = list(parts)
    graphs = [part for part in given if isinstance(part, Graphs)]
    if graphs and len(graphs) == len(given):
        width = max(part.labels.shape[1] for part in graphs)
        wide = [part.padded(width) for part in graphs]
        adjacency, labels = torch.cat([part.adjacency for part in wide]), torch.cat([part.labels for part in wide])
        return Graphs(adjacency, labels, wide[0].kinds)
    if graphs or not given:
        raise ValueError(f"{len(given)} parts, of which {len(graphs)} graphs: give at least one, and all of one kind")
    return torch.cat([part for part in given if isinstance(part, Tensor)])


class Encoder(ABC):
    """Turns genotypes of a space into features or graphs, and keeps what it has encoded.

    Args:
        space: Name of a search space, or a space.

    Attributes:
        makes: What it makes, so that a search can refuse a predictor that works on something else.
    """

    makes: Kind = "features"

    def __init__(self, space: str | Space) -> None:
        self.space = get_space(space)
        self._rows: dict[Genotype, int] = {}
        self._encoded: Encoded | None = None

    @abstractmethod
    def encode(self, genotypes: Sequence[Genotype]) -> Encoded:
        """Encode genotypes afresh."""

    def __call__(self, genotypes: Sequence[Genotype]) -> Encoded:
        """Encode genotypes: ``(n, features)`` floats, or graphs; what was encoded before is looked up.

        Raises:
            ValueError: If there are none.
        """
        if not genotypes:
            raise ValueError("no genotypes to encode; give at least one")
        new = list(dict.fromkeys(genotype for genotype in genotypes if genotype not in self._rows))
        if new:
            encoded = self.encode(new)
            self._encoded = encoded if self._encoded is None else join([self._encoded, encoded])
            self._rows.update({genotype: len(self._rows) + k for k, genotype in enumerate(new)})
        if self._encoded is None:
            raise ValueError(f"{type(self).__name__}.encode returned nothing")
        return select(self._encoded, torch.tensor([self._rows[genotype] for genotype in genotypes]))
