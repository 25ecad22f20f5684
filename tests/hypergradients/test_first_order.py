"""The first-order hypergradient: a closed form, and central differences of the loss of a real supernet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import AtBatch, Pairs, quiet_trainer

from lightning_nas.arch import Bilevel
from lightning_nas.hypergradients import FiniteDifference, FirstOrder, Hypergradient, Unrolled
from lightning_nas.methods import AdamTheta, DifferentiableSearch
from lightning_nas.penalties import Entropy


def fixed_point(hypergradient: Hypergradient, xi: float) -> tuple[float, float]:
    """Where small alternating steps end on ``L_val = a w - 2 a + 1``, ``L_tr = w^2 - 2 a w + a^2``."""
    a, w = torch.tensor([2.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)

    def weight(given: Any) -> Tensor:
        return w if given is None else given[0]

    def train_loss(given: Any = None) -> Tensor:
        return (weight(given).square() - 2 * a * weight(given) + a.square()).sum()

    def val_loss(given: Any = None) -> Tensor:
        return (a * weight(given) - 2 * a + 1).sum()

    problem = Bilevel(train_loss, val_loss, [w], [a], lr=xi, momentum_buffers=[None])
    for _ in range(2000):
        (grad,) = hypergradient(problem)
        with torch.no_grad():
            a -= 0.05 * grad
        (grad,) = torch.autograd.grad(train_loss(), [w])
        with torch.no_grad():
            w -= 0.05 * grad
    return a.item(), w.item()


@pytest.mark.parametrize(
    ("make", "xi", "end"),
    [
        (FirstOrder, 0.5, 2.0),
        (Unrolled, 0.0, 2.0),
        (Unrolled, 0.25, 1.3333),
        (Unrolled, 0.5, 1.0),
        (Unrolled, 0.75, 0.8),
        (FiniteDifference, 0.5, 1.0),
    ],
)
def test_where_it_leads_on_the_problem_of_the_paper(make: Callable[[], Hypergradient], xi: float, end: float) -> None:
    """``2 / (1 + 2 xi)`` through a virtual step of length xi, 2 without one; the solution is 1."""
    a, w = fixed_point(make(), xi)
    assert a == pytest.approx(end, abs=1e-3)
    assert w == pytest.approx(end, abs=1e-3)


@pytest.mark.parametrize("relax_inputs", [False, True], ids=["edges", "edges and inputs"])
@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_it_is_the_derivative_of_the_upper_loss_of_a_supernet(space: str, relax_inputs: bool) -> None:
    """Every entry is held against central differences in double precision, regularizer included."""
    torch.manual_seed(0)
    search = DifferentiableSearch(
        space,
        channels=2,
        cells=1 if space == "nasbench201" else 2,
        theta=AdamTheta(lr=0.5),
        relax_inputs=relax_inputs,
        regularizers=(Entropy(0.3),),
    )

    def look(module: DifferentiableSearch, batch: Any) -> None:
        problem = module.problem(batch)
        grads = FirstOrder()(problem)
        draw, step = torch.Generator().manual_seed(1), 1e-5
        for theta, grad in zip(problem.theta, grads, strict=True):
            assert grad.dtype == torch.float64
            for flat in torch.randperm(theta.numel(), generator=draw)[:10].tolist():
                values = []
                for side in (1, -1):
                    with torch.no_grad():
                        theta.view(-1)[flat] += side * step
                        values.append(problem.val_loss(None).item())
                        theta.view(-1)[flat] -= side * step
                numeric = (values[0] - values[1]) / (2 * step)
                assert grad.flatten()[flat].item() == pytest.approx(numeric, rel=1e-5, abs=1e-9)

    callback = AtBatch(1, look)
    fit = quiet_trainer(max_steps=2, limit_val_batches=0, precision="64-true", callbacks=[callback])
    fit.fit(search, Pairs(2, batch_size=4))
    assert callback.called
