"""What makes architectures alike, for Gaussian processes: correlations with parameters that are learned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import KINDS, Encoded, Kind
from lightning_nas.query.predictors.base import features

__all__ = ["Correlation", "Matern"]


class Correlation(ABC):
    """A correlation of encoded architectures: 1 for equal ones, and the less, the less they have in common.

    The work is in two parts, as parameters are learned in many small steps: `compare` does whatever does not depend on
    them, once; `matrix` the rest.

    Attributes:
        takes: What is compared, see `Predictor.takes`.
        variants: Number of correlations of the kind among which the most likely is chosen.
        positive: Whether each matrix of correlations is positive semi-definite whatever the architectures.
    """

    takes: tuple[Kind, ...] = KINDS
    variants: int = 1
    positive: bool = True

    @abstractmethod
    def compare(self, a: Encoded, b: Encoded) -> tuple[Tensor, ...]:
        """Whatever is to be known of the pairs of `n` and `m` architectures.

        Raises:
            ValueError: If they are encoded as this correlation cannot use.
        """

    @abstractmethod
    def matrix(self, compared: tuple[Tensor, ...], parameters: Tensor) -> Tensor:
        """The correlations, ``(variants, n, m)``, differentiable in the parameters.

        Args:
            compared: What `compare` gave.
            parameters: ``(variants, q)`` positive numbers.
        """

    def start(self, compared: tuple[Tensor, ...]) -> Tensor:
        """Where learning begins, ``(q,)`` positive numbers; without parameters none.

        Args:
            compared: What `compare` gave for the labelled architectures with themselves.
        """
        return torch.zeros(0, dtype=torch.float64)

    def prior(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, float] | None:
        """Mean ``(q,)`` and deviation of the parameters' logarithms before anything is learned; ``None``: all alike."""
        return None


class Matern(Correlation):
    r"""The Matern correlation of features with smoothness 5/2, and a lengthscale for each feature.

    With :math:`r^2 = \sum_k (a_k - b_k)^2 / \ell_k^2` it is :math:`(1 + \sqrt5 r + \frac53 r^2) e^{-\sqrt5 r}`.
    Encodings have about as many features as there are labels. So lengthscales have a log-normal prior that grows with
    the square root of the number of features `d`: :math:`\log\ell \sim N(\sqrt2 + \frac12\log d, 3)`; learning starts
    where its density is greatest.

    Reference: Snoek, Larochelle and Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS
    2012; Hvarfner, Hellsten and Nardi, "Vanilla Bayesian Optimization Performs Great in High Dimensions", ICML 2024.

    Example:
        >>> compared = Matern().compare(torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        >>> Matern().matrix(compared, torch.full((1, 2), 5.0)).round(decimals=4)
        tensor([[[1.0000, 0.5240]]], dtype=torch.float64)
    """

    takes = ("features",)

    def compare(self, a: Encoded, b: Encoded) -> tuple[Tensor, ...]:
        """The features themselves, in double precision."""
        return features(a, self).double(), features(b, self).double()

    def matrix(self, compared: tuple[Tensor, ...], parameters: Tensor) -> Tensor:
        """The correlations ``(1, n, m)``; the parameters are the lengthscales ``(1, d)``."""
        a, b = compared
        distance = math.sqrt(5) * torch.cdist(
            a / parameters[:, None], b / parameters[:, None], compute_mode="donot_use_mm_for_euclid_dist"
        )
        return (1 + distance + distance.square() / 3) * torch.exp(-distance)

    def start(self, compared: tuple[Tensor, ...]) -> Tensor:
        """The lengthscales of greatest density, ``(d,)``."""
        mean, deviation = self.prior(compared)
        return torch.exp(mean - deviation**2)

    def prior(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, float]:
        """Mean ``(d,)`` and deviation of the lengthscales' logarithms."""
        d = compared[0].shape[1]
        return torch.full((d,), math.sqrt(2) + math.log(max(d, 1)) / 2, dtype=torch.float64), math.sqrt(3)
