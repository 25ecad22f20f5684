"""REINFORCE: the baseline by its formula, rewards, several draws, regularizers, and a state that resumes."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import AtBatch, HardGumbel, Pairs, one_line, quiet_trainer

from lightning_nas.arch import Bilevel, Outcome
from lightning_nas.hypergradients import ScoreFunction
from lightning_nas.methods import AdamTheta, DifferentiableSearch

REWARDS = (0.2, 0.9, 0.4, 0.6)


def problem(theta: Tensor, rewards: Any = REWARDS, penalty: Any = None) -> Bilevel:
    """Draws whose log-probability is ``theta_k`` for the k-th."""
    draws = iter(enumerate(rewards))

    def outcome() -> Outcome:
        index, reward = next(draws)
        return Outcome(torch.tensor(-2 * reward), torch.tensor(reward), theta[index])

    def refuse(_: Any) -> Tensor:
        raise AssertionError("the score needs no loss with a graph")

    return Bilevel(refuse, refuse, [], [theta], outcome=outcome, penalty=penalty)


def advantages(rewards: Any, decay: float) -> list[float]:
    """The formula of the released codes, written out."""
    baseline, found = None, []
    for reward in rewards:
        baseline = reward if baseline is None else baseline - (1 - decay) * (baseline - reward)
        found.append(reward - baseline)
    return found


@pytest.mark.parametrize(("reward", "scale"), [("accuracy", 1.0), ("loss", 2.0)])
def test_rewards_are_taken_over_the_moving_baseline(reward: Any, scale: float) -> None:
    estimator, theta = ScoreFunction(reward=reward, baseline_decay=0.8), torch.zeros(4, requires_grad=True)
    given = problem(theta)
    for index, advantage in enumerate(advantages([scale * r for r in REWARDS], 0.8)):
        (grad,) = estimator(given)
        want = torch.zeros(4)
        want[index] = -advantage
        torch.testing.assert_close(grad, want)
    assert estimator.updates.item() == 4


def test_several_draws_are_averaged() -> None:
    estimator, theta = ScoreFunction(samples=4, baseline_decay=0.8), torch.zeros(4, requires_grad=True)
    (grad,) = estimator(problem(theta))
    torch.testing.assert_close(grad, -torch.tensor(advantages(REWARDS, 0.8)) / 4)


def test_the_entropy_is_a_bonus() -> None:
    start = torch.tensor([-1.0, -0.5, -2.0, -0.1])
    estimator, theta = ScoreFunction(samples=4, baseline_decay=0.8, entropy=0.3), start.clone().requires_grad_()
    (grad,) = estimator(problem(theta))
    bonus = [r - 0.3 * score for r, score in zip(REWARDS, start.tolist(), strict=True)]
    torch.testing.assert_close(grad, -torch.tensor(advantages(bonus, 0.8)) / 4)


def test_regularizers_are_differentiated_as_they_are() -> None:
    c, theta = torch.tensor([1.0, -2.0, 0.0, 3.0]), torch.zeros(4, requires_grad=True)
    (grad,) = ScoreFunction(samples=4)(problem(theta, penalty=lambda: c @ theta))
    (plain,) = ScoreFunction(samples=4)(problem(theta, penalty=lambda: None))
    torch.testing.assert_close(grad - plain, c)


def test_the_baseline_resumes() -> None:
    theta = torch.zeros(4, requires_grad=True)
    estimator, again = ScoreFunction(samples=2), ScoreFunction(samples=2)
    given = problem(theta)
    estimator(given)
    file = io.BytesIO()
    torch.save(estimator.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    (want,), (got,) = estimator(given), again(problem(theta, rewards=REWARDS[2:]))
    torch.testing.assert_close(got[:2], want[2:])
    assert torch.equal(again.baseline, estimator.baseline)


def test_in_a_search_no_weight_has_a_gradient_and_the_baseline_is_saved() -> None:
    settings: dict[str, Any] = {"channels": 4, "cells": 1, "theta": AdamTheta(lr=0.1), "relaxation": HardGumbel}
    search = DifferentiableSearch("nasbench201", hypergradient=ScoreFunction(samples=3, reward="loss"), **settings)

    def look(module: DifferentiableSearch, batch: Any) -> None:
        grads = [p.grad if p.grad is None else p.grad.clone() for p in module.weights()]
        estimator = module.hypergradient
        assert isinstance(estimator, ScoreFunction)
        before = int(estimator.updates)
        (grad,) = estimator(module.problem(batch))
        assert grad.shape == module.relaxation.theta["cell"].shape
        assert bool((grad != 0).any())
        assert int(estimator.updates) == before + 3
        for p, old in zip(module.weights(), grads, strict=True):
            assert (p.grad is None and old is None) or torch.equal(p.grad, old)  # type: ignore[arg-type]

    callback = AtBatch(1, look)
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[callback]).fit(search, Pairs(2))
    assert callback.called
    assert search.state_dict()["hypergradient.updates"].item() == 9


@pytest.mark.parametrize(
    ("bad", "allowed"),
    [
        ({"samples": 0}, "at least 1"),
        ({"reward": "speed"}, "'accuracy' and 'loss'"),
        ({"baseline_decay": 1.0}, "less than 1"),
        ({"baseline_decay": 0.0}, "more than 0"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ValueError) as caught:
        ScoreFunction(**bad)
    one_line(caught.value, str(next(iter(bad.values()))), allowed)


def test_a_problem_without_outcomes_is_refused() -> None:
    theta = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError) as caught:
        ScoreFunction()(Bilevel(lambda _: theta.sum(), lambda _: theta.sum(), [], [theta]))
    one_line(caught.value, "no `outcome`")
