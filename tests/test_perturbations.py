"""Smoothing of the weight step against the published formula, a bisection, and a linear program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor
from toys import one_line

from lightning_nas.arch import Decision, Sample
from lightning_nas.perturbations import AdversarialSmoothing, RandomSmoothing, project, rescale
from lightning_nas.relaxations import Sigmoid, Softmax

ROWS = 6


def simplex(rows: int = ROWS, choices: int = 8, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(rows, choices, generator=draw, dtype=torch.float64)).softmax(-1)


def no_loss(sample: Sample) -> Tensor:
    raise AssertionError("random smoothing needs no loss")


def published_clip(moved: Tensor, p: Tensor) -> Tensor:
    """SDARTS' own procedure, row by row: clipped to [0, 1], divided by its sum; zeros become the old maximum."""
    rows = []
    for row, old in zip(moved, p, strict=True):
        clipped = torch.nn.functional.hardtanh(row, 0, 1)
        if clipped.sum() == 0:
            clipped = torch.zeros_like(row)
            clipped[old.argmax()] = 1.0
        rows.append(clipped / clipped.sum())
    return torch.stack(rows)


def bisected(v: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The projection of one row onto box and simplex by halving an interval."""
    left, right = float((v - high).min()), float((v - low).max())
    for _ in range(200):
        t = (left + right) / 2
        left, right = (t, right) if (v - t).clamp(low, high).sum() > 1 else (left, t)
    return (v - (left + right) / 2).clamp(low, high)


def test_rescaling_is_the_published_clip() -> None:
    p = simplex()
    moved = p + 0.3 * (2 * torch.rand(p.shape, dtype=torch.float64) - 1)
    moved[0] = -0.1  # nothing is left of this row
    torch.testing.assert_close(rescale(moved, p, p > 0), published_clip(moved, p), rtol=1e-12, atol=1e-12)
    assert rescale(moved, p, p > 0)[0].max() == 1.0


@pytest.mark.parametrize("eps", [1e-3, 0.1, 0.3, 1.0])
def test_the_exact_projection_equals_a_bisection(eps: float) -> None:
    p = simplex(rows=40)
    v = p + 2 * eps * (2 * torch.rand(p.shape, dtype=torch.float64) - 1)
    low, high = (p - eps).clamp(min=0), (p + eps).clamp(max=1)
    q = project(v, low, high, p.sum(-1, keepdim=True))
    expected = torch.stack([bisected(*row) for row in zip(v, low, high, strict=True)])
    torch.testing.assert_close(q, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(q.sum(-1), torch.ones(40, dtype=torch.float64), rtol=0, atol=1e-14)
    assert bool(((q >= low) & (q <= high)).all())


def test_the_exact_projection_is_the_nearest_point() -> None:
    """No other point of box and simplex is nearer than the one found."""
    p = simplex(rows=1)
    low, high = (p - 0.2).clamp(min=0), (p + 0.2).clamp(max=1)
    v = p + 0.5 * torch.randn(p.shape, dtype=torch.float64)
    q = project(v, low, high, torch.ones(1, 1, dtype=torch.float64))
    others = torch.distributions.Dirichlet(torch.ones(8, dtype=torch.float64)).sample((200_000,))
    others = p + 0.2 * (others - p)  # near enough to fall into the box
    others = others[((others >= low) & (others <= high)).all(-1)]
    assert len(others) > 1000
    assert (others - v).norm(dim=-1).min() >= (q - v).norm()


PROJECTIONS = pytest.mark.parametrize("projection", ["published", "exact"])


@PROJECTIONS
def test_noise_is_uniform_in_the_box_before_it_comes_back(projection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    smoothing, p = RandomSmoothing(0.2, projection), simplex(rows=2000)
    seen: list[Tensor] = []
    monkeypatch.setattr(smoothing, "_back", lambda moved, p, is_open: seen.append(moved - p) or moved)
    smoothing(Sample({"cell": p}), no_loss)
    (delta,) = seen
    assert delta.abs().max() <= 0.2
    assert delta.mean().abs() < 4 * 0.2 / (3 * delta.numel()) ** 0.5
    assert delta.square().mean().item() == pytest.approx(0.2**2 / 3, rel=0.05)


@PROJECTIONS
@pytest.mark.parametrize("make", [RandomSmoothing, AdversarialSmoothing])
def test_rows_stay_on_the_simplex_and_closed_choices_closed(make: Callable[..., Any], projection: Any) -> None:
    rows = (Decision("a", ("x", "y", "z", "u")), Decision("b", ("x", "y")), Decision("c", ("x", "y", "z")))
    relaxation = Softmax({"cell": rows}, init_std=1.0)
    relaxation.support.drop("cell", 0, 1)
    relaxation.support.fix("cell", 2, 1)
    sample = relaxation.weight_sample()
    slope = torch.tensor([1.0, -1.0, 0.5, -0.5])
    moved = make(0.3, projection=projection)(sample, lambda s: (s.weights["cell"] @ slope).sum())
    p, q = sample.weights["cell"], moved.weights["cell"]
    mask = relaxation.support.mask("cell")
    assert bool((q >= 0).all())
    assert bool((q[~mask] == 0).all())
    torch.testing.assert_close(q.sum(-1), torch.ones(3))
    assert q[2, 1] == 1.0  # a decided row stays decided
    assert not torch.allclose(p[:2], q[:2], atol=1e-3)
    assert moved.active == sample.active
    if projection == "exact":
        assert (q - p).abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize("make", [RandomSmoothing, AdversarialSmoothing])
def test_no_box_no_change(make: Callable[..., Any]) -> None:
    sample = Sample({"cell": simplex()})
    assert make(0.0)(sample, no_loss) is sample


@pytest.mark.parametrize("make", [RandomSmoothing, AdversarialSmoothing])
def test_a_single_path_stays_as_it_is(make: Callable[..., Any]) -> None:
    path = Sample({"cell": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}, {"cell": ((1,), (0,))})
    assert make(0.3)(path, no_loss) is path
    told = path._replace(active=None)  # not told that it is a path: the weights say so
    assert torch.equal(make(0.3)(told, lambda s: s.weights["cell"].sum()).weights["cell"], path.weights["cell"])


def test_rows_of_another_sum_keep_it() -> None:
    sample = Sigmoid({"cell": (Decision("a", ("x", "y", "z")),)})()
    for projection in ("published", "exact"):
        moved = RandomSmoothing(0.1, projection)(sample.detach(), no_loss).weights["cell"]  # type: ignore[arg-type]
        assert moved.sum().item() == pytest.approx(1.5, rel=1e-6)
        assert not torch.allclose(moved, sample.weights["cell"])


def published_attack(p: Tensor, c: Callable[[Tensor], Tensor], start: Tensor, eps: float, steps: int) -> Tensor:
    """SDARTS' own attack on one matrix, the random start given."""
    q = published_clip(p + start, p)
    for _ in range(steps):
        leaf = q.clone().requires_grad_()
        (grad,) = torch.autograd.grad(c(leaf), leaf)
        moved = q + 2 * eps / steps * grad.sign()
        q = published_clip(p + (moved - p).clamp(-eps, eps), p)
    return p if c(p) > c(q) else q


@pytest.mark.parametrize("seed", range(4))
def test_the_attack_is_the_published_one(seed: int) -> None:
    p = simplex(seed=seed)
    target = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def loss(q: Tensor) -> Tensor:
        return ((q - target) ** 3).sum().sin()

    draw = torch.Generator().manual_seed(seed)
    start = 0.2 * (2 * torch.rand(p.shape, generator=draw) - 1).double()
    attack = AdversarialSmoothing(0.2, seed=seed)
    moved = attack(Sample({"cell": p}), lambda s: loss(s.weights["cell"])).weights["cell"]
    torch.testing.assert_close(moved, published_attack(p, loss, start, 0.2, 7), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("choices", [2, 4])
def test_the_exact_attack_solves_the_linear_program(choices: int) -> None:
    """A loss of two slopes, each on half of the choices, on which steps of one length lose nothing."""
    p, eps = simplex(rows=5, choices=choices, seed=1), 0.2
    slope = torch.tensor([3.0, 1.0] * (choices // 2), dtype=torch.float64)
    attack = AdversarialSmoothing(eps, projection="exact")
    q = attack(Sample({"cell": p}), lambda s: (s.weights["cell"] @ slope).sum()).weights["cell"]
    for row, found in zip(p, q, strict=True):
        bounds = [(max(0.0, x - eps), min(1.0, x + eps)) for x in row.tolist()]
        best = linprog(-slope.numpy(), A_eq=np.ones((1, choices)), b_eq=[1.0], bounds=bounds)
        assert float(found @ slope) == pytest.approx(-best.fun, abs=1e-6)


def test_an_attack_that_fails_is_dropped() -> None:
    """A loss that is highest at the start: ascent by long steps leads away from it."""
    p = simplex()
    moved = AdversarialSmoothing(0.3)(Sample({"cell": p}), lambda s: -(s.weights["cell"] - p).abs().sum())
    assert torch.equal(moved.weights["cell"], p)


def test_a_loss_that_is_not_a_number_leaves_the_sample() -> None:
    p = simplex()
    moved = AdversarialSmoothing(0.3)(Sample({"cell": p}), lambda s: (s.weights["cell"] - p - 1e-9).log().sum())
    assert torch.equal(moved.weights["cell"], p)


def test_an_attack_touches_no_weights_and_makes_no_graph() -> None:
    w = torch.ones(8, dtype=torch.float64, requires_grad=True)
    unused = torch.ones(ROWS, 3, dtype=torch.float64) / 3  # a group that the loss does not depend on
    calls = []

    def loss(sample: Sample) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return (sample.weights["cell"] @ w).square().sum()

    moved = AdversarialSmoothing(0.2, steps=5)(Sample({"cell": simplex(), "inputs": unused}), loss)
    assert w.grad is None
    assert not any(rows.requires_grad for rows in moved.weights.values())
    assert calls == [False] + [True] * 5 + [False]


@pytest.mark.parametrize("make", [RandomSmoothing, AdversarialSmoothing])
def test_the_state_restores_the_next_draws(make: Callable[..., Any]) -> None:
    sample = Sample({"cell": simplex()})

    def loss(s: Sample) -> Tensor:
        return (s.weights["cell"] * torch.linspace(-1, 1, 8)).sum().sin()

    one, other = make(0.2, seed=1), make(0.2, seed=2)
    first = one(sample, loss).weights["cell"]
    assert not torch.equal(first, other(sample, loss).weights["cell"])
    other.load_state_dict(one.state_dict())
    copied = copy.deepcopy(one)
    after = one(sample, loss).weights["cell"]
    assert not torch.equal(first, after)
    assert torch.equal(other(sample, loss).weights["cell"], after)
    assert torch.equal(copied(sample, loss).weights["cell"], after)


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    RandomSmoothing(0.2)(Sample({"cell": simplex()}), no_loss)
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_arguments() -> None:
    for make, words in [
        (lambda: RandomSmoothing(-0.1), ("eps=-0.1", "between 0 and 1")),
        (lambda: RandomSmoothing(0.1, "nearest"), ("'nearest'", "published", "exact")),  # type: ignore[arg-type]
        (lambda: AdversarialSmoothing(0.1, steps=0), ("steps=0", "at least 1")),
    ]:
        with pytest.raises(ValueError) as error:
            make()  # type: ignore[no-untyped-call]
        one_line(error.value, *words)
