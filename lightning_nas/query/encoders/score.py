"""A score of its own as a genotype's feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.base import Encoder, Graphs
from lightning_nas.spaces import Space

__all__ = ["ScoreEncoder"]


class ScoreEncoder(Encoder):
    """What a function says of a genotype as its first feature: a score without training, a number of operations.

    Each genotype is scored once, when it is first encoded, so a candidate costs what the function costs. With a `rest`
    the features of another encoder follow, so that a predictor learns from both. `ZeroCostScore` of the oracles makes
    a function of a zero-cost oracle.

    Reference: White et al., "How Powerful are Performance Predictors in Neural Architecture Search?", NeurIPS 2021
    (scores without training as features of a predictor).

    Args:
        space: Name of a search space, or a space.
        score: Function from a genotype to a number, the larger the better.
        rest: Encoder of further features.
        worst: What stands for a score that is not finite, such as that of a cell without a path.

    Raises:
        ValueError: If the encoder of the rest makes no features.

    Example:
        >>> import random
        >>> encoder = ScoreEncoder("nasbench201", lambda genotype: sum(k for k, in genotype.picks.values()))
        >>> encoder([encoder.space.sample(random.Random(0))])
        tensor([[15.]], dtype=torch.float64)
    """

    def __init__(
        self,
        space: str | Space,
        score: Callable[[Genotype], float],
        rest: Encoder | None = None,
        worst: float = -1e8,
    ) -> None:
        super().__init__(space)
        if rest is not None and rest.makes != "features":
            raise ValueError(f"{type(rest).__name__} makes {rest.makes}; give an encoder of features as rest=")
        self.score, self.rest, self.worst = score, rest, worst

    def encode(self, genotypes: Sequence[Genotype]) -> Tensor:
        """``(n, 1)`` or ``(n, 1 + features)``, double precision.

        Raises:
            ValueError: If the encoder of the rest makes graphs.
        """
        scores = [float(self.score(genotype)) for genotype in genotypes]
        column = [[score if math.isfinite(score) else self.worst] for score in scores]
        first = torch.tensor(column, dtype=torch.float64)
        if self.rest is None:
            return first
        others = self.rest(genotypes)
        if isinstance(others, Graphs):
            raise ValueError(f"{type(self.rest).__name__} makes graphs; give an encoder of features as rest=")
        return torch.cat([first, others.double()], dim=1)
