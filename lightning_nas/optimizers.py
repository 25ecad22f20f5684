"""Recipes of optimisers: of the weights, and of the architecture parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

__all__ = ["AdamTheta", "ExponentiatedGradient", "SGDCosine", "ThetaRecipe"]


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _not_negative(*values: float) -> bool:
    return all(math.isfinite(value) and value >= 0 for value in values)


@dataclass(frozen=True)
class SGDCosine:
    """Stochastic gradient descent with momentum and a cosine schedule per epoch, as the published recipes have it.

    Args:
        lr: Initial learning rate.
        lr_min: Learning rate at the end.
        momentum: Momentum.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: L2 penalty.
        clip: Norm to which the gradient of all weights together is clipped; ``None`` for no clipping.

    Raises:
        ValueError: If a rate is negative or not finite, `lr` or `clip` is not positive, or Nesterov's has no momentum.

    Example:
        >>> SGDCosine(lr=0.1).optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
        0.1
    """

    lr: float = 0.025
    lr_min: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip: float | None = 5.0

    def __post_init__(self) -> None:
        if not (_positive(self.lr) and _not_negative(self.lr_min, self.momentum, self.weight_decay)):
            raise ValueError(
                f"{self}: lr must be positive; lr_min, momentum and weight_decay must not be negative; all must be"
                " finite"
            )
        if self.clip is not None and not _positive(self.clip):
            raise ValueError(f"clip={self.clip} must be positive and finite; give None for no clipping")
        if self.nesterov and not self.momentum:
            raise ValueError(
                f"nesterov={self.nesterov} with momentum={self.momentum}: give a positive momentum, or nesterov=False"
            )

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> SGD:
        """The optimiser of these parameters."""
        return SGD(parameters, self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay)

    def scheduler(self, optimizer: Optimizer) -> CosineAnnealingLR:
        """The schedule, whose length `stretch` sets once the fit has started."""
        return CosineAnnealingLR(optimizer, 1, self.lr_min)


@dataclass(frozen=True)
class AdamTheta:
    """Adam for the architecture parameters, with the published defaults of DARTS.

    Args:
        lr: Learning rate, constant.
        betas: Decay of the moments.
        weight_decay: L2 penalty.
        clip: Norm to which the architecture gradient is clipped; ``None`` for no clipping.

    Raises:
        ValueError: If a value is out of range or not finite.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    clip: float | None = None

    def __post_init__(self) -> None:
        if not (_positive(self.lr) and _not_negative(self.weight_decay)):
            raise ValueError(f"{self}: lr must be positive, weight_decay must not be negative; both must be finite")
        if self.clip is not None and not _positive(self.clip):
            raise ValueError(f"clip={self.clip} must be positive and finite; give None for no clipping")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: both must be at least 0 and less than 1")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Adam:
        """The optimiser of these parameters."""
        return Adam(parameters, self.lr, self.betas, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class ExponentiatedGradient:
    r"""Steps on the simplex: :math:`\theta \leftarrow \theta e^{-\eta g}`, each row divided by its sum.

    For architecture parameters that are the weights themselves, as in `Simplex`.

    Reference: Li, Khodak, Balcan and Talwalkar, "Geometry-Aware Gradient Algorithms for Neural Architecture Search",
    ICLR 2021.

    Args:
        eg_lr: Learning rate, constant.
        clip: Norm to which the architecture gradient is clipped; ``None`` for no clipping.

    Raises:
        ValueError: If the rate or the norm is not positive and finite.

    Example:
        >>> theta = nn.Parameter(torch.tensor([[0.5, 0.5]]))
        >>> theta.grad = torch.tensor([[0.0, 1.0]])
        >>> _ = ExponentiatedGradient(eg_lr=1.0).optimizer([theta]).step()
        >>> [round(p, 4) for p in theta.tolist()[0]]
        [0.7311, 0.2689]
    """

    eg_lr: float = 0.1
    clip: float | None = None

    def __post_init__(self) -> None:
        if not _positive(self.eg_lr) or (self.clip is not None and not _positive(self.clip)):
            raise ValueError(f"{self}: eg_lr and clip must be positive and finite; give clip=None for no clipping")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser of these parameters."""
        return _ExponentiatedGradientOptimizer(parameters, self.eg_lr)


class _ExponentiatedGradientOptimizer(Optimizer):
    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    # in logarithms, so that no power overflows; a weight of zero, a closed choice, stays zero
                    parameter.copy_((parameter.log() - group["lr"] * parameter.grad).softmax(dim=-1))


ThetaRecipe = AdamTheta | ExponentiatedGradient
"""The recipe of an optimiser of the architecture parameters."""
