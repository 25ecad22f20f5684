"""The Gumbel-softmax: frequencies, the gradient straight through, and the Concrete density."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor
from torch.distributions import RelaxedOneHotCategorical
from toys import one_line

from lightning_nas.arch import Decision, Decisions
from lightning_nas.relaxations import Gumbel, concrete_log_prob

ALPHA = torch.tensor([0.3, -1.0, 0.8, 0.0])
WIDE: Decisions = {"g": tuple(Decision(str(row), tuple("abcd")) for row in range(20000))}
EDGE: Decisions = {"g": (Decision("edge", tuple("abcd")),)}
C = torch.tensor([1.5, -0.7, 0.2, 2.0], dtype=torch.float64)


def made(decisions: Decisions, **settings: float) -> Gumbel:
    relaxation = Gumbel(decisions, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        relaxation.theta["g"].copy_(ALPHA.expand_as(relaxation.theta["g"]))
    return relaxation.double()


def noise(relaxation: Gumbel) -> Tensor:
    """The Gumbel noise of the next draw, by its definition."""
    state = relaxation.generator.get_state()
    again = torch.Generator().manual_seed(0)
    again.set_state(state)
    return -torch.empty(relaxation.theta["g"].shape, dtype=torch.float64).exponential_(generator=again).log()


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("hard", [False, True])
def test_the_largest_entry_is_drawn_from_the_softmax(tau: float, hard: bool) -> None:
    with torch.no_grad():
        drawn = made(WIDE, tau=tau, hard=hard)().weights["g"].argmax(-1)
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    torch.testing.assert_close(share, ALPHA.softmax(0), rtol=0, atol=4 * 0.5 / len(drawn) ** 0.5)


def test_the_draw_is_the_softmax_of_noisy_logarithms() -> None:
    relaxation = made(EDGE, tau=0.5)
    want = ((ALPHA.double().log_softmax(0) + noise(relaxation)) / 0.5).softmax(-1)
    torch.testing.assert_close(relaxation().weights["g"], want)


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
def test_the_gradient_straight_through_of_a_linear_loss(tau: float) -> None:
    """From all weights: ``z (c - <z, c>) / tau``; from that of the active choice alone, ``c`` is zero else."""
    relaxation = made(EDGE, tau=tau, hard=True)
    z = ((ALPHA.double().log_softmax(0) + noise(relaxation)) / tau).softmax(-1).squeeze(0)
    sample = relaxation()
    assert sample.active is not None
    ((s,),) = sample.active["g"]
    assert s == int(z.argmax())
    weights = sample.weights["g"].squeeze(0)
    theta = relaxation.theta["g"]
    (dense,) = torch.autograd.grad((C * weights).sum(), theta, retain_graph=True)
    torch.testing.assert_close(dense[0], z * (C - (z * C).sum()) / tau)
    (single,) = torch.autograd.grad(C[s] * weights[s], theta)
    torch.testing.assert_close(single[0], C[s] * z[s] * (torch.eye(4, dtype=torch.float64)[s] - z) / tau)


def test_a_hard_draw_does_not_depend_on_the_temperature() -> None:
    hot, cold = made(EDGE, tau=10.0, hard=True), made(EDGE, tau=0.1, hard=True)
    for _ in range(20):
        one, other = hot(), cold()
        assert one.active == other.active
        assert torch.equal(one.weights["g"], other.weights["g"])


def test_a_lower_temperature_sharpens_a_soft_draw() -> None:
    relaxation = made(WIDE, tau=5.0)
    tops = []
    for tau in (5.0, 1.0, 0.1):
        relaxation.tau = tau
        tops.append(relaxation().weights["g"].amax(-1).mean().item())
    assert tops == sorted(tops)
    assert tops[-1] > 0.9


@pytest.mark.parametrize("tau", [0.4, 2.0])
def test_the_density_is_that_of_torch(tau: float) -> None:
    relaxation = made(EDGE, tau=tau)
    sample = relaxation()
    reference = RelaxedOneHotCategorical(torch.tensor(tau, dtype=torch.float64), logits=relaxation.theta["g"])
    want = reference.log_prob(sample.weights["g"].detach()).sum()
    assert sample.log_prob is not None
    torch.testing.assert_close(sample.log_prob, want)
    gradients = [torch.autograd.grad(value, relaxation.theta["g"])[0] for value in (sample.log_prob, want)]
    torch.testing.assert_close(*gradients)


def test_the_density_integrates_to_one_over_what_is_open() -> None:
    steps = 400
    x, y = torch.meshgrid(*[(torch.arange(steps, dtype=torch.float64) + 0.5) / steps] * 2, indexing="ij")
    inside = x + y < 1 - 0.5 / steps
    x, y = x[inside], y[inside]
    points = torch.stack([x, torch.full_like(x, 0.9), y, 1 - x - y], -1)  # the second choice is closed
    mask = torch.tensor([True, False, True, True]).expand_as(points)
    density = concrete_log_prob(ALPHA.double().expand_as(points), points.log(), mask, 1.0).exp()
    assert density.sum().item() / steps**2 == pytest.approx(1, abs=0.01)


def test_a_hard_draw_has_the_log_probability_of_its_choice() -> None:
    relaxation = made(EDGE, hard=True)
    sample = relaxation()
    assert sample.active is not None
    assert sample.log_prob is not None
    torch.testing.assert_close(sample.log_prob, ALPHA.double().log_softmax(0)[sample.active["g"][0][0]])


def test_the_temperature_travels_in_the_state() -> None:
    relaxation, again = Gumbel(EDGE, tau=3.0), Gumbel(EDGE, seed=1)
    relaxation.tau = 0.1 + 0.2  # not a number of single precision
    file = io.BytesIO()
    torch.save(relaxation.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.tau == 0.1 + 0.2
    assert isinstance(again.tau, float)
    assert torch.equal(relaxation().weights["g"], again().weights["g"])


def test_theta_starts_where_it_is_told() -> None:
    theta = Gumbel(WIDE, init_mean=1.0, init_std=0.01).theta["g"]
    assert theta.mean().item() == pytest.approx(1, abs=1e-3)
    assert theta.std().item() == pytest.approx(0.01, rel=0.05)


def test_facts_follow_the_form() -> None:
    soft, hard = Gumbel(EDGE), Gumbel(EDGE, hard=True)
    assert (soft.needs_unused_parameters, hard.needs_unused_parameters) == (False, True)
    assert (soft.discrete, hard.discrete) == (False, True)


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_must_be_positive(tau: float) -> None:
    with pytest.raises(ValueError) as caught:
        Gumbel(EDGE, tau=tau)
    one_line(caught.value, f"tau={tau}", "positive", "10 to 0.03")
