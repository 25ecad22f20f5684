"""Graph convolution networks over architectures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_nas.query.encoders.base import Graphs
from lightning_nas.query.predictors.graph_network import GraphNetwork, Lookup

__all__ = ["GIN", "DirectedGCN", "GlobalGCN", "both_ways", "with_global"]


class DirectedGCN(GraphNetwork):
    r"""Graph convolutions that follow the edges forwards and backwards, then the mean over the vertices.

    A layer is :math:`\frac12 \mathrm{relu}(\hat A V W^+) + \frac12 \mathrm{relu}(\hat A^\top V W^-)`, where the
    matrix of each way has self-loops and rows of sum one.

    Reference: Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020.

    Args:
        kinds: Number of labels of the vertices.
        width: Features of a vertex.
        layers: Number of layers.
        dropout: Share of the features of a vertex that each layer drops.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> graph = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=2)
        >>> DirectedGCN(kinds=2, width=4)(graph).shape
        torch.Size([1, 4])
    """

    def __init__(self, kinds: int, width: int = 144, layers: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        _check(width, layers, dropout)
        self.width = width
        self.first = Lookup(kinds, 2 * width)
        self.weights = nn.ParameterList(torch.empty(width, 2 * width) for _ in range(layers - 1))
        self.dropout = nn.Dropout(dropout)
        for matrix in (self.first.weight[:kinds], *self.weights):
            for half in matrix.chunk(2, dim=1):
                nn.init.xavier_uniform_(half)

    def forward(self, graphs: Graphs) -> Tensor:
        """Vectors ``(n, width)``."""
        ways = both_ways(graphs.adjacency)
        x = self._merge(ways, self.first(graphs.labels))
        for weight in self.weights:
            x = self._merge(ways, x @ weight)
        return x.sum(dim=1) / graphs.mask().sum(dim=1, keepdim=True)

    def _merge(self, ways: Tensor, x: Tensor) -> Tensor:
        """``(n, v, width)`` from the features for both ways, ``(n, v, 2 width)``."""
        halves = x.view(*x.shape[:2], 2, self.width).transpose(1, 2)
        merged: Tensor = self.dropout((ways @ halves).relu().mean(dim=1))
        return merged


def both_ways(adjacency: Tensor) -> Tensor:
    """The edges with self-loops, forwards and backwards, each with rows of sum one.

    Args:
        adjacency: ``(n, v, v)``.

    Returns:
        ``(n, 2, v, v)``.

    Example:
        >>> both_ways(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])).tolist()
        [[[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]]]
    """
    ways = torch.stack([adjacency, adjacency.mT], dim=1) + torch.eye(adjacency.shape[-1])
    return ways / ways.sum(dim=-1, keepdim=True)


class GlobalGCN(GraphNetwork):
    """Graph convolutions against the edges, read out at a global vertex that sees all others.

    A layer is ``dropout(relu(norm(A H W + b)))`` with layer normalisation; `A` has self-loops and is not normalised.
    The global vertex has an edge to each vertex, none leads back to it; of the last layer it alone is computed.

    Reference: Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020.

    Args:
        kinds: Number of labels of the vertices; the global one gets a label of its own.
        width: Features of a vertex.
        layers: Number of layers.
        dropout: Share of the features of a vertex that each layer drops.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> graph = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=2)
        >>> GlobalGCN(kinds=2, width=4)(graph).shape
        torch.Size([1, 4])
    """

    def __init__(self, kinds: int, width: int = 600, layers: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        _check(width, layers, dropout)
        self.width = width
        self.first = Lookup(kinds + 1, width)
        self.weights = nn.Parameter(torch.empty(layers - 1, width, width))  # few large parameters: a faster optimiser
        self.biases = nn.Parameter(torch.empty(layers, width))
        self.gains, self.shifts = nn.Parameter(torch.ones(layers, width)), nn.Parameter(torch.zeros(layers, width))
        self.dropout = nn.Dropout(dropout)
        for parameter in (self.first.weight[: kinds + 1], self.weights, self.biases):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def forward(self, graphs: Graphs) -> Tensor:
        """Vectors ``(n, width)``."""
        wide = with_global(graphs)
        x: Tensor = self.first(wide.labels)
        weights = self.weights.unbind()
        norms = zip(self.biases.unbind(), self.gains.unbind(), self.shifts.unbind(), strict=True)
        for k, (bias, gain, shift) in enumerate(norms):
            x = (wide.adjacency[:, :1] if k == len(weights) else wide.adjacency) @ x
            x = x + bias if k == 0 else x @ weights[k - 1] + bias
            x = self.dropout(nn.functional.layer_norm(x, (self.width,), gain, shift).relu())
        return x[:, 0]


def with_global(graphs: Graphs) -> Graphs:
    """Graphs with self-loops and one more vertex, number 0, with an edge to itself and to each that is not padding.

    Args:
        graphs: Graphs.

    Example:
        >>> wide = with_global(Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=2))
        >>> wide.adjacency.tolist(), wide.labels.tolist()
        ([[[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]], [[2, 0, 1]])
    """
    labels = torch.nn.functional.pad(graphs.labels, (1, 0), value=graphs.kinds)
    adjacency = torch.nn.functional.pad(graphs.adjacency, (1, 0, 1, 0))
    adjacency = adjacency + torch.diag_embed((labels >= 0).to(adjacency))
    adjacency[:, 0] = (labels >= 0).to(adjacency)
    return Graphs(adjacency, labels, graphs.kinds + 1)


class GIN(GraphNetwork):
    """A graph isomorphism network: each vertex adds up its neighbors both ways, then a small network; the mean of all.

    A layer is ``mlp((1 + eps) h + (A + A') h)`` with two linear maps, each followed by batch normalisation (over the
    vertices that are not padding) and ReLU. Edges have no direction here.

    Reference: Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019; Yan et al., "Does Unsupervised
    Architecture Representation Learning Help Neural Architecture Search?", NeurIPS 2020 (the sizes).

    Args:
        kinds: Number of labels of the vertices.
        width: Features of a vertex.
        layers: Number of layers.
        dropout: Share of the features of a vertex that each layer drops.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> graph = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=2)
        >>> GIN(kinds=2, width=4)(graph).shape
        torch.Size([1, 4])
    """

    def __init__(self, kinds: int, width: int = 128, layers: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        _check(width, layers, dropout)
        self.width = width
        self.first = Lookup(kinds, width)
        self.eps = nn.Parameter(torch.zeros(layers))
        norms = 2 * layers  # the first has no matrix of its own: that is the table of labels
        self.weights = nn.Parameter(torch.empty(norms - 1, width, width))  # few large parameters: a faster optimiser
        self.gains, self.shifts = nn.Parameter(torch.ones(norms, width)), nn.Parameter(torch.zeros(norms, width))
        self.means: Tensor
        self.variances: Tensor
        self.register_buffer("means", torch.zeros(norms, width))
        self.register_buffer("variances", torch.ones(norms, width))
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.weights, -(width**-0.5), width**-0.5)

    def forward(self, graphs: Graphs) -> Tensor:
        """Vectors ``(n, width)``."""
        mask = graphs.mask()
        near = graphs.adjacency + graphs.adjacency.mT
        rows = None if bool(mask.all()) else mask.flatten().nonzero().squeeze(1)
        weights, norms = self.weights.unbind(), self._norms()
        x: Tensor = self.first(graphs.labels)
        for k, eps in enumerate(self.eps.unbind()):
            h = ((1 + eps) * x + near @ x).flatten(0, 1)
            h = h if rows is None else h[rows]
            for j in (2 * k, 2 * k + 1):
                h = norms(h @ weights[j - 1] if j else h, j).relu()
            h = self.dropout(h)
            flat = h if rows is None else h.new_zeros(mask.numel(), self.width).index_copy(0, rows, h)
            x = flat.view_as(x)
        return x.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def _norms(self) -> Callable[[Tensor, int], Tensor]:
        """The batch normalisations by their number."""
        gains, shifts, means, variances = (
            value.unbind() for value in (self.gains, self.shifts, self.means, self.variances)
        )

        def norm(x: Tensor, k: int) -> Tensor:
            return nn.functional.batch_norm(x, means[k], variances[k], gains[k], shifts[k], self.training)

        return norm


def _check(width: int, layers: int, dropout: float) -> None:
    if min(width, layers) < 1 or not 0 <= dropout < 1:
        raise ValueError(f"width={width}, layers={layers}, dropout={dropout}: sizes from 1, dropout in [0, 1)")
