"""Predictors that also write architectures: of neural architecture optimization, and its semi-supervised form."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, learned
from lightning_nas.query.predictors.fitting import Learner, fit_quietly, seeded_torch
from lightning_nas.query.predictors.lstm import tokens, unit_scale
from lightning_nas.query.predictors.nao_network import NAONetwork

__all__ = ["NAOPredictor", "SemiNASPredictor"]


class _Fit(Learner):
    """The loss of score and reconstruction."""

    def __init__(self, network: NAONetwork, x: Tensor, y: Tensor, of: NAOPredictor) -> None:
        super().__init__(clip=of.clip)
        self.network, self.x, self.y = network, x, y
        self.lr, self.weight_decay, self.trade_off = of.lr, of.weight_decay, of.trade_off

    def loss(self, rows: Tensor) -> Tensor:
        read = self.network.read(self.x[rows])
        error = F.mse_loss(self.network.score(read), self.y[rows])
        return self.trade_off * error - (1 - self.trade_off) * self.network.log_likelihood(read, self.x[rows])

    def configure_optimizers(self) -> Optimizer:
        return Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


class NAOPredictor(Predictor):
    """Reads strings into a continuous space, predicts scores there, and writes strings from it.

    The loss is `trade_off` times the squared error of scores on [0, 1], and the rest of 1 times the negative mean
    log-probability of the strings' tokens. It says nothing of its uncertainty.

    Published for some 600 and more labels are 1,000 passes, which is `passes` for those who have the time; the default
    is for a few hundred labels.

    Reference: Luo, Tian, Qin, Chen and Liu, "Neural Architecture Optimization", NeurIPS 2018.

    Args:
        vocabulary: Number of tokens, ``len(encoder.vocabulary)`` of a `TokenEncoder`.
        hidden: Units of the LSTMs.
        embedding: Width of the embeddings.
        layers: Hidden layers of the perceptron that scores.
        width: Their units.
        dropout: Dropout behind each of them.
        passes: Passes over the data.
        batch: Architectures of a mini-batch.
        trade_off: Weight of the scores, from 0 to 1.
        lr: Learning rate of Adam.
        weight_decay: Its weight decay.
        clip: Largest norm of the gradient.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> x = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]])
        >>> predictor = NAOPredictor(3, hidden=16, embedding=8, layers=1, width=16, passes=60, lr=0.01)
        >>> fitted = predictor.fit(x, torch.tensor([90.0, 91.0, 92.0, 94.0]))
        >>> fitted.predict(x).mean.argsort().tolist(), fitted.generate(x, eta=0.0).tolist() == x.tolist()
        ([0, 1, 2, 3], True)
    """

    takes = ("tokens",)

    def __init__(
        self,
        vocabulary: int,
        hidden: int = 96,
        embedding: int = 48,
        layers: int = 3,
        width: int = 200,
        dropout: float = 0.1,
        passes: int = 200,
        batch: int = 100,
        trade_off: float = 0.8,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        clip: float = 5.0,
    ) -> None:
        if min(vocabulary, hidden, embedding, layers, width, passes, batch, lr, clip) <= 0:
            raise ValueError(
                f"vocabulary={vocabulary}, hidden={hidden}, embedding={embedding}, layers={layers}, width={width},"
                f" passes={passes}, batch={batch}, lr={lr}, clip={clip}: all must be positive"
            )
        if not 0 <= trade_off <= 1 or not 0 <= dropout < 1 or weight_decay < 0:
            raise ValueError(
                f"trade_off={trade_off}, dropout={dropout}, weight_decay={weight_decay}: give trade_off in [0, 1],"
                " dropout in [0, 1) and a weight decay that is not negative"
            )
        self.vocabulary, self.hidden, self.embedding = vocabulary, hidden, embedding
        self.layers, self.width, self.dropout = layers, width, dropout
        self.passes, self.batch, self.trade_off = passes, batch, trade_off
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.network: NAONetwork | None = None
        self.scale = Scale(0.0, 1.0)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:  # noqa: D102
        strings, y = tokens(x, self.vocabulary, self), self.checked_scores(x, y)
        self.scale = unit_scale(y)
        with seeded_torch(seed):
            network = NAONetwork(self.vocabulary, self.hidden, self.embedding, self.layers, self.width, self.dropout)
        self.network = self._train(network, strings, self.scale.to(y).float(), self.passes, seed)
        return self

    def _train(self, network: NAONetwork, x: Tensor, targets: Tensor, passes: int, seed: int) -> NAONetwork:
        learner = _Fit(network, x, targets, self)
        return fit_quietly(learner, len(x), self.batch, passes, seed).network

    def predict(self, x: Encoded) -> Prediction:
        """The scores, without uncertainty."""
        network, strings = self._fitted(), self._strings(x)
        with torch.no_grad():
            mean = self.scale.back(network.score(network.read(strings)).double())
        return Prediction(mean, torch.zeros_like(mean))

    def generate(self, x: Encoded, eta: float, allowed: Tensor | None = None) -> Tensor:
        """Strings ``(n, length)`` of architectures that should score more than the given ones.

        What was read of them is moved `eta` times along the gradient of the score, and written by the most probable
        tokens.

        Args:
            x: Encoded architectures.
            eta: Size of the step; negative for a lower score.
            allowed: ``(length, vocabulary)`` booleans: which tokens may stand in each place; ``None`` for all.

        Raises:
            ValueError: Before `fit`, or if they are not as long as those that were learned from.
        """
        network, strings = self._fitted(), self._strings(x)
        with torch.no_grad():
            return network.write(network.move(network.read(strings), eta), allowed)

    def _fitted(self) -> NAONetwork:
        return learned(self.network)

    def _strings(self, x: Encoded) -> Tensor:
        """Strings as long as those that were learned from."""
        return tokens(self.checked_rows(x), self.vocabulary, self)


class SemiNASPredictor(NAOPredictor):
    """Learns from labels, gives labels to architectures that have none, and goes on learning from all.

    Reference: Luo, Tan, Wang, Qin, Chen and Liu, "Semi-Supervised Neural Architecture Search", NeurIPS 2020.

    Args:
        vocabulary: Number of tokens.
        unlabelled: Encoded architectures without labels ``(n, length)``, 10,000 as published; ``None`` for none. A
            search may give others later.
        copies: How often each labelled architecture counts beside the unlabelled ones.
        more_passes: Passes over all of them; 500 as published.
        hidden, embedding, layers, width, passes, batch: As for `NAOPredictor`.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> x = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]])
        >>> predictor = SemiNASPredictor(3, x, hidden=16, embedding=8, layers=1, width=16, passes=40, more_passes=4)
        >>> predictor.fit(x[:3], torch.tensor([90.0, 91.0, 92.0])).predict(x).mean.shape
        torch.Size([4])
    """

    def __init__(
        self,
        vocabulary: int,
        unlabelled: Tensor | None = None,
        copies: int = 10,
        more_passes: int = 10,
        hidden: int = 64,
        embedding: int = 48,
        layers: int = 2,
        width: int = 16,
        passes: int = 200,
        batch: int = 100,
    ) -> None:
        super().__init__(vocabulary, hidden, embedding, layers, width, passes=passes, batch=batch)
        if copies < 1 or more_passes < 1:
            raise ValueError(f"copies={copies}, more_passes={more_passes}: both must be at least 1")
        self.unlabelled = unlabelled
        self.copies, self.more_passes = copies, more_passes

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:  # noqa: D102
        network = super().fit(x, y, seed)._fitted()
        if self.unlabelled is None:
            return self
        strings, others, y = self._strings(x), self._strings(self.unlabelled), self.checked_scores(x, y)
        with torch.no_grad():
            guessed = network.score(network.read(others))
        both = torch.cat([strings.repeat(self.copies, 1), others])
        targets = torch.cat([self.scale.to(y).float().repeat(self.copies), guessed])
        self.network = self._train(network.requires_grad_(True).train(), both, targets, self.more_passes, seed + 1)
        return self
