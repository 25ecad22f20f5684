"""Acquisitions against known answers, botorch and sampling."""

from typing import Any

import pytest
import torch
from botorch.acquisition import ExpectedImprovement as BotorchEI
from botorch.acquisition import LogExpectedImprovement as BotorchLogEI
from botorch.acquisition import ProbabilityOfImprovement as BotorchPI
from botorch.utils.testing import MockModel, MockPosterior

from lightning_nas.query.acquisition import (
    Acquisition,
    ExpectedImprovement,
    IndependentThompson,
    LogExpectedImprovement,
    ProbabilityOfImprovement,
    UpperConfidenceBound,
)
from lightning_nas.query.predictors.base import Prediction

pytestmark = pytest.mark.filterwarnings("ignore:.*has known numerical issues")


def rate(acquisition: Acquisition, mean: Any, std: Any, best: float = 0.0) -> torch.Tensor:
    prediction = Prediction(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(std, dtype=torch.float64))
    return acquisition(prediction, best, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mean", "std", "best", "ei", "pi"),
    [
        (0.0, 1.0, 0.0, 0.398942, 0.5),
        (1.0, 1.0, 0.0, 1.083315, 0.841345),
        (-1.0, 1.0, 0.0, 0.083315, 0.158655),
        (0.5, 2.0, 1.0, 0.572689, 0.401294),
        (93.5, 0.4, 94.0, 0.020235, 0.105650),
    ],
)
def test_known_answers_and_sampling(mean: Any, std: Any, best: float, ei: float, pi: float) -> None:
    assert rate(ExpectedImprovement(), [mean], [std], best).item() == pytest.approx(ei, abs=1e-6)
    assert rate(ProbabilityOfImprovement(), [mean], [std], best).item() == pytest.approx(pi, abs=1e-6)
    rng = torch.Generator().manual_seed(0)
    draws = mean + std * torch.randn(1_000_000, generator=rng, dtype=torch.float64)
    assert (draws - best).clamp_min(0).mean().item() == pytest.approx(ei, abs=2e-3 * std)
    assert (draws > best).double().mean().item() == pytest.approx(pi, abs=2e-3)


def test_as_in_botorch() -> None:
    mean, std = torch.meshgrid(
        torch.linspace(-3, 3, 13, dtype=torch.float64), torch.linspace(0.1, 2, 9, dtype=torch.float64), indexing="ij"
    )
    mean, std = mean.flatten(), std.flatten()
    model = MockModel(MockPosterior(mean=mean[:, None, None], variance=std.square()[:, None, None]))
    x = torch.zeros(len(mean), 1, 1, dtype=torch.float64)
    ours = rate(ExpectedImprovement(), mean, std, 0.7)
    torch.testing.assert_close(ours, BotorchEI(model, best_f=0.7)(x), rtol=1e-6, atol=1e-9)
    near = ours > 1e-8  # farther off the plain formula loses digits
    torch.testing.assert_close(ours[near].log(), BotorchLogEI(model, best_f=0.7)(x)[near], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rate(ProbabilityOfImprovement(), mean, std, 0.7), BotorchPI(model, best_f=0.7)(x))


def test_the_logarithm_is_that_of_expected_improvement_where_that_has_one() -> None:
    mean, std = torch.meshgrid(
        torch.linspace(-3, 3, 25, dtype=torch.float64), torch.linspace(0.1, 2, 9, dtype=torch.float64), indexing="ij"
    )
    plain = rate(ExpectedImprovement(0.1), mean.flatten(), std.flatten(), 0.7)
    near = plain > 1e-6  # farther off the plain formula loses digits
    assert near.sum() > 120
    ours = rate(LogExpectedImprovement(0.1), mean.flatten(), std.flatten(), 0.7)
    torch.testing.assert_close(ours[near], plain[near].log(), rtol=0, atol=1e-9)
    sure = rate(LogExpectedImprovement(), [0.5, 0.0, -0.1, -0.2], [0.0] * 4)
    assert sure[0].item() == pytest.approx(torch.tensor(0.5).log().item())
    assert bool((sure.diff() < 0).all())


def test_the_logarithm_keeps_an_order_that_expected_improvement_loses() -> None:
    mean = -torch.logspace(-1, 7, 300, dtype=torch.float64)  # up to ten million deviations below the best
    model = MockModel(MockPosterior(mean=mean[:, None, None], variance=torch.ones(300, 1, 1, dtype=torch.float64)))
    expected = BotorchLogEI(model, best_f=0.0)(torch.zeros(300, 1, 1, dtype=torch.float64))
    ours = rate(LogExpectedImprovement(), mean, torch.ones(300))
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-7)
    assert bool((ours.diff() < 0).all())
    assert bool((rate(ExpectedImprovement(), mean[mean < -40], torch.ones(300)[mean < -40]) == 0).all())


@pytest.mark.parametrize("acquisition", [ExpectedImprovement(), ProbabilityOfImprovement(), UpperConfidenceBound()])
def test_grows_with_the_mean(acquisition: Acquisition) -> None:
    rated = rate(acquisition, torch.linspace(-3, 3, 50), torch.ones(50))
    assert (rated.diff() > 0).all()


def test_expected_improvement_grows_with_the_deviation_and_is_no_less_than_that_of_the_mean() -> None:
    for mean in (-1.0, 0.0, 1.0):
        rated = rate(ExpectedImprovement(), torch.full((40,), mean), torch.linspace(0, 4, 40))
        assert rated[0].item() == max(mean, 0.0)
        assert (rated.diff() >= 0).all()
        assert rated[-1] > rated[0]
        assert (rated >= max(mean, 0.0)).all()


def test_probability_of_improvement_moves_to_one_half_with_the_deviation() -> None:
    wide = torch.linspace(0.1, 4, 40)
    assert (rate(ProbabilityOfImprovement(), torch.full((40,), -1.0), wide).diff() > 0).all()
    assert (rate(ProbabilityOfImprovement(), torch.full((40,), 1.0), wide).diff() < 0).all()


def test_what_does_not_count_is_taken_off_the_mean() -> None:
    for acquisition in (ExpectedImprovement, ProbabilityOfImprovement):
        assert rate(acquisition(xi=0.3), [1.0], [0.5]).item() == pytest.approx(rate(acquisition(), [0.7], [0.5]).item())


def test_independent_draws_have_the_predicted_moments() -> None:
    mean = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    std = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    draws = torch.stack([IndependentThompson()(Prediction(mean, std), 0.0, rng) for _ in range(20_000)])
    torch.testing.assert_close(draws.mean(dim=0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(draws.std(dim=0), std, rtol=0.02, atol=1e-12)
    assert torch.corrcoef(draws[:, [0, 2]].T)[0, 1].abs() < 0.03
