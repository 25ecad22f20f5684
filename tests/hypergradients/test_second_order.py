"""The problem of a real search carries second-order hypergradients: learning rate, momentum, decay, other weights."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import AtBatch, Pairs, one_line, quiet_trainer

from lightning_nas.arch import Bilevel, Sample
from lightning_nas.hypergradients import FiniteDifference, FirstOrder, Hypergradient, Unrolled, virtual_weights
from lightning_nas.methods import AdamTheta, DifferentiableSearch, SGDCosine


class Smooth(nn.Module):
    """A user's own supernet with smooth candidates (a central difference needs third derivatives) and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(nn.Linear(12, 10) for _ in range(5))
        self.norm = nn.BatchNorm1d(10)

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        x = x.flatten(1)
        for row in sample.weights["cell"]:
            hidden = sum(weight * torch.tanh(op(x)) for weight, op in zip(row, self.candidates, strict=True))
            x = torch.cat([hidden, x[:, :2]], dim=1)
        logits: Tensor = self.norm(hidden)
        return logits


def on_a_problem(
    function: Callable[[DifferentiableSearch, Bilevel], None], supernet: nn.Module | None = None, **settings: Any
) -> None:
    """Call the function with the problem of the fourth batch of a search in double precision."""
    torch.manual_seed(0)
    w = SGDCosine(lr=0.1, momentum=0.9, weight_decay=3e-3, clip=None)
    settings = {"channels": 2, "cells": 1, "w": w, "theta": AdamTheta(lr=0.5)} | settings
    search = DifferentiableSearch("nasbench201", supernet=supernet, **settings)

    def look(module: DifferentiableSearch, batch: Any) -> None:
        problem = module.problem(batch)
        assert problem.lr == 0.1
        assert problem.momentum == 0.9
        assert problem.weight_decay == 3e-3
        assert all(buffer is not None and bool(buffer.abs().sum() > 0) for buffer in problem.momentum_buffers)
        function(module, problem)

    callback = AtBatch(3, look)
    fit = quiet_trainer(max_epochs=1, limit_val_batches=0, precision="64-true", callbacks=[callback])
    fit.fit(search, Pairs(4, shape=(3, 2, 2) if supernet else (3, 8, 8)))
    assert callback.called


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    a, b = (torch.cat([grad.flatten() for grad in grads]) for grads in (one, other))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("own", [True, False], ids=["own supernet", "supernet of the space"])
def test_the_virtual_step_is_the_step_of_the_optimiser(own: bool) -> None:
    """A copy of the optimiser, stepped on the same loss, arrives at the weights that the problem describes."""

    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        moved = virtual_weights(problem, create_graph=False)
        twin = copy.deepcopy(module.supernet)
        optimizer = torch.optim.SGD(twin.parameters(), 0.1)
        optimizer.load_state_dict(module.optimizers(use_pl_optimizer=False)[0].state_dict())  # type: ignore[index]
        grads = torch.autograd.grad(problem.train_loss(None), list(problem.w))
        for p, grad in zip(twin.parameters(), grads, strict=True):
            p.grad = grad
        optimizer.step()
        torch.testing.assert_close(moved, [p.detach() for p in twin.parameters()], rtol=1e-12, atol=1e-14)

    on_a_problem(look, Smooth() if own else None)


def test_the_exact_gradient_equals_numeric_differences_through_the_step() -> None:
    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        grads = Unrolled()(problem)
        (theta,) = problem.theta
        step = 1e-5
        for flat in range(0, theta.numel(), 4):
            values = []
            for side in (1, -1):
                with torch.no_grad():
                    theta.view(-1)[flat] += side * step
                values.append(problem.val_loss(virtual_weights(problem, create_graph=False)).item())
                with torch.no_grad():
                    theta.view(-1)[flat] -= side * step
            numeric = (values[0] - values[1]) / (2 * step)
            assert grads[0].flatten()[flat].item() == pytest.approx(numeric, rel=1e-5, abs=1e-8)

    on_a_problem(look, Smooth())


def test_the_error_of_the_finite_difference_falls_with_the_square_of_its_step() -> None:
    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        exact = Unrolled()(problem)
        errors = [distance(FiniteDifference(r)(problem), exact) for r in (1e-2, 1e-3, 1e-4)]
        assert errors[0] < 1e-2
        assert [math.log10(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2], abs=0.05)
        assert distance(FirstOrder()(problem), exact) > 0.05  # so the second order is there to be measured

    on_a_problem(look, Smooth())


def test_both_agree_on_the_supernet_of_a_space() -> None:
    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        exact = Unrolled()(problem)
        assert distance(FiniteDifference(1e-4)(problem), exact) < 1e-4
        assert distance(FirstOrder()(problem), exact) > 1e-2

    on_a_problem(look)


@pytest.mark.parametrize("hypergradient", [Unrolled(), FiniteDifference()])
def test_statistics_of_batches_stay_in_a_second_order_step(hypergradient: Hypergradient) -> None:
    """They would move five times in a step otherwise: all passes run on copies of the buffers."""

    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        before = {name: buffer.clone() for name, buffer in module.supernet.named_buffers()}
        assert before["norm.num_batches_tracked"] > 0
        hypergradient(problem)
        for name, buffer in module.supernet.named_buffers():
            assert torch.equal(buffer, before[name]), name
        problem.train_loss(None)
        assert module.supernet.get_buffer("norm.num_batches_tracked") == before["norm.num_batches_tracked"] + 1

    on_a_problem(look, Smooth())


class Passes:
    """A problem that records its passes: which loss, whether the weights it is given are differentiated, autocast."""

    def __init__(self, momentum: bool = True) -> None:
        self.w, self.theta = [torch.randn(3, requires_grad=True)], [torch.randn(3, requires_grad=True)]
        self.calls: list[tuple[str, bool, bool]] = []
        buffers = [torch.randn(3)] if momentum else [None]
        self.problem = Bilevel(self.train, self.val, self.w, self.theta, 0.1, 0.9, 3e-4, buffers)

    def record(self, name: str, given: Any) -> Tensor:
        assert given is not None
        self.calls.append((name, given[0].requires_grad, torch.is_autocast_enabled("cpu")))
        weight: Tensor = given[0]
        return weight

    def train(self, given: Any = None) -> Tensor:
        return (self.record("train", given) * self.theta[0]).exp().sum()

    def val(self, given: Any = None) -> Tensor:
        return (self.record("val", given) - self.theta[0]).square().sum()


def test_a_finite_difference_makes_four_passes_two_of_them_for_theta_alone() -> None:
    passes = Passes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FiniteDifference()(passes.problem)
    assert passes.calls == [
        ("train", True, False),
        ("val", True, False),
        ("train", False, False),
        ("train", False, False),
    ]


def test_the_exact_gradient_makes_two_passes() -> None:
    passes = Passes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Unrolled()(passes.problem)
    assert passes.calls == [("train", True, False), ("val", True, False)]


def test_the_step_is_measured_by_the_norm_of_all_weights_together() -> None:
    """A norm for each tensor of its own would give other points; the difference there must be of length ``2 r``."""
    seen: list[list[Tensor]] = []
    w = [torch.randn(3, dtype=torch.float64, requires_grad=True), torch.randn(2, 2, dtype=torch.float64)]
    w[1].requires_grad_()
    theta = [torch.ones((), dtype=torch.float64, requires_grad=True)]

    def train(given: Any = None) -> Tensor:
        seen.append([p.detach().clone() for p in given])
        return theta[0] * sum(p.square().sum() for p in given)

    def val(given: Any = None) -> Tensor:
        return (5 * given[0]).square().sum() + given[1].square().sum()

    FiniteDifference(0.01)(Bilevel(train, val, w, theta, lr=0.1))
    apart = torch.cat([(a - b).flatten() for a, b in zip(seen[1], seen[2], strict=True)])
    assert apart.norm().item() == pytest.approx(0.02)
    middle = [(a + b) / 2 for a, b in zip(seen[1], seen[2], strict=True)]
    torch.testing.assert_close(middle, [p.detach() for p in w])


def test_an_upper_loss_at_its_minimum_has_no_second_order() -> None:
    """The direction is zero there, which must not become 0 / 0."""
    w, theta = [torch.zeros(2, requires_grad=True)], [torch.ones(2, requires_grad=True)]
    problem = Bilevel(
        lambda given: (given[0] * theta[0]).square().sum() / 2,  # type: ignore[index]
        lambda given: given[0].square().sum() + theta[0].sum(),  # type: ignore[index]
        w,
        theta,
        lr=0.1,
    )
    for hypergradient in (Unrolled(), FiniteDifference()):
        assert hypergradient(problem)[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("r", [0.0, -1e-2, float("nan"), float("inf")])
def test_a_step_must_be_positive(r: float) -> None:
    with pytest.raises(ValueError) as caught:
        FiniteDifference(r)
    one_line(caught.value, f"r={r}", "positive", "0.01")


def test_given_the_live_weights_the_losses_are_the_same() -> None:
    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        for loss in (problem.train_loss, problem.val_loss):
            assert loss(None).item() == loss([p.detach() for p in problem.w]).item()
            shifted = [p.detach() + 0.1 for p in problem.w]
            assert loss(shifted).item() != loss(None).item()
        assert problem.train_loss(None).item() != problem.val_loss(None).item()

    on_a_problem(look)


def test_a_search_runs_with_them() -> None:
    for hypergradient in (Unrolled(), FiniteDifference()):
        torch.manual_seed(0)
        search = DifferentiableSearch("nasbench201", channels=2, cells=1, hypergradient=hypergradient)
        fit = quiet_trainer(max_epochs=1)
        fit.fit(search, Pairs(2))
        assert fit.global_step == 2
        assert torch.isfinite(search.relaxation.theta["cell"]).all()
