"""Gradient boosted trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, features, learned, over_members
from lightning_nas.query.predictors.mlp import member_seeds

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor

__all__ = ["Boosting"]


class Boosting(Predictor):
    """Gradient boosted trees on features; the disagreement of several such models is the uncertainty.

    Each member has a seed of its own for the rows that its trees see, and learns without one part of the labels,
    another one each, as in a cross-validation. With fewer labels than members, some learn from all.

    Reference: Friedman, "Stochastic Gradient Boosting", Computational Statistics and Data Analysis 2002; Luo et al.,
    "Accuracy Prediction with Non-neural Model for Neural Architecture Search", arXiv:2007.04785 (trees as predictors);
    Liu et al., "Progressive Neural Architecture Search", ECCV 2018 (members that leave out a part).

    Args:
        members: Number of members.
        trees: Trees of each.
        depth: Depth of each tree.
        lr: Learning rate.
        subsample: Share of the rows that a tree sees.

    Raises:
        ValueError: If a number is not positive, or `subsample` is above 1.

    Example:
        >>> x = torch.eye(8).repeat(4, 1)
        >>> y = torch.arange(8.0).repeat(4)
        >>> Boosting(members=3).fit(x, y).predict(torch.eye(8)).mean.round().int().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    takes = ("features",)

    def __init__(
        self, members: int = 5, trees: int = 100, depth: int = 3, lr: float = 0.1, subsample: float = 0.8
    ) -> None:
        if min(members, trees, depth) < 1 or lr <= 0 or not 0 < subsample <= 1:
            given = f"members={members}, trees={trees}, depth={depth}, lr={lr}, subsample={subsample}"
            raise ValueError(f"{given}: all must be positive, and subsample at most 1")
        self.members, self.trees, self.depth, self.lr, self.subsample = members, trees, depth, lr, subsample
        self.models: list[GradientBoostingRegressor] = []
        self.scale = Scale(0.0, 1.0)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Grow all trees anew."""
        known, y = features(x, self).numpy(), self.checked_scores(x, y)
        self.scale = Scale.of(y)
        target = self.scale.to(y).numpy()
        part = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).numpy() % max(2, self.members)
        self.models = []
        for member, own in enumerate(member_seeds(seed, self.members)):
            seen = part != member if self.members > 1 and len(y) > 1 else part >= 0
            self.models.append(self._model(own, int(seen.sum())).fit(known[seen], target[seen]))
        return self

    def _model(self, seed: int, rows: int) -> GradientBoostingRegressor:
        from sklearn.ensemble import GradientBoostingRegressor

        return GradientBoostingRegressor(
            n_estimators=self.trees,
            max_depth=self.depth,
            learning_rate=self.lr,
            subsample=self.subsample if rows > 1 else 1.0,  # a tree must leave out a row, or see all
            random_state=seed,
        )

    def predict(self, x: Encoded) -> Prediction:
        """Mean and population deviation over the members; a joint draw is one member."""
        models, asked = learned(self.models or None), features(self.checked_rows(x), self).numpy()
        return over_members(self.scale.back(torch.stack([torch.from_numpy(model.predict(asked)) for model in models])))
