"""A variational autoencoder of small graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.query.encoders.base import Graphs
from lightning_nas.query.predictors.fitting import Learner

__all__ = ["GraphAutoencoder", "Reconstruction", "divergence"]


class Reconstruction(NamedTuple):
    """How well graphs are told from their embeddings: shares in [0, 1].

    Args:
        operations: Vertices whose label is right.
        edges: Pairs of vertices of which it is right whether an edge joins them.
        graphs: Graphs of which all is right.
        number: How many graphs were looked at; no share.
    """

    operations: float
    edges: float
    graphs: float
    number: int


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of normal distributions from the standard one, summed over the last dimension.

    :math:`\frac12 \sum (\mu^2 + \sigma^2 - 1 - 2 \ln\sigma)`.

    Args:
        mean: ``(..., size)``.
        log_std: Logarithms of the standard deviations, of the same shape.

    Example:
        >>> divergence(torch.ones(2), torch.zeros(2))
        tensor(1.)
    """
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(dim=-1)


class GraphAutoencoder(Learner):
    r"""A variational autoencoder of graphs with a graph isomorphism network as its encoder.

    Edges count in both directions: each hop sends :math:`(1 + \epsilon) h + (A + A^T) h` through a perceptron of two
    layers. Each vertex gets a mean and a logarithm of a standard deviation. Decoded are the labels, by a linear map,
    and the edges, by products of the vertices' embeddings; vertices are in topological order, so edges need no
    direction. The loss is the mean cross-entropy of each bit of the labels, that of each pair of vertices, and the
    mean divergence over the number of vertices in the batch.

    Reference: Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019; Yan et al., "Does Unsupervised
    Architecture Representation Learning Help Neural Architecture Search?", NeurIPS 2020.

    Args:
        graphs: What to learn from; ``None`` to embed only.
        kinds: Number of labels.
        size: Length of the embedding.
        hidden: Units of each layer.
        hops: Hops of the encoder, the last one the heads of mean and deviation (published: 5).
        dropout: Share of the embedding that the decoder does not see in training (published: 0.3).
        lr: Learning rate of Adam.

    Example:
        >>> graph = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=3)
        >>> GraphAutoencoder(None, kinds=3, size=4).eval().embed(graph).shape
        torch.Size([1, 4])
    """

    def __init__(
        self,
        graphs: Graphs | None,
        kinds: int,
        size: int = 16,
        hidden: int = 128,
        hops: int = 5,
        dropout: float = 0.0,
        lr: float = 1e-3,
    ) -> None:
        super().__init__(clip=5.0)
        self.graphs, self.dropout, self.lr = graphs, dropout, lr
        widths = [kinds] + [hidden] * (hops - 1)
        self.hops = nn.ModuleList(_perceptron(inputs, hidden) for inputs in widths[:-1])
        self.epsilon = nn.Parameter(torch.zeros(hops - 1))
        self.mean, self.log_std = nn.Linear(widths[-1], size), nn.Linear(widths[-1], size)
        self.labels = nn.Linear(size, kinds)

    def encode(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of each vertex, ``(n, v, size)``, zero for padding."""
        real = graphs.mask().flatten().nonzero().squeeze(1)  # statistics of a batch are those of real vertices
        both_ways = (graphs.adjacency + graphs.adjacency.mT).to(self.epsilon.dtype)
        h = graphs.one_hot().to(self.epsilon.dtype)
        for epsilon, hop in zip(self.epsilon, self.hops, strict=True):
            summed = (1 + epsilon) * h + both_ways @ h
            h = _spread(hop(_rows(summed, real)), real, h.shape)
        rows = _rows(h, real)
        return _spread(self.mean(rows), real, h.shape), _spread(self.log_std(rows), real, h.shape)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the labels ``(n, v, kinds)`` and of the edges ``(n, v, v)``."""
        return self.labels(z), z @ z.mT

    def embed(self, graphs: Graphs) -> Tensor:
        """The mean over the vertices, ``(n, size)``."""
        mean, _ = self.encode(graphs)
        return mean.sum(dim=1) / graphs.mask().sum(dim=1, keepdim=True)

    def loss(self, rows: Tensor) -> Tensor:
        """What is lost of the graphs with these numbers, and the divergence."""
        if self.graphs is None:
            raise ValueError("this autoencoder has no graphs to learn from; give it some")
        graphs = self.graphs[rows]
        mean, log_std = self.encode(graphs)
        z = mean + log_std.exp() * torch.randn_like(mean)
        labels, edges = self.decode(F.dropout(z, self.dropout, self.training))
        real, pairs = graphs.mask(), _pairs(graphs)
        hot, joined = graphs.one_hot().to(z.dtype), graphs.adjacency.to(z.dtype)
        label_loss = F.binary_cross_entropy(labels[real].softmax(dim=-1), hot[real])
        edge_loss = F.binary_cross_entropy_with_logits(edges[pairs], joined[pairs])
        return label_loss + edge_loss + divergence(mean, log_std)[real].mean() / real.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)

    def reconstruction(self, graphs: Graphs) -> Reconstruction:
        """How much of graphs comes back from the means of their vertices; in evaluation mode."""
        labels, edges = self.decode(self.encode(graphs)[0])
        real, pairs = graphs.mask(), _pairs(graphs)
        named = (labels.argmax(dim=2) == graphs.labels) | ~real
        joined = ((edges > 0) == (graphs.adjacency > 0)) | ~pairs
        whole = named.all(dim=1) & joined.flatten(1).all(dim=1)
        shares = [float(right.float().mean()) for right in (named[real], joined[pairs], whole)]
        return Reconstruction(shares[0], shares[1], shares[2], len(graphs))


def _perceptron(inputs: int, hidden: int) -> nn.Sequential:
    first = nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
    return nn.Sequential(*first, nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU())


def _rows(h: Tensor, real: Tensor) -> Tensor:
    """The real vertices of all graphs, one after the other."""
    return h.flatten(0, 1).index_select(0, real)


def _spread(rows: Tensor, real: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows of real vertices back to where they are in ``(n, v, ...)``."""
    n, v = shape[:2]
    return rows.new_zeros(n * v, rows.shape[1]).index_copy(0, real, rows).view(n, v, -1)


def _pairs(graphs: Graphs) -> Tensor:
    """Which entries ``(n, v, v)`` are pairs of real vertices, the earlier one first."""
    real = graphs.mask()
    return (real[:, :, None] & real[:, None, :]).triu(1)
