"""REINFORCE on independent logits: its gradients, its optimizer, what it learns, and that it resumes exactly."""

from __future__ import annotations

import io
import math
import random
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from asked import proposals

from lightning_nas.arch import Decision
from lightning_nas.query import Result, Searcher, Trial
from lightning_nas.query.searchers.policies import Agenda, Draw, EMABaseline
from lightning_nas.query.searchers.reinforce import Adam, CategoricalPolicy, Reinforce
from lightning_nas.spaces import SPACES, CellGraph, get_space
from lightning_nas.spaces.sequential import SequentialSpace


class Arms(SequentialSpace):
    """Decisions that do not depend on each other."""

    def __init__(self, arms: int = 2, decisions: int = 1) -> None:
        choices = tuple(f"a{k}" for k in range(arms))
        super().__init__("arms", {"arm": tuple(Decision(f"arm/{i}", choices) for i in range(decisions))})

    def graphs(self, genotype: Any) -> dict[str, CellGraph]:
        return {}


def log_prob(agenda: Agenda, logits: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Step by step with torch's own distribution, over what is left at each step."""
    picks: dict[str, tuple[int, ...]] = {}
    total = torch.zeros((), dtype=logits.dtype)
    for index, (row, kept) in enumerate(zip(agenda.rows, draw, strict=True)):
        left = list(agenda.allowed(row.name, picks))
        if len(left) > row.keep:
            for choice in kept:
                distribution = torch.distributions.Categorical(logits=logits[index, left])
                total = total + distribution.log_prob(torch.tensor(left.index(choice)))
                left.remove(choice)
        if kept:
            picks[row.name] = kept
    return total


@pytest.mark.parametrize("name", ["nasbench201", "darts", "s1", "nasbench1shot1_3", "enas_micro"])
def test_the_closed_gradient_is_that_of_autograd(name: str) -> None:
    agenda, generator = Agenda(get_space(name)), np.random.default_rng(0)
    policy = CategoricalPolicy(agenda, generator.normal(size=(len(agenda.rows), agenda.width)))
    for _ in range(5):
        draw = policy.draw(generator)
        logits = torch.tensor(policy.logits, requires_grad=True)
        value = log_prob(agenda, logits, draw)
        (expected,) = torch.autograd.grad(value, logits)
        assert value < 0
        np.testing.assert_allclose(policy.gradient(draw), expected.numpy(), atol=1e-12)


def test_the_closed_gradient_of_the_entropy_is_that_of_autograd() -> None:
    agenda, generator = Agenda(get_space("nasbench201")), np.random.default_rng(1)
    policy = CategoricalPolicy(agenda, generator.normal(size=(6, 5)))
    logits = torch.tensor(policy.logits, requires_grad=True)
    torch.distributions.Categorical(logits=logits).entropy().sum().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(policy.entropy_gradient(policy.draw(generator)), logits.grad.numpy(), atol=1e-12)


def test_adam_is_that_of_torch() -> None:
    generator = np.random.default_rng(2)
    own, value = Adam((6, 5), lr=0.3), np.zeros((6, 5))
    theirs = torch.zeros(6, 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.3)
    for _ in range(20):
        gradient = generator.normal(size=(6, 5))
        value = value + own.step(gradient)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(value, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_ordered_draws_without_replacement_have_their_probabilities() -> None:
    """Two of three, with weights 1, 2, 3: each ordered pair within five standard deviations of its probability."""
    agenda = Agenda(get_space("nasbench1shot1_1"))  # inputs/3 keeps two of three
    index = [row.name for row in agenda.rows].index("inputs/3")
    logits = np.zeros((len(agenda.rows), agenda.width))
    logits[index, :3] = np.log([1.0, 2.0, 3.0])
    policy, generator, n = CategoricalPolicy(agenda, logits), np.random.default_rng(0), 4000
    counts = dict.fromkeys(permutations(range(3), 2), 0)
    for _ in range(n):
        first, second = policy.draw(generator)[index]
        counts[first, second] += 1
    for (i, j), count in counts.items():
        p = (i + 1) / 6 * (j + 1) / (6 - i - 1)
        assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_the_two_baselines() -> None:
    corrected, enas = EMABaseline(0.9), EMABaseline(0.99, "enas")
    assert [corrected.advantage(r) for r in (5.0, 7.0)] == pytest.approx([0.0, 7.0 - (0.9 * 5 + 7) / 1.9])
    assert [enas.advantage(r) for r in (5.0, 7.0)] == pytest.approx([5.0 * 0.99, 7.0 - (0.99 * 0.05 + 0.07)])
    again = EMABaseline(0.9)
    again.load_state(corrected.state())
    assert again.advantage(3.0) == corrected.advantage(3.0)
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        EMABaseline(1.0)


def run(searcher: Searcher, trials: int, score: Any) -> None:
    for _ in range(trials):
        (trial,) = searcher.ask()
        searcher.tell([Result(trial, score(trial))])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_better_arm_of_a_bandit_wins(optimizer: Any) -> None:
    noise = random.Random(0)
    searcher = Reinforce(Arms(), lr=0.1, optimizer=optimizer, seed=3)
    run(searcher, 400, lambda trial: float(trial.genotype.picks["arm/0"] == (1,)) + noise.gauss(0, 0.5))
    p = np.exp(searcher.policy.logits[0])
    assert p[1] / p.sum() > 0.95


def test_a_large_entropy_bonus_makes_the_policy_uniform() -> None:
    searcher = Reinforce(Arms(4), lr=0.05, entropy=100.0, start=2.0, seed=0)
    spread = np.ptp(searcher.policy.logits)
    run(searcher, 600, lambda trial: float(trial.genotype.picks["arm/0"] == (1,)))
    p = np.exp(searcher.policy.logits[0])
    assert spread > 1
    np.testing.assert_allclose(p / p.sum(), 0.25, atol=0.02)


@pytest.mark.parametrize("name", SPACES)
def test_it_proposes_genotypes_of_every_space(name: str) -> None:
    space = get_space(name)
    searcher = Reinforce(space, lr=0.5)
    for _ in range(30):
        (trial,) = searcher.ask()
        assert space.check(trial.genotype) is trial.genotype
        searcher.tell([Result(trial, float(len(space.format(trial.genotype))))])
    assert space.parse(space.format(searcher.genotype())) == searcher.genotype()


def test_operations_that_a_space_excludes_are_never_proposed() -> None:
    searcher = Reinforce("darts")
    assert all("'none'" not in searcher.space.format(trial.genotype) for trial in searcher.ask(50))


def through_torch(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_a_loaded_searcher_goes_on_in_the_same_way(name: str, optimizer: Any) -> None:
    def score(trial: Trial) -> float:
        return float(sum(k for kept in trial.genotype.picks.values() for k in kept))

    one = Reinforce(name, lr=0.1, optimizer=optimizer, entropy=0.1, seed=5)
    run(one, 20, score)
    waiting = one.ask(3)
    one.tell([Result.failed(waiting[0], "out of memory")])
    other = Reinforce(name, lr=0.1, optimizer=optimizer, entropy=0.1, seed=6)
    other.load_state_dict(through_torch(one.state_dict()))
    assert proposals(one, score) == proposals(other, score)
    assert one.failures == other.failures == 1


def test_it_finds_good_cells() -> None:
    """The best score is 24 and a random one 12 on average; the last 50 of 300 proposals have at least 22."""

    def score(trial: Trial) -> float:
        return float(sum(k for (k,) in trial.genotype.picks.values()))

    searcher, scores = Reinforce("nasbench201", lr=0.1), list[float]()
    for _ in range(300):
        (trial,) = searcher.ask()
        scores.append(score(trial))
        searcher.tell([Result(trial, scores[-1])])
    assert sum(scores[-50:]) / 50 > 22


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"start": -1.0}, {"entropy": -1.0}, {"optimizer": "lion"}])
def test_what_is_wrong_is_said(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Reinforce(**settings)
