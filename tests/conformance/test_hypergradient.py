"""What every hypergradient promises. A new one is covered by a line in `HYPERGRADIENTS`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import AtBatch, Pairs, quiet_trainer

from lightning_nas.arch import Bilevel, Outcome
from lightning_nas.hypergradients import (
    FiniteDifference,
    FirstOrder,
    Hypergradient,
    ScoreFunction,
    SingleLevel,
    Unrolled,
)
from lightning_nas.methods import AdamTheta, DifferentiableSearch

Make = Callable[[], Hypergradient]
HYPERGRADIENTS: dict[str, tuple[Make, str]] = {
    "FirstOrder": (FirstOrder, "first"),
    "Unrolled": (Unrolled, "unrolled"),
    "FiniteDifference": (FiniteDifference, "unrolled"),
    "SingleLevel": (SingleLevel, "single"),
    "ScoreFunction": (ScoreFunction, "score"),
}
PURE = {name: entry for name, entry in HYPERGRADIENTS.items() if name != "ScoreFunction"}
"""Those that draw nothing of their own and keep no state."""
every = pytest.mark.parametrize(("make", "order"), HYPERGRADIENTS.values(), ids=HYPERGRADIENTS)


@dataclass
class Quadratic:
    """``L_tr = |w - A theta|^2 / 2`` and ``L_val = |w - b|^2 / 2 + c theta``, with the state of an SGD optimiser."""

    momentum: bool = True
    lr: float = 0.3

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.w, self.theta = normal(5).requires_grad_(), [normal(3).requires_grad_(), normal(2).requires_grad_()]
        self.a, self.b, self.c, self.buffer = [normal(5, 3), normal(5, 2)], normal(5), normal(3), normal(5)

    def problem(self) -> Bilevel:
        def weights(given: Any) -> Tensor:
            return self.w if given is None else given[0]

        def train_loss(given: Any = None) -> Tensor:
            target = self.a[0] @ self.theta[0] + self.a[1] @ self.theta[1]
            return (weights(given) - target).square().sum() / 2

        def val_loss(given: Any = None) -> Tensor:
            return (weights(given) - self.b).square().sum() / 2 + self.c @ self.theta[0]

        buffers = [self.buffer] if self.momentum else [None]

        def outcome() -> Outcome:  # for a first draw the baseline is its reward, so that the penalty is all there is
            return Outcome(torch.tensor(0.7), torch.tensor(0.4), self.theta[0].sum())

        problem = Bilevel(train_loss, val_loss, [self.w], self.theta, self.lr, 0.9, 0.02, buffers)
        problem.outcome, problem.penalty = outcome, lambda: self.c @ self.theta[0]
        return problem

    def expected(self, order: str) -> list[Tensor]:
        """The gradient, by hand."""
        first = [self.c, torch.zeros(2, dtype=torch.float64)]
        if order in ("first", "score"):
            return first
        w = self.w.detach()
        target = sum(a @ theta.detach() for a, theta in zip(self.a, self.theta, strict=True))
        if order == "single":
            return [a.T @ (target - w) for a in self.a]
        step = (w - target) + 0.02 * w + (0.9 * self.buffer if self.momentum else 0)
        residual = w - self.lr * step - self.b
        return [f + self.lr * a.T @ residual for f, a in zip(first, self.a, strict=True)]


@every
def test_it_is_of_the_protocol_and_can_be_copied(make: Make, order: str) -> None:
    assert isinstance(make(), Hypergradient)
    for copied in (copy.deepcopy(make()), pickle.loads(pickle.dumps(make()))):
        quadratic = Quadratic()
        torch.testing.assert_close(copied(quadratic.problem()), quadratic.expected(order))


@pytest.mark.parametrize("momentum", [True, False], ids=["momentum", "first step"])
@every
def test_its_value_on_a_quadratic_problem(make: Make, order: str, momentum: bool) -> None:
    """Quadratics have no error in a central difference, so that is held to the same value."""
    quadratic = Quadratic(momentum)
    grads = make()(quadratic.problem())
    torch.testing.assert_close(grads, quadratic.expected(order), rtol=1e-9, atol=1e-12)


@every
def test_one_gradient_for_each_parameter_in_order_and_without_a_graph(make: Make, order: str) -> None:
    quadratic = Quadratic()
    grads = make()(quadratic.problem())
    assert [grad.shape for grad in grads] == [theta.shape for theta in quadratic.theta]
    assert all(grad.dtype == torch.float64 and not grad.requires_grad for grad in grads)


@pytest.mark.parametrize("filled", [False, True], ids=["none", "filled"])
@every
def test_it_leaves_weights_and_gradients_alone(make: Make, order: str, filled: bool) -> None:
    quadratic = Quadratic()
    parameters = [quadratic.w, *quadratic.theta]
    for p in parameters:
        p.grad = torch.full_like(p, 7.0) if filled else None
    before, buffer = [p.detach().clone() for p in parameters], quadratic.buffer.clone()
    make()(quadratic.problem())
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    assert all(torch.equal(p.grad, torch.full_like(p, 7.0)) if filled else p.grad is None for p in parameters)
    assert torch.equal(quadratic.buffer, buffer)


@every
def test_an_upper_loss_that_knows_no_theta_gives_zeros(make: Make, order: str) -> None:
    w, theta = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)

    def loss(given: Any = None) -> Tensor:
        return (w if given is None else given[0]).square().sum()

    def outcome() -> Outcome:
        return Outcome(torch.tensor(0.7), torch.tensor(0.4), torch.tensor(0.0))

    grads = make()(Bilevel(loss, loss, [w], [theta], lr=0.1, momentum_buffers=[None], outcome=outcome))
    assert torch.equal(grads[0], torch.zeros(3))


@pytest.mark.parametrize(("make", "order"), PURE.values(), ids=PURE)
def test_it_is_pure_on_the_problem_of_a_search(make: Make, order: str) -> None:
    """Twice the same gradient; no weight, buffer, gradient or optimiser state moves."""
    search = DifferentiableSearch("nasbench201", channels=4, cells=1, hypergradient=make(), theta=AdamTheta(lr=0.1))

    def look(module: DifferentiableSearch, batch: Any) -> None:
        state = {name: value.clone() for name, value in module.state_dict().items()}
        grads = [p.grad if p.grad is None else p.grad.clone() for p in module.parameters()]
        problem = module.problem(batch)
        assert any(buffer is not None for buffer in problem.momentum_buffers)
        one, other = (module.hypergradient(problem) for _ in range(2))  # type: ignore[misc]
        assert all(torch.equal(a, b) and bool(a.abs().sum() > 0) for a, b in zip(one, other, strict=True))
        for name, value in module.state_dict().items():
            assert torch.equal(value, state[name]), name
        for p, grad in zip(module.parameters(), grads, strict=True):
            assert (p.grad is None and grad is None) or torch.equal(p.grad, grad)

    callback = AtBatch(2, look)
    trainer = quiet_trainer(max_steps=3, limit_val_batches=0, callbacks=[callback])
    trainer.fit(search, Pairs(3))
    assert callback.called
    assert trainer.global_step == 3
