"""A network that learns features, and Bayesian linear regression on them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, features, learned
from lightning_nas.query.predictors.fitting import fit_quietly
from lightning_nas.query.predictors.linear import BayesianLinear, most_likely, posterior
from lightning_nas.query.predictors.mlp import BatchedMLP, member_seeds

__all__ = ["DNGO"]


class DNGO(Predictor):
    """Deep networks for global optimisation: a perceptron, its last layer replaced by Bayesian linear regression.

    The perceptron learns the scores by squared error; its last hidden layer is then the features of the regression,
    whose prior and noise maximise the evidence. Features and scores are standardised.

    Reference: Snoek et al., "Scalable Bayesian Optimization Using Deep Neural Networks", ICML 2015; Yan et al., "Does
    Unsupervised Architecture Representation Learning Help Neural Architecture Search?", NeurIPS 2020 (the defaults).

    Args:
        layers: Hidden layers, of tanh.
        width: Units of each.
        lr: Learning rate of Adam.
        passes: Passes over the labels.
        batch: Labels of a mini-batch.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> x = torch.linspace(-1, 1, 20)[:, None]
        >>> predictor = DNGO(width=32, passes=20).fit(x, torch.sin(3 * x[:, 0]))
        >>> near, far = predictor.predict(torch.tensor([[0.0], [9.0]])).std
        >>> bool(near < far)
        True
    """

    takes = ("features",)

    def __init__(self, layers: int = 3, width: int = 128, lr: float = 0.01, passes: int = 100, batch: int = 10) -> None:
        if min(layers, width, passes, batch) < 1 or lr <= 0:
            given = f"layers={layers}, width={width}, lr={lr}, passes={passes}, batch={batch}"
            raise ValueError(f"{given}: all must be positive")
        self.layers, self.width, self.lr, self.passes, self.batch = layers, width, lr, passes, batch
        self.scale = Scale(0.0, 1.0)
        self.fitted: tuple[BatchedMLP, BayesianLinear] | None = None
        self.center = self.spread = torch.empty(0)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Train the network anew, then the regression on its last hidden layer."""
        known, y = features(x, self).float(), self.checked_scores(x, y)
        self.scale = Scale.of(y)
        target = self.scale.to(y)
        spread = known.std(dim=0, correction=0)
        self.center, self.spread = known.mean(dim=0), torch.where(spread > 1e-8, spread, 1.0)
        model = BatchedMLP(
            self._standard(known),
            target.float(),
            member_seeds(seed, 1),
            (self.width,) * self.layers,
            activation="tanh",
            squared=True,
            lr=self.lr,
            betas=(0.9, 0.999),
        )
        network = fit_quietly(model, len(known), self.batch, self.passes, seed)
        hidden = network.hidden(self._standard(known))[0]
        self.fitted = network, posterior(hidden, target, *most_likely(hidden, target))
        return self

    def _standard(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.spread

    def predict(self, x: Encoded) -> Prediction:
        """Mean and standard deviation, noise included; a joint draw is one draw of the regression's weights."""
        (network, linear), scale = learned(self.fitted), self.scale
        hidden = network.hidden(self._standard(features(self.checked_rows(x), self).float()))[0]
        mean, std = linear.predict(hidden)
        return Prediction(scale.back(mean), scale.width * std, lambda rng: scale.back(linear.draw(hidden, rng)))
