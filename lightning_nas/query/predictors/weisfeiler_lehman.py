"""How much two graphs of operations have in common by Weisfeiler-Lehman features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded, join
from lightning_nas.query.encoders.weisfeiler_lehman import Direction, subtree_features
from lightning_nas.query.predictors.base import graphs
from lightning_nas.query.predictors.correlation import Correlation

__all__ = ["WeisfeilerLehman"]


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
        >>> from lightning_nas.query.encoders import Graphs
        >>> pair = Graphs(torch.zeros(2, 2, 2), torch.tensor([[0, 1], [0, 0]]), kinds=2)
        >>> kernel = WeisfeilerLehman(heights=(0,))
        >>> kernel.matrix(kernel.compare(pair, pair), torch.zeros(1, 0)).round(decimals=4)
        tensor([[[1.0000, 0.7071], [0.7071, 1.0000]]], dtype=torch.float64)
    """

    takes = ("graphs",)

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
