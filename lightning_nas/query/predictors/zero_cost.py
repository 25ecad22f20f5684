"""A score without training as a predictor."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, features, learned

__all__ = ["ZeroCost"]


class ZeroCost(Predictor):
    r"""Ranks by the first feature, the score that a `ScoreEncoder` gives; or corrects it by what another learns.

    Alone it is a ranker that learns nothing. With a `rest`, which works on the other features, the prediction is
    :math:`a + b\,u + r`: `u` is the rank of the score among those of the labelled architectures, from 0 to 1, `a` and
    `b` fit the labels by least squares, with `b` at least 0, and `r` is what the rest predicts, which learns the
    residuals. So the scale of the score does not matter, few labels suffice to begin with, and a prediction does not
    depend on the other candidates, as it would with ranks among those. The uncertainty is that of the rest.

    Reference: White et al., "How Powerful are Performance Predictors in Neural Architecture Search?", NeurIPS 2021;
    Krishnakumar et al., "NAS-Bench-Suite-Zero", NeurIPS 2022.

    Args:
        rest: Predictor that learns the residuals from the other features; ``None`` for the score alone.

    Raises:
        ValueError: If the rest does not learn from features.

    Example:
        >>> x = torch.tensor([[1e9, 0.0], [3.0, 1.0], [7.0, 0.0]])
        >>> ZeroCost().fit(x, torch.tensor([1.0, 2.0, 3.0])).predict(x).mean.argsort(descending=True)
        tensor([0, 2, 1])
    """

    takes = ("features",)

    def __init__(self, rest: Predictor | None = None) -> None:
        if rest is not None and "features" not in rest.takes:
            raise ValueError(
                f"{type(rest).__name__} takes {' or '.join(rest.takes)}; give a predictor on features as rest="
            )
        self.rest = rest
        self.scores: Tensor | None = None  # of the labelled architectures, sorted
        self.line = (0.0, 0.0)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Learn the line, and let the rest learn what it leaves."""
        first, others = _split(features(x, self))
        y = self.checked_scores(x, y)
        self.scores = first.sort().values
        if self.rest is not None:
            if not others.shape[1]:
                raise ValueError("there is no feature but the score to learn from; give the ScoreEncoder a rest=")
            ranks = self._ranks(first, self.scores)
            deviation = ranks - ranks.mean()
            slope = float(deviation @ y.double()) / max(float(deviation @ deviation), 1e-12)
            slope = max(slope, 0.0)
            self.line = float(y.double().mean() - slope * ranks.mean()), slope
            self.rest.fit(others, y - self._prior(ranks).to(y), seed)
        return self

    def predict(self, x: Encoded) -> Prediction:
        """The score, or the line at its rank and what the rest says."""
        scores = learned(self.scores)
        first, others = _split(features(self.checked_rows(x), self))
        if self.rest is None:
            return Prediction(first, torch.zeros_like(first))
        prediction = self.rest.predict(others)
        prior, draw = self._prior(self._ranks(first, scores)).to(prediction.mean), prediction.joint
        joint = None if draw is None else lambda rng: prior + draw(rng)
        return Prediction(prior + prediction.mean, prediction.std, joint)

    def _prior(self, ranks: Tensor) -> Tensor:
        return self.line[0] + self.line[1] * ranks

    @staticmethod
    def _ranks(scores: Tensor, known: Tensor) -> Tensor:
        """The share of the known scores that each exceeds, equal ones by half."""
        below, up_to = (torch.searchsorted(known, scores.contiguous(), right=right) for right in (False, True))
        return (below + up_to).double() / (2 * len(known))


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """The score ``(n,)`` and the other features ``(n, d)``."""
    return x[:, 0].double().contiguous(), x[:, 1:]
