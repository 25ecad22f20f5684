"""What every acquisition function promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lightning_nas.query.acquisition import (
    Acquisition,
    ExpectedImprovement,
    IndependentThompson,
    LogExpectedImprovement,
    Mean,
    ProbabilityOfImprovement,
    RandomAcquisition,
    Thompson,
    UpperConfidenceBound,
)
from lightning_nas.query.predictors import Prediction

ACQUISITIONS: dict[str, Callable[[], Acquisition]] = {
    "ExpectedImprovement": ExpectedImprovement,
    "LogExpectedImprovement": LogExpectedImprovement,
    "ProbabilityOfImprovement": ProbabilityOfImprovement,
    "UpperConfidenceBound": UpperConfidenceBound,
    "Thompson": Thompson,
    "IndependentThompson": IndependentThompson,
    "Mean": Mean,
    "RandomAcquisition": RandomAcquisition,
}
every = pytest.mark.parametrize("name", ACQUISITIONS)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every
@pytest.mark.parametrize("std", [0.0, 0.5])
def test_shape_and_determinism(name: str, std: float) -> None:
    prediction = Prediction(torch.linspace(-1, 1, 9), torch.full((9,), std))
    before = torch.random.get_rng_state()
    values = [ACQUISITIONS[name]()(prediction, 0.1, rng(seed)) for seed in (0, 0)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert values[0].shape == (9,)
    assert bool(torch.isfinite(values[0]).all())
    assert torch.equal(*values)


@pytest.mark.parametrize("name", sorted(set(ACQUISITIONS) - {"RandomAcquisition"}))  # which looks at nothing
def test_a_better_mean_is_never_worse(name: str) -> None:
    prediction = Prediction(torch.linspace(-5, 5, 11), torch.full((11,), 1e-3))
    values = ACQUISITIONS[name]()(prediction, 0.1, rng())
    assert bool((values.diff() >= 0).all())


@pytest.mark.parametrize("name", ["ExpectedImprovement", "LogExpectedImprovement", "UpperConfidenceBound"])
def test_more_doubt_is_worth_more(name: str) -> None:
    values = ACQUISITIONS[name]()(Prediction(torch.zeros(5), torch.linspace(0.1, 2, 5)), 0.5, rng())
    assert bool((values.diff() > 0).all())


def test_a_random_order_is_uniform() -> None:
    prediction = Prediction(torch.linspace(0, 1, 4), torch.zeros(4))
    generator = rng()
    first = torch.stack([RandomAcquisition()(prediction, 0.0, generator).argmax() for _ in range(4000)])
    assert first.bincount(minlength=4).float().div(4000).sub(0.25).abs().max() < 0.03


def test_a_member_is_drawn_as_a_whole() -> None:
    members = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def joint(generator: torch.Generator) -> torch.Tensor:
        return members[torch.randint(2, (), generator=generator)]

    prediction = Prediction(members.mean(dim=0), members.std(dim=0, correction=0), joint)
    drawn = {tuple(Thompson()(prediction, 0.0, rng(seed)).tolist()) for seed in range(20)}
    assert drawn == {(1.0, 2.0), (3.0, 4.0)}
