"""Exponentiated gradient against its closed form, and over closed choices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_nas.optimizers import ExponentiatedGradient


def test_a_step_is_the_softmax_of_the_logarithm_less_the_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(5, 4, generator=draw, dtype=torch.float64).softmax(-1)
    theta, gradient = nn.Parameter(start.clone()), torch.randn(5, 4, generator=draw, dtype=torch.float64)
    theta.grad = gradient
    ExponentiatedGradient(eg_lr=0.3).optimizer([theta]).step()
    multiplied = start * torch.exp(-0.3 * gradient)
    torch.testing.assert_close(theta.detach(), multiplied / multiplied.sum(-1, keepdim=True), rtol=1e-12, atol=1e-14)


def test_a_weight_of_zero_stays_zero_and_no_power_overflows() -> None:
    theta = nn.Parameter(torch.tensor([[0.5, 0.5, 0.0]]))
    theta.grad = torch.tensor([[1e4, -1e4, -1e4]])
    ExponentiatedGradient(eg_lr=10.0).optimizer([theta]).step()
    assert theta.tolist() == [[0.0, 1.0, 0.0]]


def test_it_minimises_a_linear_loss_over_the_simplex() -> None:
    theta, costs = nn.Parameter(torch.full((1, 3), 1 / 3)), torch.tensor([[0.3, 0.1, 0.2]])
    optimizer = ExponentiatedGradient(eg_lr=1.0).optimizer([theta])
    for _ in range(200):
        optimizer.zero_grad()
        (theta * costs).sum().backward()
        optimizer.step()
    assert theta[0, 1].item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("given", [{"eg_lr": 0.0}, {"eg_lr": float("nan")}, {"clip": -1.0}])
def test_bad_rates_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        ExponentiatedGradient(**given)
