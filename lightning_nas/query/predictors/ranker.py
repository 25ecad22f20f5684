"""Predictors that learn the order of architectures alone, from pairs of them."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_nas.query.encoders.base import Encoded, Graphs
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, learned, over_members
from lightning_nas.query.predictors.base import graphs as checked
from lightning_nas.query.predictors.fitting import Learner, fit_quietly, seeded_torch
from lightning_nas.query.predictors.gcn import DirectedGCN
from lightning_nas.query.predictors.graph_network import GraphNetwork, embed, trimmed
from lightning_nas.query.predictors.pairwise import LOSSES, BinaryRelation, Head, Loss, Score, pairs

__all__ = ["Ranker"]

Network = Callable[[int], GraphNetwork]
"""Makes a network on graphs from the number of labels of their vertices."""


class Ranker(Predictor):
    """Learns from pairs which of two architectures scores higher.

    Each step makes the vectors of the architectures of a mini-batch once and learns from all pairs among them;
    published code sends each pair through the network by itself, `n - 1` times the work. Pairs of equal score are left
    out. Every fit starts anew. The mean of a prediction has the order of the scores, not their size.

    ======== ===================================================== =====================================
    loss     of a pair, the better one first                       rating
    ======== ===================================================== =====================================
    hinge    ``max(0, margin - (s1 - s2))``                        the score `s`
    bce      ``-log(sigmoid(s1 - s2))``                            the score `s`
    relation divergence of `BinaryRelation` from the softmax of    the mean probability to win against
             the two standardised labels, in both orders           the labelled ones
    ======== ===================================================== =====================================

    Reference: Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020 (relation); Ning et al., "A
    Generic Graph-based Neural Architecture Encoding Scheme for Predictor-based NAS", ECCV 2020 (hinge, bce).

    Args:
        network: Makes the network, given the number of labels of vertices; the Neural Predictor's by default.
        loss: ``"hinge"``, ``"bce"`` or ``"relation"``.
        margin: Margin of the hinge loss.
        hidden: Units of the layers between a vector and its score; of ``"relation"`` there are none.
        dropout: Share of them that is dropped.
        lr: Learning rate of AdamW at the start.
        weight_decay: Its decay of the weights.
        cosine: Whether the learning rate falls along a cosine to zero.
        batch: Most architectures of a mini-batch; all have nearly the same size.
        passes: Passes over the labels.
        steps: Steps after which learning ends before its last pass; ``None`` for no limit. A pass over more labels has
            more steps, and each label comes in more pairs, so fewer passes do.
        ratio: Most pairs of a mini-batch, as multiple of its size, chosen at random; ``None`` for all.
        members: Rankers, each with a start of its own, whose mean and deviation on a common scale are predicted.

    Raises:
        ValueError: If the loss is unknown, or a number is out of its range.

    Example:
        >>> graphs = Graphs(torch.zeros(8, 1, 1), torch.arange(8)[:, None], kinds=8)
        >>> ranker = Ranker(passes=50).fit(graphs, torch.arange(8.0))
        >>> ranker.predict(graphs).mean.argsort().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    takes = ("graphs",)

    def __init__(
        self,
        network: Network | None = None,
        loss: Loss = "hinge",
        margin: float = 0.1,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 5e-4,
        cosine: bool = True,
        batch: int = 32,
        passes: int = 100,
        steps: int | None = None,
        ratio: float | None = None,
        members: int = 1,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss={loss!r}; give one of {', '.join(map(repr, LOSSES))}")
        if min(margin, lr, 1 if ratio is None else ratio) <= 0 or weight_decay < 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"margin={margin}, lr={lr}, ratio={ratio}, weight_decay={weight_decay}, dropout={dropout}:"
                " the first three must be positive, the decay not negative, dropout in [0, 1)"
            )
        if batch < 2 or min(passes, members, *hidden, 1, *([] if steps is None else [steps])) < 1:
            raise ValueError(
                f"batch={batch}, passes={passes}, steps={steps}, members={members}, hidden={hidden}: a batch has two,"
                " the others one"
            )
        self.network: Network = DirectedGCN if network is None else network
        self.kind, self.margin, self.hidden, self.dropout = loss, margin, hidden, dropout
        self.lr, self.weight_decay, self.cosine, self.batch, self.passes = lr, weight_decay, cosine, batch, passes
        self.steps, self.ratio, self.members = steps, ratio, members
        self.fitted: list[tuple[GraphNetwork, Head, Tensor]] = []

    def build(self, x: Graphs) -> GraphNetwork:
        """A network for graphs like these."""
        return self.network(x.kinds)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Learn the order."""
        known, y = trimmed(checked(x, self)), self.checked_scores(x, y)
        labels = Scale.of(y).to(y).float()
        self.fitted = [self._member(known, labels, self.members * seed + k) for k in range(self.members)]
        return self

    def _member(self, x: Graphs, y: Tensor, seed: int) -> tuple[GraphNetwork, Head, Tensor]:
        """A fitted network, its head, and its vectors of the labelled architectures."""
        with seeded_torch(seed):
            network = self.build(x)
            head = self._head(network.width)
        batches = ceil(len(x) / self.batch)
        passes = self.passes if self.steps is None else min(self.passes, ceil(self.steps / batches))
        fit_quietly(_Order(network, head, x, y, self, passes), len(x), ceil(len(x) / batches), passes, seed)
        return network, head, embed(network, x)

    def _head(self, width: int) -> Head:
        if self.kind == "relation":
            return BinaryRelation(width)
        return Score(width, self.kind, self.margin, self.hidden, self.dropout)

    def predict(self, x: Encoded) -> Prediction:
        """Ratings; their deviation over the members, of which a joint draw is one."""
        fitted, asked = learned(self.fitted or None), checked(self.checked_rows(x), self)
        with torch.no_grad():
            return over_members(torch.stack([self._rate(member, asked) for member in fitted]).double())

    def _rate(self, member: tuple[GraphNetwork, Head, Tensor], x: Graphs) -> Tensor:
        """The ratings of a member; of several, on the scale on which those of the labelled have mean 0, deviation 1."""
        network, head, known = member
        ratings = head.rate(embed(network, x), known)
        return ratings if self.members == 1 else Scale.of(head.rate(known, known)).to(ratings)


class _Order(Learner):
    """A network and a head that learn the order of some graphs."""

    def __init__(self, network: nn.Module, head: Head, x: Graphs, y: Tensor, ranker: Ranker, passes: int) -> None:
        super().__init__()
        self.network, self.head, self.x, self.y = network, head, x, y
        self.ranker, self.passes = ranker, passes

    def loss(self, rows: Tensor) -> Tensor:
        """The mean loss of the pairs."""
        y = self.y[rows]
        better, worse = pairs(y, self.ranker.ratio)
        vectors = self.network(self.x[rows])
        return self.head.loss(vectors, y, better, worse)

    def configure_optimizers(self) -> Any:
        """AdamW, its rate along a cosine."""
        ranker = self.ranker
        optimizer = torch.optim.AdamW(self.parameters(), ranker.lr, weight_decay=ranker.weight_decay, fused=True)
        return ([optimizer], [CosineAnnealingLR(optimizer, self.passes)]) if ranker.cosine else optimizer
