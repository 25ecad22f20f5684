"""Recurrent controllers: probabilities, the clipped objective, learning and resuming."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from asked import proposals

from lightning_nas.query import Result, Trial
from lightning_nas.query.searchers.controller_search import ControllerSearch
from lightning_nas.query.searchers.lstm_policy import LSTMPolicy
from lightning_nas.query.searchers.nas_rl import NASRL, SkipPolicy
from lightning_nas.query.searchers.nasnet import NASNetPPO, clipped_surrogate
from lightning_nas.query.searchers.policies import Agenda
from lightning_nas.spaces import SPACES, get_space
from lightning_nas.spaces.nas_rl import NASRLSpace
from lightning_nas.spaces.nasbench101 import NASBench101Space

SEARCHES: dict[str, Callable[..., ControllerSearch]] = {
    "NASNetPPO": partial(NASNetPPO, size=16, batch=5, epochs=2),
    "NASRL": partial(NASRL, size=8, batch=5),
}
every = pytest.mark.parametrize("search", SEARCHES)


def score(trial: Trial) -> float:
    return float(sum(k for kept in trial.genotype.picks.values() for k in kept))


def run(searcher: ControllerSearch, trials: int, scale: float = 1.0) -> list[float]:
    scores = []
    for _ in range(trials):
        (trial,) = searcher.ask()
        scores.append(score(trial))
        searcher.tell([Result(trial, scale * scores[-1])])
    return scores


@pytest.mark.parametrize("name", ["small_sep", "nasbench201", "nasbench1shot1_1"])
def test_draws_come_as_often_as_their_log_probability_says(name: str) -> None:
    """The most frequent of 4000 draws, each within five standard deviations."""
    policy, n = LSTMPolicy(Agenda(get_space(name)), size=4, init=3.0, seed=1), 4000
    counts = Counter(policy.draw(n))
    common = [draw for draw, _ in counts.most_common(10)]
    with torch.no_grad():
        probabilities = policy(common)[0].sum(1).exp()
    for draw, p in zip(common, probabilities.tolist(), strict=True):
        assert abs(counts[draw] - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    assert probabilities.min() > 5 / n


def test_the_probabilities_of_all_genotypes_sum_to_one() -> None:
    policy = LSTMPolicy(Agenda(get_space("nasbench201")), size=4, init=1.0)
    first = [(a, b) for a in range(5) for b in range(5)]
    with torch.no_grad():
        log_prob, entropy = policy([((a,), (b,), (0,), (0,), (0,), (0,)) for a, b in first])
    assert log_prob[:, :2].sum(1).exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    p = log_prob[::5, 0].exp()
    assert entropy[:, 0].tolist() == pytest.approx([-(p * p.log()).sum().item()] * 25, abs=1e-5)
    assert entropy[0, 2] != entropy[1, 2]  # later decisions know earlier ones


@pytest.mark.parametrize("name", [name for name in SPACES if name != "nasbench101"])
def test_a_policy_draws_genotypes_of_every_space(name: str) -> None:
    space = get_space(name)
    agenda = Agenda(space)
    draws = LSTMPolicy(agenda, size=4, init=2.0).draw(10)
    genotypes = [agenda.genotype(draw) for draw in draws]
    assert all(genotype is not None for genotype in genotypes)
    assert len(set(genotypes)) > 1


def test_invalid_draws_are_drawn_again() -> None:
    searcher = NASNetPPO(NASBench101Space(), batch=20, size=4)
    for _ in range(60):
        (trial,) = searcher.ask()
        searcher.tell([Result(trial, searcher.space.check(trial.genotype) is trial.genotype)])
    assert searcher.asked == 60


def test_the_clipped_surrogate_of_hand() -> None:
    ratio = torch.tensor([[1.1, 1.3, 0.7]] * 2, requires_grad=True)
    value = clipped_surrogate(ratio, torch.tensor([2.0, -2.0]), 0.2)
    assert torch.allclose(value, torch.tensor([[2.2, 2.4, 1.4], [-2.2, -2.6, -1.6]]))
    value.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [[2.0, 0.0, 2.0], [-2.0, -2.0, 0.0]]


def test_the_first_step_of_ppo_is_a_policy_gradient() -> None:
    """At a ratio of one the gradient is that of the advantage times the log-probability."""
    searcher = NASNetPPO("nasbench201", size=8, entropy=0.0)
    draws, advantage = searcher.policy.draw(20), torch.randn(20, generator=torch.Generator().manual_seed(0))
    log_prob, entropy = searcher.policy(draws)
    loss = searcher.loss(log_prob, entropy, log_prob.detach(), advantage)
    plain = -(advantage * log_prob.sum(1)).mean()
    parameters = list(searcher.policy.parameters())
    gradients = [torch.autograd.grad(value, parameters, retain_graph=True) for value in (loss, plain)]
    for got, expected in zip(*gradients, strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("bonus", [0.0, 10.0])
def test_a_large_entropy_bonus_makes_the_controller_uniform(bonus: float) -> None:
    searcher = NASNetPPO("nasbench201", size=8, lr=0.05, entropy=bonus, seed=1)
    with torch.no_grad():
        searcher.policy.bias[:, 0] += 3.0
    run(searcher, 400)
    with torch.no_grad():
        entropy = searcher.policy(searcher.policy.draw(20))[1].mean().item()
    assert (entropy > 0.99 * torch.tensor(5.0).log()) == bool(bonus)


@every
def test_it_learns(search: str) -> None:
    """The sum of indices is 12 on average at random and 24 at best."""
    searcher = SEARCHES[search]("nasbench201", lr=0.02, batch=10, seed=2)
    scores = run(searcher, 400, scale=4.0)
    assert sum(scores[:40]) / 40 < 15 < 22 < sum(scores[-40:]) / 40


def test_skips_are_decided_by_attention() -> None:
    """The first skip, 1<-0: its probability from the outputs of two steps of torch's own LSTM."""
    space = NASRLSpace(layers=2, start=2)
    policy = SkipPolicy(Agenda(space), size=5, layers=2, init=1.0, frozen=("depth",))
    assert [len(rows) for rows in policy.steps] == [1] * 8
    text = "2 3 5 24 1 7 36 {}"
    draws = [policy.agenda.draw_of(space.parse(text.format(skip))) for skip in ("no", "yes")]
    with torch.no_grad():
        taken = [(row, kept[0]) for row, kept in enumerate(draws[1][:-1])]
        reads = torch.stack([policy.start, *(policy.embed[row, choice] for row, choice in taken)])
        outputs, _ = policy.lstm(reads.unsqueeze(0))
        first, anchor = outputs[0, 3], outputs[0, 7]  # behind depth, height, width, filters; behind all of layer 1
        inner = torch.tanh(first @ policy.previous + anchor @ policy.current)
        p = torch.sigmoid(inner @ policy.vector).item()
        log_prob, entropy = policy(draws)
    assert log_prob[:, -1].exp().tolist() == pytest.approx([1 - p, p], abs=1e-5)
    assert log_prob[:, 0].tolist() == entropy[:, 0].tolist() == [0.0, 0.0]  # the depth is not the policy's
    assert 0.02 < p < 0.98


def test_all_skips_into_a_layer_are_one_step() -> None:
    policy = SkipPolicy(Agenda(NASRLSpace(layers=4, start=4)), size=5)
    assert [len(rows) for rows in policy.steps] == [1, *[1, 1, 1], *[1, 1, 1, 1], *[1, 1, 1, 2], *[1, 1, 1, 3]]
    policy = SkipPolicy(Agenda(get_space("enas_macro")), size=5)
    assert [len(rows) for rows in policy.steps] == [1, *(n for skips in range(1, 12) for n in (1, skips))]
    assert Counter(len(draw) for draw in policy.draw(3)) == {78: 3}


def test_the_depth_grows_with_the_trials() -> None:
    searcher = NASRL(NASRLSpace(layers=5, start=1), size=4, batch=2, grow_every=4)
    depths = []
    for number in range(14):
        (trial,) = searcher.ask()
        depths.append(trial.genotype.picks["depth"][0])
        searcher.tell([Result(trial, float(number))])
    assert depths == [0] * 4 + [1] * 4 + [2] * 6


def test_the_reward_of_nas_rl_is_the_cube_of_the_accuracy() -> None:
    (trial,) = (searcher := NASRL("nasbench201", size=4)).ask()
    assert searcher.reward(Result(trial, 50.0)) == 0.125


@every
@pytest.mark.parametrize("name", ["nasbench201", "s1"])
def test_a_loaded_searcher_goes_on_in_the_same_way(search: str, name: str) -> None:
    one = SEARCHES[search](name, seed=3)
    run(one, 18)
    waiting = one.ask(4)
    one.tell([Result.failed(waiting[1], "out of memory"), Result(waiting[2], 5.0)])
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = SEARCHES[search](name, seed=4)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert proposals(one, score) == proposals(other, score)


@every
def test_the_state_is_a_copy(search: str) -> None:
    one = SEARCHES[search]("nasbench201")
    run(one, 7)
    state = one.state_dict()
    before = str(state)
    run(one, 20)
    assert str(state) == before


@every
def test_failures_do_not_block_it(search: str) -> None:
    searcher, rng = SEARCHES[search]("nasbench201"), random.Random(0)
    for _ in range(40):
        trials = searcher.ask(3)
        assert len(trials) == 3
        searcher.tell([Result.failed(t, "no") if rng.random() < 0.5 else Result(t, 1.0) for t in trials])
    assert searcher.failures > 20


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"batch": 0}, {"clip": 1.0}, {"entropy": -1.0}, {"size": 0}])
def test_what_is_wrong_is_said(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        NASNetPPO(**settings)
