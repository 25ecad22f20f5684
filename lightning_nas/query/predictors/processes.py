"""Gaussian processes of gpytorch whose correlation is one of ours; in a module of its own as gpytorch is an extra."""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.constraints import Interval
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.models import ExactGP
from gpytorch.priors import LogNormalPrior
from gpytorch.settings import fast_computations
from torch import Tensor

from lightning_nas.query.predictors.correlation import Correlation

__all__ = ["Compared", "Process", "known_matrix", "learn"]


def known_matrix(correlation: Correlation, compared: tuple[Tensor, ...], parameters: Tensor) -> Tensor:
    """Correlations ``(variants, n, n)`` of architectures with themselves, made positive semi-definite if need be.

    For a correlation that does not promise it, the diagonal is raised by the least eigenvalue where that is negative.

    Args:
        correlation: The correlation.
        compared: What its `compare` gave.
        parameters: ``(variants, q)`` positive numbers.
    """
    matrix = correlation.matrix(compared, parameters)
    if correlation.positive:
        return matrix
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    if not bool(torch.linalg.cholesky_ex(matrix.detach() + 1e-8 * eye).info.any()):
        return matrix
    lack: Tensor = -torch.linalg.eigvalsh(matrix.detach())[..., 0]
    return matrix + lack.clamp_min(0)[:, None, None] * eye


class Compared(Kernel):  # type: ignore[misc]
    """A correlation as a kernel of gpytorch, at the labelled architectures alone.

    Args:
        correlation: The correlation.
        compared: What its `compare` gave for the labelled architectures.
    """

    raw_parameters: Tensor

    def __init__(self, correlation: Correlation, compared: tuple[Tensor, ...]) -> None:
        super().__init__(batch_shape=torch.Size([correlation.variants]))
        self.correlation, self.compared = correlation, compared
        start = correlation.start(compared).log().repeat(correlation.variants, 1)
        self.register_parameter("raw_parameters", torch.nn.Parameter(start))
        prior = correlation.prior(compared)
        if prior is not None:
            self.register_prior("prior", LogNormalPrior(*prior), lambda kernel: kernel.parameters_now)

    @property
    def parameters_now(self) -> Tensor:
        """The correlation's parameters ``(variants, q)``."""
        return self.raw_parameters.exp()

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        """The matrix ``(variants, n, n)`` of the labelled architectures, or its diagonal; arguments do not matter."""
        matrix = known_matrix(self.correlation, self.compared, self.parameters_now)
        return matrix.diagonal(dim1=-2, dim2=-1) if diag else matrix


class Process(ExactGP):  # type: ignore[misc]
    """As many exact processes with mean zero as a correlation has variants.

    Args:
        kernel: The correlation at the labelled architectures.
        y: Standardised scores ``(n,)``.
        noise: Bounds of the variance of their noise; equal ones fix it.
        scale: Whether the variance of the process is learned; else it is 1.
    """

    def __init__(self, kernel: Compared, y: Tensor, noise: tuple[float, float], scale: bool) -> None:
        low, high = noise
        shape = kernel.batch_shape
        bounds = Interval(low * (1 - 1e-6), high * (1 + 1e-6))
        likelihood = GaussianLikelihood(batch_shape=shape, noise_constraint=bounds).double()
        likelihood.noise = torch.full((*shape, 1), (low * high) ** 0.5, dtype=torch.float64)
        likelihood.noise_covar.raw_noise.requires_grad_(low < high)
        rows = torch.arange(len(y), dtype=torch.float64).reshape(1, -1, 1).repeat(*shape, 1, 1)
        super().__init__(rows, y.expand(*shape, -1), likelihood)
        self.mean, self.covariance = ZeroMean(batch_shape=shape), ScaleKernel(kernel, batch_shape=shape).double()
        self.covariance.outputscale = 1.0
        self.covariance.raw_outputscale.requires_grad_(scale)

    def forward(self, x: Tensor) -> Any:
        """The prior at the labelled architectures."""
        return MultivariateNormal(self.mean(x), self.covariance(x))


def learn(process: Process, steps: int, lr: float) -> Tensor:
    """Maximise the marginal likelihood, times the prior of the parameters, by Adam.

    Args:
        process: The process.
        steps: Steps of Adam.
        lr: Its learning rate, on logarithms of the correlation's parameters.

    Returns:
        The logarithm of each variant's marginal likelihood after the last step, ``(variants,)``.
    """
    process.train()
    learned = [parameter for parameter in process.parameters() if parameter.requires_grad and parameter.numel()]
    optimizer = torch.optim.Adam(learned or [torch.zeros(1)], lr=lr)
    likelihood = ExactMarginalLogLikelihood(process.likelihood, process)
    exact = fast_computations(covar_root_decomposition=False, log_prob=False, solves=False)
    with exact, torch.enable_grad():
        for _ in range(steps if learned else 0):
            optimizer.zero_grad()
            (-likelihood(process(*process.train_inputs), process.train_targets).sum()).backward()
            optimizer.step()
    with exact, torch.no_grad():
        labels = process.likelihood(process(*process.train_inputs))
        return torch.as_tensor(labels.log_prob(process.train_targets))
