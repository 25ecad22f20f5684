"""Bayesian linear regression against known answers and the direct normal density; DNGO on top of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from lightning_nas.query.predictors.dngo import DNGO
from lightning_nas.query.predictors.linear import log_evidence, most_likely, posterior

THETA = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
Y = torch.tensor([1.0, 2.0, 2.5])


def data(n: int, d: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng, dtype=torch.float64)
    weights = torch.randn(d, generator=rng, dtype=torch.float64)
    return x, x @ weights + noise * torch.randn(n, generator=rng, dtype=torch.float64)


def direct(x: torch.Tensor, y: torch.Tensor, alpha: float, beta: float) -> float:
    covariance = x.double() @ x.double().T / alpha + torch.eye(len(y), dtype=torch.float64) / beta
    return MultivariateNormal(torch.zeros(len(y), dtype=torch.float64), covariance).log_prob(y.double()).item()


def test_known_answer() -> None:
    model = posterior(THETA, Y, alpha=0.5, beta=10.0)
    assert model.mean.tolist() == pytest.approx([0.835284, 1.787666], abs=1e-6)
    mean, std = model.predict(torch.tensor([[1.0, -1.0]]))
    assert mean.item() == pytest.approx(0.835284 - 1.787666, abs=2e-6)
    assert std.item() == pytest.approx(math.sqrt(0.290476), abs=1e-6)
    assert log_evidence(THETA, Y, 0.5, 10.0) == pytest.approx(-4.290667, abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(3, 2), (4, 9), (30, 5)])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 10.0), (20.0, 0.1)])
def test_evidence_is_the_density_of_the_targets(n: int, d: int, alpha: float, beta: float) -> None:
    x, y = data(n, d, 0.3)
    assert log_evidence(x, y, alpha, beta) == pytest.approx(direct(x, y, alpha, beta), rel=1e-9)


def test_prediction_is_the_conditional_normal() -> None:
    x, y = data(12, 4, 0.3)
    alpha, beta, new = 0.7, 5.0, data(6, 4, 0.0, seed=1)[0]
    covariance = x @ x.T / alpha + torch.eye(12, dtype=torch.float64) / beta
    gain = torch.linalg.solve(covariance, x @ new.T / alpha).T
    variance = (new @ new.T / alpha - gain @ x @ new.T / alpha).diagonal() + 1 / beta
    mean, std = posterior(x, y, alpha, beta).predict(new)
    torch.testing.assert_close(mean, gain @ y)
    torch.testing.assert_close(std, variance.sqrt())


def test_draws_have_the_posterior_s_moments() -> None:
    x, y = data(8, 3, 0.5)
    model, rng = posterior(x, y, 1.0, 4.0), torch.Generator().manual_seed(0)
    draws = torch.stack([model.draw(torch.eye(3), rng) for _ in range(4000)])
    covariance = torch.linalg.inv(torch.eye(3, dtype=torch.float64) + 4 * x.T @ x)
    error = covariance.diagonal().sqrt() / math.sqrt(4000)
    assert bool(((draws.mean(dim=0) - model.mean).abs() < 5 * error).all())
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.2, atol=0.05 * float(covariance.diagonal().max()))


@pytest.mark.parametrize(("n", "d", "noise"), [(60, 5, 0.3), (20, 30, 8.0), (200, 3, 2.0)])
def test_the_most_likely_precisions_beat_all_others_and_are_a_fixed_point(n: int, d: int, noise: float) -> None:
    x, y = data(n, d, noise)
    alpha, beta = most_likely(x, y)
    best = log_evidence(x, y, alpha, beta)
    for a in (0.3, 0.97, 1.0, 1.03, 3.0):
        for b in (0.3, 0.97, 1.0, 1.03, 3.0):
            assert log_evidence(x, y, a * alpha, b * beta) <= best + 1e-9
    if d < n:  # the update after MacKay leaves them as they are
        mean = posterior(x, y, alpha, beta).mean
        spectrum = beta * torch.linalg.eigvalsh(x.T @ x)
        used = (spectrum / (alpha + spectrum)).sum()
        assert alpha == pytest.approx((used / mean.square().sum()).item(), rel=1e-3)
        assert beta == pytest.approx(((n - used) / (y - x @ mean).square().sum()).item(), rel=1e-3)


def test_degenerate_data_have_finite_precisions() -> None:
    for x, y in [(torch.zeros(3, 2), torch.ones(3)), (torch.ones(3, 2), torch.zeros(3)), (THETA[:1], Y[:1])]:
        assert all(math.isfinite(found) and found > 0 for found in most_likely(x, y))
        assert math.isfinite(log_evidence(x, y, *most_likely(x, y)))
    with pytest.raises(ValueError, match="at least one"):
        most_likely(torch.zeros(0, 2), torch.zeros(0))
    with pytest.raises(ValueError, match="positive"):
        posterior(THETA, Y, 0.0, 1.0)


def test_dngo_reports_deviations_on_the_scale_of_the_scores() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(60, 2, generator=rng) * 2 - 1
    y = 90 + x[:, 0].double() + 0.3 * torch.randn(60, generator=rng, dtype=torch.float64)
    small, large = (DNGO(width=16, passes=30).fit(x, scale * y, seed=1) for scale in (1.0, 10.0))
    new = torch.rand(200, 2, generator=rng) * 2 - 1
    a, b = small.predict(new), large.predict(new)
    torch.testing.assert_close(10 * a.mean, b.mean, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(10 * a.std, b.std, rtol=1e-3, atol=1e-3)  # a variance would grow a hundredfold
    assert 0.1 < float(a.std.median()) < 0.9
    assert a.joint is not None
    draws = torch.stack([a.joint(torch.Generator().manual_seed(seed)) for seed in range(300)])
    inside = (draws.mean(dim=0) - a.mean).abs() < 6 * a.std / math.sqrt(300)
    assert bool(inside.all())
    assert bool((draws.std(dim=0) < a.std).double().mean() > 0.95)  # a draw has no noise


def test_dngo_refuses_what_is_not_positive() -> None:
    with pytest.raises(ValueError, match="width=0"):
        DNGO(width=0)
