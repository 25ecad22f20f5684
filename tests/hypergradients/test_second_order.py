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
from toys import AtBatch, FiniteDifference, Pairs, Unrolled, quiet_trainer, virtual_weights

from lightning_nas.arch import Bilevel, Sample
from lightning_nas.hypergradients import FirstOrder
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


def test_other_weights_run_on_copies_of_the_buffers() -> None:
    """Batch statistics would move twice in a step otherwise."""

    def look(module: DifferentiableSearch, problem: Bilevel) -> None:
        before = {name: buffer.clone() for name, buffer in module.supernet.named_buffers()}
        assert before["norm.num_batches_tracked"] > 0
        moved = virtual_weights(problem, create_graph=False)
        after_live = {name: buffer.clone() for name, buffer in module.supernet.named_buffers()}
        assert after_live["norm.num_batches_tracked"] == before["norm.num_batches_tracked"] + 1
        problem.train_loss(moved)
        problem.val_loss(moved)
        for name, buffer in module.supernet.named_buffers():
            assert torch.equal(buffer, after_live[name]), name

    on_a_problem(look, Smooth())


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
