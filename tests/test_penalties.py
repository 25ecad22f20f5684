"""Regularizers against independent values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as reference

from lightning_nas.arch import Decision, Decisions
from lightning_nas.metrics import entropy
from lightning_nas.penalties import Entropy
from lightning_nas.relaxations import Softmax

DECISIONS: Decisions = {
    "ops": (Decision("a", ("skip", "conv", "pool")), Decision("b", ("skip", "conv"))),
    "inputs": (Decision("c", ("0", "1", "2", "3"), keep=2),),
}


def test_the_entropy_of_rows() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    assert entropy(rows).item() == pytest.approx(np.mean([reference(row) for row in rows.numpy()]), rel=1e-12)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_the_entropy_keeps_its_precision(dtype: torch.dtype, kept: torch.dtype) -> None:
    assert entropy(torch.tensor([[0.25, 0.75]], dtype=dtype)).dtype == kept


def test_the_entropy_at_a_vertex_has_no_value_and_no_slope_of_zeros() -> None:
    rows = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    entropy(rows).backward()
    assert entropy(rows).item() == 0
    assert rows.grad is not None
    assert rows.grad.tolist() == [[0.0, -1.0, 0.0]]


def test_the_slope_of_the_entropy() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: entropy(x.softmax(-1)), (logits,))


@pytest.mark.parametrize("closed", [False, True], ids=["open", "one closed"])
def test_the_penalty_is_the_mean_over_groups_of_the_mean_over_rows(closed: bool) -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    theta = {group: value.detach().numpy() for group, value in relaxation.theta.items()}
    first = theta["ops"][0]
    if closed:
        relaxation.support.drop("ops", 0, 1)
        first = first[[0, 2]]
    ops = [reference(softmax(first)), reference(softmax(theta["ops"][1, :2]))]
    want = 0.7 * (np.mean(ops) + reference(softmax(theta["inputs"][0]))) / 2
    assert Entropy(0.7)(relaxation, relaxation()).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_positive_factor_sharpens_the_mixture(weight: float) -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    before = entropy(relaxation.mean()["inputs"])
    optimizer = torch.optim.SGD(relaxation.parameters(), 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        Entropy(weight)(relaxation, relaxation()).backward()
        optimizer.step()
    after = entropy(relaxation.mean()["inputs"])
    assert (after < before) == (weight > 0)
