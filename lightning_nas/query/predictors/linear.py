"""Bayesian linear regression, with the noise and the prior that make the data most likely."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

__all__ = ["BayesianLinear", "log_evidence", "most_likely", "posterior"]


class BayesianLinear(NamedTuple):
    r"""The posterior of the weights of a linear model: normal, with mean :math:`m` and precision :math:`A`.

    Args:
        mean: ``(d,)``.
        root: Lower Cholesky factor of the precision, ``(d, d)``.
        beta: Precision of the noise.

    Example:
        >>> model = posterior(torch.eye(2), torch.tensor([1.0, 2.0]), alpha=1.0, beta=1.0)
        >>> [round(said.item(), 6) for said in model.predict(torch.tensor([[2.0, 0.0]]))]
        [1.0, 1.732051]
    """

    mean: Tensor
    root: Tensor
    beta: float

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        r"""Mean and standard deviation of new targets, noise included: :math:`1/\beta + \theta^T A^{-1} \theta`.

        Args:
            features: ``(n, d)``.

        Returns:
            Mean and standard deviation (the root of that variance), each ``(n,)``.
        """
        features = features.double()
        spread = torch.linalg.solve_triangular(self.root, features.T, upper=False)
        return features @ self.mean, (1 / self.beta + spread.square().sum(dim=0)).sqrt()

    def draw(self, features: Tensor, rng: torch.Generator) -> Tensor:
        """The targets without noise, by one draw of the weights: ``(n,)``.

        Args:
            features: ``(n, d)``.
            rng: Source of randomness.
        """
        noise = torch.randn(len(self.mean), 1, generator=rng, dtype=torch.float64)
        weights = self.mean + torch.linalg.solve_triangular(self.root.T, noise, upper=True).squeeze(1)
        targets: Tensor = features.double() @ weights
        return targets


def posterior(features: Tensor, y: Tensor, alpha: float, beta: float) -> BayesianLinear:
    r"""The weights given the data: :math:`A = \alpha I + \beta \Theta^T \Theta`, :math:`m = \beta A^{-1} \Theta^T y`.

    Reference: Bishop, "Pattern Recognition and Machine Learning", section 3.3, 2006.

    Args:
        features: ``(n, d)``.
        y: Targets ``(n,)``.
        alpha: Precision of the weights' prior.
        beta: Precision of the noise.

    Raises:
        ValueError: If a precision is not positive.

    Example:
        >>> posterior(torch.eye(2), torch.tensor([1.0, 2.0]), alpha=1.0, beta=1.0).mean.float().tolist()
        [0.5, 1.0]
    """
    if alpha <= 0 or beta <= 0:
        raise ValueError(f"alpha={alpha}, beta={beta}: precisions are positive")
    theta, target = features.double(), y.double()
    precision = alpha * torch.eye(theta.shape[1], dtype=torch.float64) + beta * theta.T @ theta
    root = torch.linalg.cholesky(precision)
    mean = beta * torch.cholesky_solve((theta.T @ target)[:, None], root).squeeze(1)
    return BayesianLinear(mean, root, beta)


def log_evidence(features: Tensor, y: Tensor, alpha: float, beta: float) -> float:
    r"""How likely the data are, in logarithm, with the weights integrated out.

    :math:`\frac d2 \ln\alpha + \frac n2 \ln\frac{\beta}{2\pi} - \frac\beta2 \|y - \Theta m\|^2
    - \frac\alpha2 m^T m - \frac12 \ln|A|`, the residual norm squared.

    Args:
        features: ``(n, d)``.
        y: Targets ``(n,)``.
        alpha: Precision of the weights' prior.
        beta: Precision of the noise.

    Raises:
        ValueError: If a precision is not positive.

    Example:
        >>> round(log_evidence(torch.ones(1, 1), torch.zeros(1), 1.0, 1.0), 6)  # a normal of variance 2
        -1.265512
    """
    model = posterior(features, y, alpha, beta)
    n, d = features.shape
    residual = (y.double() - features.double() @ model.mean).square().sum()
    value = d * math.log(alpha) + n * math.log(beta / (2 * math.pi)) - beta * residual
    value = value - alpha * model.mean.square().sum() - 2 * model.root.diagonal().log().sum()
    return float(value / 2)


def most_likely(features: Tensor, y: Tensor) -> tuple[float, float]:
    r"""The precisions of prior and noise that make the data most likely.

    The targets are normal with covariance :math:`(\Theta\Theta^T + r I) / \alpha`, :math:`r = \alpha / \beta`. Given
    `r` the best :math:`\alpha` is known, so only `r` is searched for: on a grid first, so that no local maximum is
    taken for the best, from 1e-6 to 1e4 times the mean square length of a row of features.

    Args:
        features: ``(n, d)``.
        y: Targets ``(n,)``, of mean zero.

    Returns:
        `alpha` and `beta`.

    Raises:
        ValueError: If there are no targets.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 3, generator=rng)
        >>> y = x @ torch.tensor([1.0, -2.0, 3.0]) + 0.1 * torch.randn(500, generator=rng)
        >>> round(most_likely(x, y)[1] ** -0.5, 2)  # the noise
        0.1
    """
    if not len(y):
        raise ValueError("no targets to learn from; give at least one")
    theta = features.double()
    values, vectors = torch.linalg.eigh(theta @ theta.T)
    spectrum = values.clamp_min(0).numpy()
    energy = (vectors.T @ y.double()).square().numpy()
    length = float(spectrum.mean()) or 1.0

    def prior_variance(log_ratio: float) -> float:
        return max(float(np.mean(energy / (spectrum + math.exp(log_ratio)))), 1e-12)

    def cost(log_ratio: float) -> float:
        return float(np.mean(np.log(spectrum + math.exp(log_ratio)))) + math.log(prior_variance(log_ratio))

    grid = np.linspace(math.log(1e-6 * length), math.log(1e4 * length), 70)
    lowest = int(np.argmin([cost(point) for point in grid]))
    around = (grid[max(0, lowest - 1)], grid[min(len(grid) - 1, lowest + 1)])
    log_ratio = float(minimize_scalar(cost, bounds=around, method="bounded", options={"xatol": 1e-6}).x)
    alpha = 1 / prior_variance(log_ratio)
    return alpha, alpha / math.exp(log_ratio)
