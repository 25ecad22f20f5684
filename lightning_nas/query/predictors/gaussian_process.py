"""Gaussian processes as predictors."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Self

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, learned
from lightning_nas.query.predictors.correlation import Correlation, Matern

__all__ = ["GaussianProcess", "Target"]

Target = Literal["score", "log_error"]
"""What a process learns: scores, or ``-log(100 - score)`` of scores in percent."""

_LEAST_ERROR = 1e-3  # percent; the logarithm of none is infinite
_LEAST_NOISE = 1e-8


class GaussianProcess(Predictor):
    r"""An exact Gaussian process, in double precision, whose parameters maximise the marginal likelihood.

    At each fit the targets are standardised; the correlation's parameters, the variance of the process and that of the
    noise start anew and take some steps of Adam up the marginal likelihood. Of a correlation with variants the most
    likely is taken. With correlations `K` of the `n` labelled architectures, :math:`k_*` with others, and noise
    :math:`\sigma^2`, all times the variance of the process,

    .. math:: \mu = k_*^T (K + \sigma^2 I)^{-1} y, \qquad s^2 = k_{**} - k_*^T (K + \sigma^2 I)^{-1} k_*.

    With ``target="log_error"`` the process is one of :math:`z = -\log(100 - y)`, which resolves differences among good
    architectures where those of the bad would drown them. Predictions are on the scale of scores nevertheless, so they
    compare with the best score: `mean` is the median :math:`100 - e^{-\mu}`, `std` is that of the linearised map,
    :math:`e^{-\mu} s`, and joint draws are mapped one by one. Then
    :math:`(mean - y^+) / std = (e^{\mu - z^+} - 1) / s`, which near the best is what it is on the scale of `z`.

    Reference: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006; Gardner et al., "GPyTorch",
    NeurIPS 2018.

    Args:
        correlation: What makes architectures alike; `Matern` with a lengthscale for each feature by default.
        steps: Steps of Adam.
        lr: Its learning rate.
        noise: Bounds of the noise's variance, in units of the targets' variance; equal ones fix it.
        scale: Whether the variance of the process is learned; else it is that of the targets.
        target: What is learned.

    Raises:
        ValueError: If a number is out of range, or the target is unknown.
        ModuleNotFoundError: If gpytorch is not installed.

    Example:
        >>> x = torch.linspace(0, 1, 8).reshape(-1, 1)
        >>> process = GaussianProcess(noise=(1e-4, 1e-4)).fit(x, torch.sin(6 * x[:, 0]))
        >>> prediction = process.predict(torch.tensor([[0.5], [5.0]]))
        >>> abs(prediction.mean[0].item() - 0.141) < 0.02, bool(prediction.std[0] < 0.1 < prediction.std[1])
        (True, True)
    """

    def __init__(
        self,
        correlation: Correlation | None = None,
        steps: int = 60,
        lr: float = 0.1,
        noise: tuple[float, float] = (1e-4, 0.2),
        scale: bool = True,
        target: Target = "score",
    ) -> None:
        if steps < 0 or lr <= 0 or not _LEAST_NOISE <= noise[0] <= noise[1]:
            raise ValueError(
                f"steps={steps}, lr={lr}, noise={noise}: give positive numbers, and bounds from {_LEAST_NOISE} upwards"
            )
        if target not in ("score", "log_error"):
            raise ValueError(f"target={target!r}: a process learns 'score' or 'log_error'")
        if find_spec("gpytorch") is None:
            raise ModuleNotFoundError("GaussianProcess needs gpytorch: pip install 'lightning-nas[bo]'")
        self.correlation = Matern() if correlation is None else correlation
        self.takes = self.correlation.takes
        self.steps, self.lr, self.noise, self.scale, self.target = steps, lr, noise, scale, target
        self.posterior: Posterior | None = None

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Learn anew; nothing is random, so the seed does not matter."""
        from lightning_nas.query.predictors.processes import Compared, Process, known_matrix, learn

        scores = self._target(self.checked_scores(x, y).detach().double())
        scale = Scale.of(scores)
        compared = self.correlation.compare(x, x)
        kernel = Compared(self.correlation, compared)
        process = Process(kernel, scale.to(scores), self.noise, self.scale)
        evidence = learn(process, self.steps, self.lr)
        chosen = int(evidence.argmax())
        with torch.no_grad():
            parameters = kernel.parameters_now
            known = known_matrix(self.correlation, compared, parameters)[chosen]
            variance, noise = process.covariance.outputscale[chosen], process.likelihood.noise[chosen, 0]
            covariance = variance * known + noise * torch.eye(len(y), dtype=torch.float64)
            root = torch.linalg.cholesky(covariance)
            weights = torch.cholesky_solve(scale.to(scores)[:, None], root)[:, 0]
        self.posterior = Posterior(
            x, scale, parameters, chosen, float(variance), float(noise), root, weights, float(evidence[chosen])
        )
        return self

    def predict(self, x: Encoded) -> Prediction:
        """The process without noise: mean, deviation and joint draws, on the scale of scores."""
        known, x = learned(self.posterior), self.checked_rows(x)
        cross = self._covariance(x, known.x, known)
        rest = torch.linalg.solve_triangular(known.root, cross.T, upper=False)
        mean = known.scale.back(cross @ known.weights)
        std = known.scale.width * (known.variance - rest.square().sum(dim=0)).clamp_min(1e-12).sqrt()

        def joint(rng: torch.Generator) -> Tensor:
            root = _root(self._covariance(x, x, known) - rest.T @ rest)
            noise = torch.randn(len(mean), generator=rng, dtype=torch.float64)
            return self._score(mean + known.scale.width * (root @ noise))

        if self.target == "log_error":
            std = torch.exp(-mean) * std
        return Prediction(self._score(mean), std, joint)

    def _covariance(self, a: Encoded, b: Encoded, known: Posterior) -> Tensor:
        """Covariances ``(n, m)`` by the chosen variant."""
        matrix = self.correlation.matrix(self.correlation.compare(a, b), known.parameters)
        return known.variance * matrix[known.variant]

    def _target(self, y: Tensor) -> Tensor:
        """What is learned of scores.

        Raises:
            ValueError: If a score is more than 100 where errors are learned.
        """
        if self.target == "score":
            return y
        if bool((y > 100).any()):
            raise ValueError(f"a score of {float(y.max())}: target='log_error' needs percent; give target='score'")
        return -torch.log((100 - y).clamp_min(_LEAST_ERROR))

    def _score(self, z: Tensor) -> Tensor:
        """Scores from what is learned."""
        return z if self.target == "score" else 100 - torch.exp(-z)


@dataclass(frozen=True)
class Posterior:
    """What a process has learned, in units of standardised targets.

    Args:
        x: The labelled architectures.
        scale: The scale of the targets.
        parameters: The correlation's parameters ``(variants, q)``.
        variant: Number of the variant that was chosen.
        variance: Variance of the process.
        noise: Variance of the noise.
        root: Lower Cholesky factor ``(n, n)`` of the labels' covariance.
        weights: That covariance's inverse times the targets, ``(n,)``.
        evidence: Logarithm of the marginal likelihood of the standardised targets.
    """

    x: Encoded
    scale: Scale
    parameters: Tensor
    variant: int
    variance: float
    noise: float
    root: Tensor
    weights: Tensor
    evidence: float


def _root(covariance: Tensor) -> Tensor:
    """A square root of a covariance that rounding may have left slightly indefinite."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root
