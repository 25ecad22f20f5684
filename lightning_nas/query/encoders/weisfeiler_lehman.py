"""Weisfeiler-Lehman features of graphs of operations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.base import Encoder, Graphs
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.enumeration import all_members
from lightning_nas.spaces import Space

__all__ = ["Direction", "WLEncoder", "subtree_features"]

Direction = Literal["in", "out", "both"]
"""Whose labels a vertex takes in: of vertices with an edge to it, of those it has an edge to, or of both, apart."""

_Name = tuple[tuple[int, ...], ...]
"""A label as its parts: the vertex's own label before, and the sorted labels of its neighbors, side by side."""


def subtree_features(batch: Graphs, height: int = 2, direction: Direction = "in") -> list[Tensor]:
    """How often each label appears in each graph, after 0, 1, ..., `height` refinements.

    A refinement gives a vertex a new label for its old one together with the sorted labels of its neighbors. What
    labels there are is found among all graphs of the batch, exactly, without hashing.

    Reference: Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", JMLR 2011.

    Args:
        batch: `n` graphs.
        height: Number of refinements.
        direction: Which vertices are neighbors.

    Returns:
        ``height + 1`` histograms ``(n, labels)`` in double precision; the first over the vocabulary.

    Raises:
        ValueError: If the height is negative, or the direction unknown.

    Example:
        >>> path = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> [h.tolist() for h in subtree_features(Graphs(path, torch.tensor([[0, 1, 1]]), kinds=2), height=1)]
        [[[1.0, 2.0]], [[1.0, 1.0, 1.0]]]
    """
    if height < 0 or direction not in ("in", "out", "both"):
        raise ValueError(f"height={height}, direction={direction!r}: give at least 0, and 'in', 'out' or 'both'")
    labels, mask = batch.labels, batch.mask()
    histograms = [_histogram(labels, mask, batch.kinds)]
    for _ in range(height):
        names, found = _refined(batch, labels, direction)
        labels = _spread(found, mask)
        histograms.append(_histogram(labels, mask, len(names)))
    return histograms


def _refined(batch: Graphs, labels: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """What labels one refinement gives, as rows of their parts, and the number of that of each vertex in turn."""
    into = batch.adjacency.transpose(1, 2) > 0
    sides = {"in": [into], "out": [into.transpose(1, 2)], "both": [into, into.transpose(1, 2)]}[direction]
    around = [
        torch.where(side, labels[:, None, :].expand_as(side), -1).sort(dim=-1, descending=True).values for side in sides
    ]
    rows = torch.cat([labels[..., None], *around], dim=-1)
    names, found = torch.unique(rows[batch.mask()], dim=0, return_inverse=True)
    return names, found


def _spread(found: Tensor, mask: Tensor) -> Tensor:
    """Numbers of all vertices in turn to where they are, ``(n, v)``; -1 for padding."""
    return torch.full(mask.shape, -1).masked_scatter(mask, found)


def _histogram(labels: Tensor, mask: Tensor, kinds: int) -> Tensor:
    counts = torch.zeros(len(labels), kinds, dtype=torch.float64)
    return counts.scatter_add_(1, labels.clamp_min(0), mask.double())


class WLEncoder(Encoder):
    """How often each Weisfeiler-Lehman label appears in the graph, as features for any predictor.

    The histograms of `subtree_features` after 0, 1, ..., `depth` refinements, side by side. What labels there are is
    found at the first use among random architectures of the space, or all of a space that has no more; labels that none
    of them has are left out of other architectures. The product of the features of two architectures without such
    labels is the kernel of `WeisfeilerLehman` of height `depth`, not normalised.

    Reference: Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", JMLR 2011; Ru et al., "Interpretable Neural
    Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman Kernels", ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        depth: Number of refinements.
        direction: Which vertices are neighbors.
        prune: Whether skip connections become wires, and what computes nothing is left out, see `operation_graph`.
        number: Architectures among which the labels are found.
        seed: Seed of these architectures.

    Raises:
        ValueError: If the depth is negative, the direction unknown, or `number` not positive.

    Example:
        >>> encoder = WLEncoder("nasbench201", depth=1)
        >>> text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
        >>> features = encoder([encoder.space.parse(text)])  # four vertices: input, two operations, output
        >>> features[:, :7].sum().item(), features[:, 7:].sum().item()
        (4.0, 4.0)
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        depth: int = 2,
        direction: Direction = "in",
        prune: bool = True,
        number: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(space)
        if depth < 0 or number < 1 or direction not in ("in", "out", "both"):
            raise ValueError(
                f"depth={depth}, number={number}, direction={direction!r}: give a depth of at least 0, at least one"
                " architecture, and 'in', 'out' or 'both'"
            )
        self.depth, self.direction, self.number, self.seed = depth, direction, number, seed
        self.graphs = GraphEncoder(self.space, prune)
        self._tables: list[dict[_Name, int]] | None = None

    def encode(self, genotypes: Sequence[Genotype]) -> Tensor:
        """``(n, features)`` whole numbers as floats; finds the labels at the first call."""
        if self._tables is None:
            self._tables = self._found()
        batch = self.graphs.encode(genotypes)
        labels, mask = batch.labels, batch.mask()
        histograms = [_histogram(labels, mask, batch.kinds)]
        for table in self._tables:
            names, found = _refined(batch, labels, self.direction)
            known = [table.get(name, len(table)) for name in self._names(names)]
            labels = _spread(torch.tensor(known)[found], mask)
            histograms.append(_histogram(labels, mask, len(table) + 1)[:, :-1])
        return torch.cat(histograms, dim=1).float()

    def _found(self) -> list[dict[_Name, int]]:
        """The numbers of the labels that each refinement gives."""
        rng = random.Random(self.seed)  # noqa: S311
        some = all_members(self.space, self.number) or [self.space.sample(rng) for _ in range(self.number)]
        batch = self.graphs.encode(some)
        labels, tables = batch.labels, []
        for _ in range(self.depth):
            names, found = _refined(batch, labels, self.direction)
            tables.append({name: number for number, name in enumerate(self._names(names))})
            labels = _spread(found, batch.mask())
        return tables

    def _names(self, rows: Tensor) -> list[_Name]:
        """Rows of `_refined` without their padding."""
        sides = 2 if self.direction == "both" else 1
        parts = [rows[:, :1].tolist(), *(part.tolist() for part in rows[:, 1:].chunk(sides, dim=1))]
        return [tuple(tuple(k for k in part if k >= 0) for part in name) for name in zip(*parts, strict=True)]
