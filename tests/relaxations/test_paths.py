"""Draws without replacement against the enumeration of all ordered draws."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from lightning_nas.arch import Decision, Decisions, Support
from lightning_nas.relaxations import paths

RAGGED: Decisions = {
    "g": (
        Decision("a", ("0", "1", "2", "3"), keep=2),
        Decision("b", ("0", "1", "2", "3"), keep=3),
        Decision("c", ("0", "1"), keep=2),
        Decision("d", ("0", "1", "2")),
    )
}


def support() -> Support:
    made = Support(RAGGED)
    made.drop("g", 0, 1)
    made.drop("g", 3, 0)
    return made


def logits() -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(4, 4, generator=draw, dtype=torch.float64, requires_grad=True)


def ordered(row: Tensor, is_open: tuple[int, ...], keep: int) -> dict[tuple[int, ...], Tensor]:
    """The probability of every ordered draw, term by term."""
    found = {}
    for order in permutations(is_open, keep):
        left, chance = set(is_open), torch.ones((), dtype=row.dtype)
        for k in order:
            chance = chance * row[k].exp() / sum(row[j].exp() for j in left)
            left.remove(k)
        found[order] = chance
    return found


def test_the_log_probability_is_that_of_the_enumeration() -> None:
    narrowed, theta = support(), logits()
    tables = [
        ordered(row, is_open, d.keep) for row, is_open, d in zip(theta, narrowed.open("g"), RAGGED["g"], strict=True)
    ]
    for index in range(24):
        drawn = tuple(list(table)[index % len(table)] for table in tables)
        got = paths.log_prob(narrowed, "g", theta, drawn)
        want = torch.stack([table[row].log() for table, row in zip(tables, drawn, strict=True)])
        want = want * torch.tensor([1.0, 1.0, 0.0, 1.0])  # two of two is no draw
        torch.testing.assert_close(got, want)
        gradients = [torch.autograd.grad(value.sum(), theta, retain_graph=True)[0] for value in (got, want)]
        torch.testing.assert_close(*gradients)


def test_inclusion_is_the_sum_over_the_draws_that_include() -> None:
    narrowed, theta = support(), logits()
    want = torch.zeros(4, 4, dtype=torch.float64)
    for index, (row, is_open, d) in enumerate(zip(theta, narrowed.open("g"), RAGGED["g"], strict=True)):
        for order, chance in ordered(row, is_open, d.keep).items():
            want = (
                want
                + torch.nn.functional.one_hot(torch.tensor([4 * index + k for k in order]), 16).sum(0).view(4, 4)
                * chance
            )
    got = paths.inclusion(narrowed, "g", theta)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got.sum(-1), torch.tensor([2.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    weights = torch.rand(4, 4, dtype=torch.float64)
    gradients = [torch.autograd.grad((value * weights).sum(), theta, retain_graph=True)[0] for value in (got, want)]
    torch.testing.assert_close(*gradients)


def test_draws_have_the_frequencies_of_the_enumeration() -> None:
    draws, row = 6000, logits()[0].detach()
    mask = torch.tensor([True, False, True, True]).expand(draws, 4)
    drawn = paths.draw(row.expand(draws, 4), mask, [2] * draws, torch.Generator().manual_seed(0))
    for order, chance in ordered(row, (0, 2, 3), 2).items():
        share, p = drawn.count(order) / draws, chance.item()
        assert share == pytest.approx(p, abs=4 * (p * (1 - p) / draws) ** 0.5)


def test_extreme_logits_give_finite_values() -> None:
    narrowed, theta = support(), (logits().detach() * 300).requires_grad_()
    value = paths.inclusion(narrowed, "g", theta).square().sum()
    drawn = paths.draw(theta, narrowed.mask("g"), [2, 3, 2, 1], torch.Generator().manual_seed(0))
    value = value + paths.log_prob(narrowed, "g", theta, drawn).sum()
    value.backward()
    assert theta.grad is not None
    assert bool(value.isfinite())
    assert bool(theta.grad.isfinite().all())


def test_the_first_of_equal_scores_is_the_best() -> None:
    assert paths.best(torch.zeros(2, 3), torch.tensor([[True] * 3, [False, True, True]]), [2, 1]) == ((0, 1), (1,))
