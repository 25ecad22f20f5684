"""The simplest predictor, a yardstick for the others."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, features, learned

__all__ = ["NearestNeighbor"]


class NearestNeighbor(Predictor):
    """The mean score of the nearest labelled architectures; their deviation is the uncertainty.

    Args:
        k: Number of neighbors.

    Raises:
        ValueError: If `k` is not positive.

    Example:
        >>> predictor = NearestNeighbor(1).fit(torch.eye(2), torch.tensor([1.0, 2.0]))
        >>> predictor.predict(torch.tensor([[0.1, 0.9]])).mean
        tensor([2.])
    """

    takes = ("features",)

    def __init__(self, k: int = 3) -> None:
        if k < 1:
            raise ValueError(f"k={k}: give at least one neighbor")
        self.k = k
        self.known: tuple[Tensor, Tensor] | None = None

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Keep the labels."""
        known = features(x, self).float()
        self.known = known, self.checked_scores(x, y)
        return self

    def predict(self, x: Encoded) -> Prediction:
        """Mean and deviation over the neighbors."""
        known, scores = learned(self.known)
        distance = torch.cdist(features(self.checked_rows(x), self).float(), known)
        near = scores[distance.argsort(dim=1, stable=True)[:, : self.k]]
        return Prediction(near.mean(dim=1), near.std(dim=1, correction=0))
