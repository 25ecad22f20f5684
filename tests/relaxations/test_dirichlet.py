"""The Dirichlet draw: its distribution, and its pathwise derivative against closed forms and scipy."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Dirichlet as Reference

from lightning_nas.arch import Decision, Decisions
from lightning_nas.relaxations import Dirichlet, sample_dirichlet

BETA = torch.tensor([0.6, 1.4, 2.5], dtype=torch.float64)
EDGE: Decisions = {"g": (Decision("edge", ("a", "b", "c")),)}


def draws(beta: Tensor, mask: Tensor, count: int, seed: int = 0) -> Tensor:
    rows = beta.expand(count, -1)
    return sample_dirichlet(rows, mask.expand(count, -1), torch.Generator().manual_seed(seed))


def test_the_pathwise_gradient_of_a_quadratic_is_the_analytic_one() -> None:
    """``E (c x)^2 = (c m)^2 + c C c`` with the mean `m` and covariance `C` of the distribution."""
    c, beta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), BETA.clone().requires_grad_()
    total = beta.sum()
    m = beta / total
    covariance = (torch.diag(m) - torch.outer(m, m)) / (total + 1)
    (want,) = torch.autograd.grad((c @ m) ** 2 + c @ covariance @ c, beta)
    rows = BETA.expand(60000, -1).clone().requires_grad_()
    points = sample_dirichlet(rows, torch.ones_like(rows, dtype=torch.bool), torch.Generator().manual_seed(0))
    (each,) = torch.autograd.grad((points @ c).square().sum(), rows)
    error = 4 * each.std(0) / len(each) ** 0.5
    assert bool((error < 0.05).all())
    assert bool(((each.mean(0) - want).abs() < error).all())


def test_the_derivative_is_that_of_the_beta_distribution_function() -> None:
    """``dx_i/db_j = -(dF(x_j)/db_j) / f(x_j) (delta_ij - x_i) / (1 - x_j)``, the first shape alone moving."""
    x = draws(BETA, torch.ones(3, dtype=torch.bool), 4)
    total, h = BETA.sum().item(), 1e-5
    for row, point in enumerate(x):
        rows = BETA.expand(4, -1).clone().requires_grad_()
        again = sample_dirichlet(rows, torch.ones(4, 3, dtype=torch.bool), torch.Generator().manual_seed(0))
        assert torch.equal(again, x)
        got = torch.stack([torch.autograd.grad(again[row, i], rows, retain_graph=True)[0][row] for i in range(3)])
        for j, (b, at) in enumerate(zip(BETA.tolist(), point.tolist(), strict=True)):
            rise = (stats.beta.cdf(at, b + h, total - b) - stats.beta.cdf(at, b - h, total - b)) / (2 * h)
            slope = -rise / stats.beta.pdf(at, b, total - b)
            for i in range(3):
                want = slope * ((i == j) - point[i].item()) / (1 - at)
                assert got[i, j].item() == pytest.approx(want, rel=2e-3, abs=1e-5)


def test_marginals_are_beta_and_a_part_is_the_dirichlet_of_its_own() -> None:
    mask = torch.tensor([True, False, True])
    points = draws(BETA, mask, 4000)
    assert bool((points[:, 1] == 0).all())
    torch.testing.assert_close(points.sum(-1), torch.ones(4000, dtype=torch.float64))
    assert stats.kstest(points[:, 0].numpy(), stats.beta(0.6, 2.5).cdf).pvalue > 1e-3
    whole = draws(BETA, torch.ones(3, dtype=torch.bool), 4000, seed=1)
    part = whole[:, [0, 2]] / whole[:, [0, 2]].sum(-1, keepdim=True)
    assert stats.ks_2samp(points[:, 0].numpy(), part[:, 0].numpy()).pvalue > 1e-3
    torch.testing.assert_close(points.mean(0)[[0, 2]], BETA[[0, 2]] / 3.1, rtol=0, atol=0.02)


def test_the_gradient_over_what_is_open_is_that_of_the_smaller_vector() -> None:
    mask = torch.tensor([[True, False, True]])
    c, beta = torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64), BETA.clone().unsqueeze(0).requires_grad_()
    point = sample_dirichlet(beta, mask, torch.Generator().manual_seed(2))
    (got,) = torch.autograd.grad((c * point).sum(), beta)
    small = beta.detach()[:, [0, 2]].requires_grad_()
    replayed = _Replay.apply(small, point.detach()[:, [0, 2]])
    (want,) = torch.autograd.grad((c[[0, 2]] * replayed).sum(), small)
    torch.testing.assert_close(got[:, [0, 2]], want)
    assert got[0, 1] == 0


class _Replay(torch.autograd.Function):
    """Torch's own backward pass at a given point."""

    @staticmethod
    def forward(ctx: object, beta: Tensor, point: Tensor) -> Tensor:
        ctx.save_for_backward(point, beta)  # type: ignore[attr-defined]
        return point.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        from torch.distributions.dirichlet import _Dirichlet_backward

        point, beta = ctx.saved_tensors  # type: ignore[attr-defined]
        return _Dirichlet_backward(point, beta, grad), None  # type: ignore[no-untyped-call]


def test_concentrations_are_elu_plus_one_and_the_mean_is_theirs() -> None:
    relaxation = Dirichlet(EDGE)
    with torch.no_grad():
        relaxation.theta["g"].copy_(torch.tensor([[-1.0, 0.0, 2.0]]))
    beta = torch.tensor([[torch.tensor(-1.0).exp().item(), 1.0, 3.0]])
    torch.testing.assert_close(relaxation.concentration("g"), beta)
    torch.testing.assert_close(relaxation.mean()["g"], Reference(beta).mean)
    relaxation.support.drop("g", 0, 1)
    torch.testing.assert_close(relaxation.mean()["g"], beta * torch.tensor([1.0, 0, 1.0]) / (beta[0, 0] + 3))


@pytest.mark.parametrize("alpha", [-200.0, -8.0, 0.0, 50.0])
def test_extreme_concentrations_give_finite_draws_and_gradients(alpha: float) -> None:
    decisions: Decisions = {"g": tuple(Decision(str(row), tuple("abcde")) for row in range(400))}
    relaxation = Dirichlet(decisions)
    with torch.no_grad():
        relaxation.theta["g"][:, :3] = alpha
    sample = relaxation()
    (sample.weights["g"] * torch.randn(400, 5)).sum().backward()
    grad = relaxation.theta["g"].grad
    assert grad is not None
    assert relaxation.concentration("g").min().item() >= 0.00099
    assert bool(sample.weights["g"].isfinite().all())
    assert bool(grad.isfinite().all())


def test_a_draw_is_of_full_precision_under_autocast() -> None:
    relaxation = Dirichlet(EDGE, init_std=0.5)
    begun = relaxation.generator.get_state()
    plain = relaxation.redraw(begun).weights["g"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = relaxation.redraw(begun).weights["g"]
        mean = relaxation.mean()["g"]
    assert inside.dtype == mean.dtype == torch.float32
    assert torch.equal(plain, inside)
    assert relaxation.to(torch.bfloat16)().weights["g"].dtype == torch.float32
