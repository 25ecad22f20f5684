"""Acquisition functions: how worthwhile a trial of an architecture is, given what a predictor expects of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_nas.query.predictors.base import Prediction

__all__ = [
    "Acquisition",
    "ExpectedImprovement",
    "IndependentThompson",
    "LogExpectedImprovement",
    "Mean",
    "ProbabilityOfImprovement",
    "RandomAcquisition",
    "Thompson",
    "UpperConfidenceBound",
]


class Acquisition(ABC):
    """The larger, the sooner an architecture should be tried. Scores are maximised."""

    @abstractmethod
    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """Rate `n` architectures.

        Args:
            prediction: What the predictor says of them.
            best: The best score observed so far.
            rng: Source of randomness.

        Returns:
            Ratings ``(n,)``.
        """


class ExpectedImprovement(Acquisition):
    r"""By how much a score is expected to exceed the best: :math:`\sigma(\gamma\Phi(\gamma) + \phi(\gamma))`.

    With :math:`\gamma = (\mu - y^+ - \xi) / \sigma`; without uncertainty it is :math:`\max(\mu - y^+ - \xi, 0)`.

    The formula has its limits in double precision: of a mean more than 5 deviations below the best it loses digits, of
    8 it is too large, as :math:`\Phi` is taken for 0, and of more than 38 it is exactly 0, so that the order of such
    architectures is lost. `LogExpectedImprovement` keeps it.

    Reference: Jones, Schonlau and Welch, "Efficient Global Optimization of Expensive Black-Box Functions", Journal of
    Global Optimization 1998.

    Args:
        xi: Improvement that does not count.

    Example:
        >>> prediction = Prediction(torch.tensor([0.5]), torch.tensor([2.0]))
        >>> round(ExpectedImprovement()(prediction, 1.0, torch.Generator()).item(), 6)
        0.572689
    """

    def __init__(self, xi: float = 0.0) -> None:
        self.xi = xi

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """Expected improvement, ``(n,)``."""
        gain = prediction.mean.double() - best - self.xi
        std = prediction.std.double()
        gamma = gain / std.clamp_min(1e-300)
        density = torch.exp(-0.5 * gamma.square()) / math.sqrt(2 * math.pi)
        return torch.where(std > 0, std * (gamma * torch.special.ndtr(gamma) + density), gain.clamp_min(0))


class LogExpectedImprovement(ExpectedImprovement):
    """The logarithm of `ExpectedImprovement`, which has the same order and does not underflow.

    Reference: Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", NeurIPS 2023.

    Example:
        >>> prediction = Prediction(torch.tensor([-1.0]), torch.tensor([0.02]))
        >>> round(LogExpectedImprovement()(prediction, 0.0, torch.Generator()).item())
        -1263
    """

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """Logarithm of the expected improvement, ``(n,)``; finite without uncertainty too."""
        std = prediction.std.double().clamp_min(1e-100)
        gamma = (prediction.mean.double() - best - self.xi) / std
        near, far = gamma.clamp_min(-1), -gamma.clamp_max(-1)
        plain = near * torch.special.ndtr(near) + torch.exp(-0.5 * near.square()) / math.sqrt(2 * math.pi)
        share = 1 - far * math.sqrt(math.pi / 2) * torch.special.erfcx(far / math.sqrt(2))  # of the density
        log_share = torch.where(far < 1e4, share.clamp_min(1e-9).log(), -2 * far.log())
        tail = log_share - 0.5 * far.square() - 0.5 * math.log(2 * math.pi)
        return std.log() + torch.where(gamma > -1, plain.log(), tail)


class ProbabilityOfImprovement(Acquisition):
    r"""How likely a score exceeds the best: :math:`\Phi(\gamma)`, see `ExpectedImprovement`.

    Of a mean more than 8 deviations below the best it is exactly 0.

    Args:
        xi: Improvement that does not count.

    Example:
        >>> prediction = Prediction(torch.tensor([0.5]), torch.tensor([2.0]))
        >>> round(ProbabilityOfImprovement()(prediction, 1.0, torch.Generator()).item(), 6)
        0.401294
    """

    def __init__(self, xi: float = 0.0) -> None:
        self.xi = xi

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """Probability of improvement, ``(n,)``."""
        gain = prediction.mean.double() - best - self.xi
        std = prediction.std.double()
        return torch.where(std > 0, torch.special.ndtr(gain / std.clamp_min(1e-300)), (gain > 0).double())


class UpperConfidenceBound(Acquisition):
    r"""An optimistic guess: :math:`\mu + \beta\sigma`.

    Args:
        beta: How many deviations above the mean.

    Raises:
        ValueError: If `beta` is negative.

    Example:
        >>> UpperConfidenceBound(0.5)(Prediction(torch.tensor([1.0]), torch.tensor([2.0])), 0.0, torch.Generator())
        tensor([2.])
    """

    def __init__(self, beta: float = 0.5) -> None:
        if beta < 0:
            raise ValueError(f"beta={beta}: an optimistic guess needs at least 0")
        self.beta = beta

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """The bound, ``(n,)``."""
        return prediction.mean + self.beta * prediction.std


class Thompson(Acquisition):
    """Thompson sampling: one joint draw of all scores (one member of an ensemble, one draw of a process).

    Example:
        >>> sure = Prediction(torch.tensor([1.0, 2.0]), torch.zeros(2))
        >>> Thompson()(sure, 0.0, torch.Generator()).tolist()
        [1.0, 2.0]
    """

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """The draw, ``(n,)``."""
        return prediction.draw(rng)


class IndependentThompson(Acquisition):
    """Independent Thompson sampling: of each architecture a normal draw of its own.

    Reference: White, Neiswanger and Savani, "BANANAS", AAAI 2021.

    Example:
        >>> sure = Prediction(torch.tensor([1.0, 2.0]), torch.zeros(2))
        >>> IndependentThompson()(sure, 0.0, torch.Generator()).tolist()
        [1.0, 2.0]
    """

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """The draws, ``(n,)``."""
        noise = torch.randn(prediction.mean.shape, generator=rng, dtype=prediction.mean.dtype)
        return prediction.mean + prediction.std * noise


class Mean(Acquisition):
    """The predicted score itself: pure exploitation.

    Example:
        >>> Mean()(Prediction(torch.tensor([1.0]), torch.tensor([9.0])), 0.0, torch.Generator())
        tensor([1.])
    """

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """The mean, ``(n,)``."""
        return prediction.mean


class RandomAcquisition(Acquisition):
    """Whatever the predictor says, a random order: pure exploration, the control of all others.

    Example:
        >>> RandomAcquisition()(Prediction(torch.ones(3), torch.ones(3)), 0.0, torch.Generator()).shape
        torch.Size([3])
    """

    def __call__(self, prediction: Prediction, best: float, rng: torch.Generator) -> Tensor:
        """Random numbers, ``(n,)``."""
        return torch.rand(prediction.mean.shape, generator=rng)
