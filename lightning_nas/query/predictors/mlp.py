"""An ensemble of multilayer perceptrons, its members trained side by side as one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise
from math import sqrt
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, features, learned, over_members
from lightning_nas.query.predictors.fitting import Learner, fit_quietly

__all__ = ["BatchedMLP", "Loss", "MLPEnsemble", "member_seeds"]

Loss = Literal["mae", "mape", "mse"]
"""How far a prediction is off: absolute, relative to the distance of the score from a bound, or squared."""

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class BatchedMLP(Learner):
    """Several perceptrons of one shape, each with weights and an order of the rows of its own, in one model.

    A layer of all members is one batched product. The loss is the sum of the members' losses, so that each learns
    exactly as it would alone. A member's seed gives its first weights (uniform, after Glorot) and the fixed
    permutation by which it reads the rows of each shuffled mini-batch.

    Args:
        x: Features ``(n, d)``.
        y: Targets ``(n,)``.
        seeds: A seed for each member.
        hidden: Widths of the hidden layers.
        activation: ``"relu"`` or ``"tanh"``.
        squared: Whether the error is squared, otherwise absolute.
        weight: Weight of each row's error ``(n,)``; ``None`` for 1.
        lr: Learning rate of Adam.
        betas: Decay of Adam's averages.

    Example:
        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> model = BatchedMLP(x, x[:, 0].abs(), seeds=[0, 1, 2], hidden=(16,))
        >>> model = fit_quietly(model, rows=32, batch=8, passes=100, seed=0)
        >>> model(x).shape, bool((model(x) - x[:, 0].abs()).abs().mean() < 0.05)
        (torch.Size([3, 32]), True)
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        seeds: Sequence[int],
        hidden: Sequence[int] = (20,) * 10,
        activation: Literal["relu", "tanh"] = "relu",
        squared: bool = False,
        weight: Tensor | None = None,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__()
        self.x, self.y, self.weight = x, y, weight
        self.activation, self.squared, self.lr, self.betas = _ACTIVATIONS[activation], squared, lr, betas
        weights, orders = zip(*(_member(seed, (x.shape[1], *hidden, 1), len(x)) for seed in seeds), strict=True)
        layers = [torch.stack(layer).to(x.dtype) for layer in zip(*weights, strict=True)]
        self.weights = nn.ParameterList(layers)
        self.biases = nn.ParameterList([layer.new_zeros(len(seeds), 1, layer.shape[2]) for layer in layers])
        self.orders = torch.stack(orders)

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden layer ``(members, n, width)`` of features ``(n, d)``, or ``(members, n, d)``."""
        h = x.expand(len(self.orders), *x.shape[-2:])
        for weight, bias in islice(zip(self.weights, self.biases, strict=True), len(self.weights) - 1):
            h = self.activation(torch.baddbmm(bias, h, weight))
        return h

    def forward(self, x: Tensor) -> Tensor:
        """What each member says, ``(members, n)``."""
        return torch.baddbmm(self.biases[-1], self.hidden(x), self.weights[-1]).squeeze(2)

    def loss(self, rows: Tensor) -> Tensor:
        """The sum of the members' losses, each on rows of its own."""
        own = self.orders[:, rows]
        off = self(self.x[own]) - self.y[own]
        error: Tensor = off.square() if self.squared else off.abs()
        if self.weight is not None:
            error = error * self.weight[own]
        return error.mean(dim=1).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, all tensors in one call."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas, fused=True)


def _member(seed: int, sizes: Sequence[int], rows: int) -> tuple[list[Tensor], Tensor]:
    """The first weights of a member, layer by layer, and its permutation of the rows."""
    rng = torch.Generator().manual_seed(seed)
    weights = []
    for inputs, outputs in pairwise(sizes):
        limit = sqrt(6 / (inputs + outputs))
        weights.append((2 * torch.rand(inputs, outputs, generator=rng, dtype=torch.float64) - 1) * limit)
    return weights, torch.randperm(rows, generator=rng)


def member_seeds(seed: int, members: int) -> list[int]:
    """A seed for each member of an ensemble.

    Args:
        seed: Seed of the ensemble.
        members: Number of members.

    Example:
        >>> member_seeds(0, 5)[:3] == member_seeds(0, 3) != member_seeds(1, 3)
        True
    """
    rng = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2**31, (), generator=rng)) for _ in range(members)]


class MLPEnsemble(Predictor):
    r"""An ensemble of multilayer perceptrons on features; their disagreement is the uncertainty.

    Targets are standardised. With ``loss="mape"`` the error is relative to how far the score is from a bound that no
    score reaches, :math:`|(b - \hat y) / (b - y) - 1|`, so that good architectures count more. The defaults are the
    published setting for NAS-Bench-101; for DARTS it is ``loss="mape", bound=95.5, lr=1e-5, passes=10_000`` (the
    bound is an error of 4.5 percent).

    Reference: White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
    Architecture Search", AAAI 2021.

    Args:
        members: Number of members.
        layers: Hidden layers of each.
        width: Units of each layer.
        loss: ``"mae"``, ``"mape"`` or ``"mse"``.
        bound: A score better than all others, for ``"mape"``; ``None`` for the best label and one deviation more.
        lr: Learning rate.
        passes: Passes over the labels.
        batch: Labels of a mini-batch.

    Raises:
        ValueError: If a number is not positive, the loss is unknown, or a bound is given for another loss.

    Example:
        >>> x = torch.eye(8)
        >>> predictor = MLPEnsemble(members=3, layers=2).fit(x, torch.arange(8.0))
        >>> predictor.predict(x).mean.round().int().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    takes = ("features",)

    def __init__(
        self,
        members: int = 5,
        layers: int = 10,
        width: int = 20,
        loss: Loss = "mae",
        bound: float | None = None,
        lr: float = 0.01,
        passes: int = 150,
        batch: int = 32,
    ) -> None:
        if min(members, layers, width, passes, batch) < 1 or lr <= 0:
            given = f"members={members}, layers={layers}, width={width}, lr={lr}, passes={passes}, batch={batch}"
            raise ValueError(f"{given}: all must be positive")
        if loss not in get_args(Loss):
            raise ValueError(f"loss={loss!r}; give one of {get_args(Loss)}")
        if bound is not None and loss != "mape":
            raise ValueError(f"bound={bound} is for loss='mape', not for {loss!r}; leave it out")
        self.members, self.hidden, self.loss, self.bound = members, (width,) * layers, loss, bound
        self.lr, self.passes, self.batch = lr, passes, batch
        self.model: BatchedMLP | None = None
        self.scale = Scale(0.0, 1.0)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Train all members anew.

        Raises:
            ValueError: If `x` is graphs, there are no finite scores, or a score reaches the bound.
        """
        known, y = features(x, self).float(), self.checked_scores(x, y)
        self.scale = Scale.of(y)
        target = self.scale.to(y)
        model = BatchedMLP(
            known,
            target.float(),
            member_seeds(seed, self.members),
            self.hidden,
            squared=self.loss == "mse",
            weight=self._weight(y, target) if self.loss == "mape" else None,
            lr=self.lr,
        )
        self.model = fit_quietly(model, len(known), self.batch, self.passes, seed)
        return self

    def _weight(self, y: Tensor, target: Tensor) -> Tensor:
        """One over the distance from the bound, ``(n,)``."""
        if self.bound is None:
            return 1 / (target.max() + 1 - target).float()
        if bool((y >= self.bound).any()):
            raise ValueError(f"a score of {float(y.max()):g} reaches bound={self.bound:g}; give a larger bound")
        return (self.scale.width / (self.bound - y)).float()

    def predict(self, x: Encoded) -> Prediction:
        """Mean and population deviation over the members; a joint draw is one member."""
        model = learned(self.model)
        return over_members(self.scale.back(model(features(self.checked_rows(x), self).float()).double()))
