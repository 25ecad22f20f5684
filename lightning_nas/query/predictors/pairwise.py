"""Losses of pairs of architectures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, relu

__all__ = ["LOSSES", "BinaryRelation", "Head", "Loss", "Score", "bce", "hinge", "pairs"]

Loss = Literal["hinge", "bce", "relation"]
"""Names of the losses of a pair."""

LOSSES: tuple[str, ...] = get_args(Loss)


def pairs(y: Tensor, ratio: float | None = None) -> tuple[Tensor, Tensor]:
    """All pairs of different scores.

    Args:
        y: Scores ``(n,)``.
        ratio: Keep at most ``ratio * n`` pairs, drawn from torch's generator; ``None`` for all.

    Returns:
        For each pair the numbers of the better and of the worse.

    Example:
        >>> pairs(torch.tensor([1.0, 2.0, 1.0]))
        (tensor([1, 1]), tensor([0, 2]))
    """
    better, worse = (y[:, None] > y).nonzero(as_tuple=True)
    if ratio is not None and len(better) > ratio * len(y):
        kept = torch.randperm(len(better))[: max(1, int(ratio * len(y)))]
        better, worse = better[kept], worse[kept]
    return better, worse


def hinge(better: Tensor, worse: Tensor, margin: float = 0.1) -> Tensor:
    """Mean of ``max(0, margin - (better - worse))`` over pairs of scores; zero without pairs.

    Args:
        better: Scores ``(pairs,)`` that should be the higher ones.
        worse: Scores ``(pairs,)``.
        margin: The difference that is enough.

    Example:
        >>> hinge(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), margin=0.5)
        tensor(0.2500)
    """
    return relu(margin - better + worse).sum() / max(1, len(better))


def bce(better: Tensor, worse: Tensor) -> Tensor:
    """Mean of ``-log(sigmoid(better - worse))`` over pairs of scores; zero without pairs.

    Args:
        better: Scores ``(pairs,)`` that should be the higher ones.
        worse: Scores ``(pairs,)``.

    Example:
        >>> bce(torch.zeros(1), torch.zeros(1))
        tensor(0.6931)
    """
    return -logsigmoid(better - worse).sum() / max(1, len(better))


class Head(nn.Module, ABC):
    """What follows the vectors of a ranker: a loss of pairs, and a rating of each architecture."""

    @abstractmethod
    def loss(self, vectors: Tensor, y: Tensor, better: Tensor, worse: Tensor) -> Tensor:
        """The mean loss of pairs.

        Args:
            vectors: ``(n, width)``.
            y: Standardised labels ``(n,)``.
            better: Numbers of the better of each pair.
            worse: Numbers of the worse.
        """

    @abstractmethod
    def rate(self, vectors: Tensor, known: Tensor) -> Tensor:
        """Ratings ``(n,)``; the larger, the better.

        Args:
            vectors: ``(n, width)``.
            known: Vectors ``(m, width)`` of the labelled architectures.
        """


class Score(Head):
    r"""A score `s`; :math:`p(1 > 2) = \mathrm{sigmoid}(s_1 - s_2)`, so that :math:`p(1 > 2) = 1 - p(2 > 1)`.

    Args:
        width: Length of the vectors.
        kind: ``"hinge"`` or ``"bce"``.
        margin: Margin of the hinge loss.
        hidden: Units of layers with ReLU before the score.
        dropout: Share of them that is dropped.

    Example:
        >>> Score(4, hidden=(8,))(torch.zeros(3, 4)).shape
        torch.Size([3])
    """

    def __init__(
        self, width: int, kind: Loss = "hinge", margin: float = 0.1, hidden: Sequence[int] = (), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.kind, self.margin = kind, margin
        sizes = (width, *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1), nn.Flatten(0))

    def forward(self, vectors: Tensor) -> Tensor:
        """Scores ``(n,)`` of vectors ``(n, width)``."""
        scores: Tensor = self.layers(vectors)
        return scores

    def loss(self, vectors: Tensor, y: Tensor, better: Tensor, worse: Tensor) -> Tensor:  # noqa: D102
        scores = self(vectors)
        first, second = scores[better], scores[worse]
        return hinge(first, second, self.margin) if self.kind == "hinge" else bce(first, second)

    def rate(self, vectors: Tensor, known: Tensor) -> Tensor:  # noqa: D102
        scores: Tensor = self(vectors)
        return scores


class BinaryRelation(Head):
    """Two logits from two vectors side by side: that the first, or the second, is the better one.

    Nothing makes the answer to the swapped question the opposite, nor the relation transitive. As the head is linear,
    the probability that 1 wins is ``sigmoid(a(1) + b(2) + c)``. An architecture is rated by its mean probability to
    win against the labelled architectures, asked in both orders, so that the order is one and does not hang on how it
    is sorted, or on who else is rated.

    Reference: Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020.

    Args:
        width: Length of the vectors.

    Example:
        >>> relation = BinaryRelation(4)
        >>> relation(torch.zeros(3, 4), torch.ones(3, 4)).exp().sum(dim=-1).allclose(torch.ones(3))
        True
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Log-probabilities ``(n, 2)`` that the first, and that the second, is the better one."""
        logits: Tensor = self.linear(torch.cat([first, second], dim=-1))
        return logits.log_softmax(dim=-1)

    def sides(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What vectors give to the logit of the first place's win: ``(n,)`` as the first, and as the second."""
        first, second = (self.linear.weight[0] - self.linear.weight[1]).chunk(2)
        return vectors @ first + self.linear.bias[0] - self.linear.bias[1], vectors @ second

    def loss(self, vectors: Tensor, y: Tensor, better: Tensor, worse: Tensor) -> Tensor:
        """Divergence from the softmax of the labels, in both orders."""
        first, second = self.sides(vectors)
        logits = torch.cat([first[better] + second[worse], first[worse] + second[better]])
        gap = y[better] - y[worse]
        gap = torch.cat([gap, -gap])
        target = gap.sigmoid()
        entropy = -(target * logsigmoid(gap) + (1 - target) * logsigmoid(-gap)).sum()
        return (binary_cross_entropy_with_logits(logits, target, reduction="sum") - entropy) / max(1, len(gap))

    def rate(self, vectors: Tensor, known: Tensor) -> Tensor:
        """Mean probabilities to win against the known ones, asked in both orders."""
        (first, second), (start, end) = self.sides(vectors), self.sides(known)
        won = (first[:, None] + end).sigmoid().mean(dim=1)
        lost = (start + second[:, None]).sigmoid().mean(dim=1)
        return (won + 1 - lost) / 2
