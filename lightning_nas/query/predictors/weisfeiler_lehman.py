"""Weisfeiler-Lehman features of graphs of operations, and how much two graphs have in common by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded, Graphs, join
from lightning_nas.query.predictors.base import graphs
from lightning_nas.query.predictors.correlation import Correlation

__all__ = ["Direction", "WeisfeilerLehman", "subtree_features"]

Direction = Literal["in", "out", "both"]
"""Whose labels a vertex takes in: of vertices with an edge to it, of those it has an edge to, or of both, apart."""


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
    into, mask = batch.adjacency.transpose(1, 2) > 0, batch.mask()
    sides = {"in": [into], "out": [into.transpose(1, 2)], "both": [into, into.transpose(1, 2)]}[direction]
    labels = batch.labels
    histograms = [_histogram(labels, mask, batch.kinds)]
    for _ in range(height):
        around = [
            torch.where(side, labels[:, None, :].expand_as(side), -1).sort(dim=-1, descending=True).values
            for side in sides
        ]
        rows = torch.cat([labels[..., None], *around], dim=-1)
        names, found = torch.unique(rows[mask], dim=0, return_inverse=True)
        labels = torch.full_like(labels, -1)
        labels[mask] = found
        histograms.append(_histogram(labels, mask, len(names)))
    return histograms


def _histogram(labels: Tensor, mask: Tensor, kinds: int) -> Tensor:
    counts = torch.zeros(len(labels), kinds, dtype=torch.float64)
    return counts.scatter_add_(1, labels.clamp_min(0), mask.double())


class WeisfeilerLehman(Correlation):
    r"""The share of subtrees that two graphs have in common: :math:`k(a, b) / \sqrt{k(a, a) k(b, b)}`.

    Here `k` is the product of the histograms of `subtree_features`, of all refinements up to a height. Each height is
    a variant, so a process takes the most likely. A label that no labelled graph has counts in the norm of the graph
    that has it. Graphs that differ in the order of their vertices alone have correlation 1; the edges are directed, and
    a vertex takes in the labels of the vertices before it unless another direction is given.

    Reference: Ru et al., "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
    Kernels", ICLR 2021.

    Args:
        heights: The numbers of refinements to choose from.
        direction: Which vertices are neighbors.

    Raises:
        ValueError: If there are no heights, or a negative one, or the direction is unknown.

    Example:
        >>> pair = Graphs(torch.zeros(2, 2, 2), torch.tensor([[0, 1], [0, 0]]), kinds=2)
        >>> kernel = WeisfeilerLehman(heights=(0,))
        >>> kernel.matrix(kernel.compare(pair, pair), torch.zeros(1, 0)).round(decimals=4)
        tensor([[[1.0000, 0.7071], [0.7071, 1.0000]]], dtype=torch.float64)
    """

    def __init__(self, heights: Sequence[int] = (1, 2, 3), direction: Direction = "in") -> None:
        if not heights or min(heights) < 0 or direction not in ("in", "out", "both"):
            raise ValueError(
                f"heights={heights}, direction={direction!r}: give heights of at least 0, and 'in', 'out' or 'both'"
            )
        self.heights, self.direction, self.variants = tuple(heights), direction, len(heights)

    def compare(self, a: Encoded, b: Encoded) -> tuple[Tensor, ...]:
        """The correlations themselves, ``(variants, n, m)``: there are no parameters."""
        n = len(graphs(a, self))
        both = a if a is b else join([graphs(a, self), graphs(b, self)])
        every = subtree_features(graphs(both, self), max(self.heights), self.direction)
        products, norms = [], []
        for histogram in every:
            left, right = histogram[:n], histogram[-len(b) :]
            products.append(left @ right.T)
            norms.append(histogram.square().sum(dim=1))
        product, norm = torch.stack(products).cumsum(dim=0), torch.stack(norms).cumsum(dim=0).sqrt()
        scaled = product / (norm[:, :n, None] * norm[:, None, -len(b) :])
        return (scaled[list(self.heights)],)

    def matrix(self, compared: tuple[Tensor, ...], parameters: Tensor) -> Tensor:
        """The correlations, ``(variants, n, m)``."""
        return compared[0]
