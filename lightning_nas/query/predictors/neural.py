"""The Neural Predictor: a graph network that regresses the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_nas.query.encoders.base import Encoded, Graphs
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, learned
from lightning_nas.query.predictors.base import graphs as checked
from lightning_nas.query.predictors.fitting import Learner, fit_quietly, seeded_torch
from lightning_nas.query.predictors.gcn import DirectedGCN
from lightning_nas.query.predictors.graph_network import embed, trimmed

__all__ = ["NeuralPredictor"]


class NeuralPredictor(Predictor):
    """Regression of the score by graph convolutions both ways, and if asked a classifier before it.

    The regressor learns standardised scores by the squared error. With `quantile` or `threshold` a classifier learns
    first which architectures score at least that; the regressor then learns from those alone, and an architecture that
    does not pass is predicted the mean score of those that did not.

    Reference: Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020.

    Args:
        width: Features of a vertex.
        layers: Graph convolutions.
        hidden: Units of the layer after the mean over the vertices.
        dropout: Share of the features dropped after each layer.
        lr: Learning rate of Adam at the start; it falls along a cosine to zero.
        weight_decay: L2 penalty.
        batch: Architectures of a mini-batch.
        passes: Passes over the labels.
        quantile: Share of the labels that a classifier learns to sort out.
        threshold: The score instead from which on architectures are good (NAS-Bench-101: 91 %). A fit whose labels all
            reach it, or all miss it, has nothing to sort out: there is no classifier then, and the regressor learns
            from all labels.

    Raises:
        ValueError: If a number is out of its range, or both `quantile` and `threshold` are given.

    Example:
        >>> graphs = Graphs(torch.zeros(8, 1, 1), torch.arange(8)[:, None] % 2, kinds=2)
        >>> predictor = NeuralPredictor(16, hidden=16, lr=0.01, passes=100).fit(graphs, torch.arange(8) % 2 + 90.0)
        >>> predictor.predict(graphs).mean.round().tolist()[:2]
        [90.0, 91.0]
    """

    takes = ("graphs",)

    def __init__(
        self,
        width: int = 144,
        layers: int = 3,
        hidden: int = 128,
        dropout: float = 0.1,
        lr: float = 1e-4,
        weight_decay: float = 1e-3,
        batch: int = 10,
        passes: int = 300,
        quantile: float | None = None,
        threshold: float | None = None,
    ) -> None:
        if min(width, layers, hidden, batch, passes) < 1 or lr <= 0 or weight_decay < 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"width={width}, layers={layers}, hidden={hidden}, batch={batch}, passes={passes}, lr={lr},"
                f" weight_decay={weight_decay}, dropout={dropout}: sizes from 1, a positive lr, dropout in [0, 1)"
            )
        if not 0 < (0.5 if quantile is None else quantile) < 1 or (quantile is not None and threshold is not None):
            raise ValueError(f"quantile={quantile}, threshold={threshold}: give one of them, a quantile in (0, 1)")
        self.width, self.layers, self.hidden, self.dropout = width, layers, hidden, dropout
        self.lr, self.weight_decay, self.batch, self.passes = lr, weight_decay, batch, passes
        self.quantile, self.threshold = quantile, threshold
        self.classifier: nn.Module | None = None
        self.regressor: nn.Module | None = None
        self.scale, self.rest = Scale(0.0, 1.0), 0.0

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Learn to sort out, if asked, then to regress."""
        known, y = trimmed(checked(x, self)), self.checked_scores(x, y)
        self.classifier, good = None, torch.ones_like(y, dtype=torch.bool)
        if self.quantile is not None:
            good = y >= torch.quantile(y, self.quantile)
        elif self.threshold is not None:
            good = y >= self.threshold
        if good.any() and not good.all():
            self.rest = float(y[~good].mean())
            self.classifier = self._network(known, good.float(), binary_cross_entropy_with_logits, seed + 1)
            known, y = known[good], y[good]
        self.scale = Scale.of(y)
        self.regressor = self._network(known, self.scale.to(y).float(), mse_loss, seed)
        return self

    def _network(self, x: Graphs, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], seed: int) -> nn.Module:
        """A fitted network."""
        with seeded_torch(seed):
            network = nn.Sequential(
                DirectedGCN(x.kinds, self.width, self.layers),
                nn.Linear(self.width, self.hidden, bias=False),
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, 1, bias=False),
                nn.Flatten(0),
            )
        optimizer = torch.optim.Adam(network.parameters(), self.lr, weight_decay=self.weight_decay, fused=True)
        fit_quietly(_Regression(network, x, y, loss, optimizer, self.passes), len(x), self.batch, self.passes, seed)
        return network

    def predict(self, x: Encoded) -> Prediction:
        """Expected scores, without uncertainty."""
        regressor, asked = learned(self.regressor), checked(self.checked_rows(x), self)
        mean = self.scale.back(embed(regressor, asked).double())
        if self.classifier is not None:
            mean = torch.where(embed(self.classifier, asked) >= 0, mean, self.rest)
        return Prediction(mean, torch.zeros_like(mean))


class _Regression(Learner):
    """A network, graphs, and what it should say of them."""

    def __init__(
        self,
        network: nn.Module,
        x: Graphs,
        y: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        passes: int,
    ) -> None:
        super().__init__()
        self.network, self.x, self.y, self.error = network, x, y, loss
        self.optimizer, self.passes = optimizer, passes

    def loss(self, rows: Tensor) -> Tensor:
        """The mean error on the rows."""
        return self.error(self.network(self.x[rows]), self.y[rows])

    def configure_optimizers(self) -> Any:
        """The optimiser, its rate along a cosine."""
        return [self.optimizer], [CosineAnnealingLR(self.optimizer, self.passes)]
