"""Tabular Q-learning: the table, the schedules, what is proposed, and that it resumes exactly."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from asked import proposals

from lightning_nas.arch import Decision, Genotype
from lightning_nas.query import Result, Trial
from lightning_nas.query.searchers.blockqnn import BLOCK_QNN_SCHEDULE, BlockQNN
from lightning_nas.query.searchers.metaqnn import META_QNN_SCHEDULE, MetaQNN
from lightning_nas.query.searchers.q_learning import EpsilonSchedule, QLearning, QTable, Step
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.blockqnn import BlockQNNSpace
from lightning_nas.spaces.nasnet import NASNetSpace
from lightning_nas.spaces.sequential import Picks, SequentialSpace

SEARCHES: dict[str, Callable[..., QLearning]] = {
    "MetaQNN": partial(MetaQNN, schedule=((1.0, 10), (0.3, 10), (0.1, 10))),
    "BlockQNN": partial(BlockQNN, BlockQNNSpace(6), schedule=((1.0, 10), (0.3, 10), (0.1, 10)), batch=4, replays=8),
}
every = pytest.mark.parametrize("search", SEARCHES)


class Bits(SequentialSpace):
    """Some bits, one after another."""

    def __init__(self, bits: int = 3) -> None:
        super().__init__("bits", {"bit": tuple(Decision(f"bit/{i}", ("0", "1")) for i in range(bits))})

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        return {}


class Counted(Bits):
    """Bits of which the state tells how many were one."""

    def state(self, name: str, picks: Picks) -> str:
        return f"{name} {sum(k for (k,) in picks.values())}"


def test_one_reversed_sweep_is_exact_in_two_states() -> None:
    """From `s` action 1 leads to `t`, where action 0 ends with 0.7; the other actions are worth the start's 0.5."""
    table = QTable(alpha=1.0, start=0.5)
    table.sweep([Step("s", 1, (0, 1)), Step("t", 0, (0, 1))], [0.0, 0.7])
    assert table.values == {"s": {1: 0.7}, "t": {0: 0.7}}
    table.sweep([Step("s", 1, (0, 1)), Step("t", 1, (0, 1))], [0.1, 0.3])
    assert table.value("t", 1) == pytest.approx(0.3)
    assert table.value("s", 1) == pytest.approx(0.1 + 0.7)  # the best of t, not what was taken
    assert table.greedy("t", (0, 1), random.Random(0)) == 0
    assert table.greedy("t", (1,), random.Random(0)) == 1


def test_a_sweep_moves_by_alpha_and_discounts() -> None:
    table = QTable(alpha=0.1, gamma=0.5)
    table.sweep([Step("s", 0, (0,)), Step("t", 0, (0,))], [0.0, 1.0])
    assert (table.value("t", 0), table.value("s", 0)) == pytest.approx((0.1, 0.1 * 0.5 * 0.1))


def test_ties_are_broken_at_random() -> None:
    rng = random.Random(0)
    assert {QTable().greedy("new", (2, 5, 7), rng) for _ in range(50)} == {2, 5, 7}


def test_the_published_schedules() -> None:
    meta, block = EpsilonSchedule(META_QNN_SCHEDULE), EpsilonSchedule(BLOCK_QNN_SCHEDULE)
    assert META_QNN_SCHEDULE[:4] == ((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100))
    assert META_QNN_SCHEDULE[4:] == tuple((e, 150) for e in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1))
    assert [meta(n) for n in (0, 1499, 1500, 1799, 1800, 2549, 2699, 5000)] == [1, 1, 0.9, 0.7, 0.6, 0.2, 0.1, 0.1]
    assert (block.total, block(0), block(block.total - 1)) == (178 * 64, 1.0, 0.1)
    assert [e for e, _ in BLOCK_QNN_SCHEDULE] == pytest.approx([1 - 0.1 * k for k in range(10)])


def test_epsilon_goes_by_different_architectures_and_none_comes_twice() -> None:
    searcher = QLearning(Bits(), [(1.0, 4), (0.0, 4)])
    trials = searcher.ask(8)
    assert [trial.note["epsilon"] for trial in trials] == [1.0] * 4 + [0.0] * 4
    assert len({trial.genotype for trial in trials}) == 8
    again = searcher.ask(2)  # there is nothing new
    assert len(searcher.seen) == 8
    assert all(trial.genotype in searcher.seen for trial in again)


def test_without_chance_it_takes_the_best_of_the_table() -> None:
    searcher = QLearning(Bits(), [(0.0, 1)], start=0.0, alpha=1.0)
    (best,) = (Genotype("bits", {f"bit/{i}": (k,) for i, k in enumerate((1, 0, 1))}),)
    searcher.table.sweep(searcher.episode(best), [0.0, 0.0, 0.9])
    assert searcher.ask()[0].genotype == best


@pytest.mark.parametrize("shaped", [False, True])
def test_the_values_along_an_episode(shaped: bool) -> None:
    """With alpha = 1 every action is worth the whole reward, or what is left of it where each gets a third."""
    searcher = QLearning(Bits(), [(1.0, 1)], alpha=1.0, start=0.0, replays=1, shaped=shaped)
    (trial,) = searcher.ask()
    searcher.tell([Result(trial, 90.0)])
    values = [searcher.table.value(step.state, step.action) for step in searcher.episode(trial.genotype)]
    assert values == pytest.approx([0.9, 0.6, 0.3] if shaped else [0.9] * 3)


def test_it_finds_good_strings() -> None:
    """Strings of ten bits, none twice: the score is the share of ones, 50 by chance; its mean over 60 deviates by 2."""
    searcher, scores = QLearning(Counted(10), [(1.0, 60), (0.1, 90)], alpha=0.1, start=0.0), list[float]()
    for _ in range(150):
        (trial,) = searcher.ask()
        scores.append(100 * sum(k for (k,) in trial.genotype.picks.values()) / 10)
        searcher.tell([Result(trial, scores[-1])])
    assert sum(scores[:60]) / 60 < 55 < 60 < sum(scores[-60:]) / 60


def test_the_corrected_reward_of_blockqnn() -> None:
    space = BlockQNNSpace(4)
    searcher = BlockQNN(space)
    genotype = space.parse("conv_3:0 conv_5:0 add:1,2 terminal")
    trial = Trial(0, genotype)
    plain = 80.0 - 8 * math.log(4 / 3)
    assert searcher.reward(Result(trial, 80.0)) == pytest.approx(plain / 100)
    with_flops = Result(trial, 80.0, metrics={"flops": 50.0})
    assert searcher.reward(with_flops) == pytest.approx((plain - math.log(50.0)) / 100)


def score(trial: Trial) -> float:
    return float(sum(k for kept in trial.genotype.picks.values() for k in kept) % 101)


@every
def test_nothing_illegal_is_proposed(search: str) -> None:
    searcher = SEARCHES[search](seed=1)
    for _ in range(60):
        trials = searcher.ask(2)
        assert all(searcher.space.check(trial.genotype) is trial.genotype for trial in trials)
        searcher.tell([Result(trials[0], score(trials[0])), Result.failed(trials[1], "no")])
    assert searcher.failures == 60
    assert min(float(trial.note["epsilon"]) for trial in trials) == 0.1


@every
def test_a_loaded_searcher_goes_on_in_the_same_way(search: str) -> None:
    one, other = SEARCHES[search](seed=2), SEARCHES[search](seed=3)
    for _ in range(18):
        (trial,) = one.ask()
        one.tell([Result(trial, score(trial))])
    waiting = one.ask(3)
    one.tell([Result.failed(waiting[0], "out of memory")])
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert proposals(one, score) == proposals(other, score)


def test_any_sequential_space_will_do() -> None:
    searcher = BlockQNN(NASNetSpace(1), batch=1)
    for _ in range(5):
        (trial,) = searcher.ask()
        searcher.tell([Result(trial, score(trial))])
    assert len(searcher.table.values) >= 10


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QTable(alpha=0.0), "alpha=0"),
        (lambda: QTable(gamma=2.0), "gamma=2"),
        (lambda: EpsilonSchedule([]), "schedule"),
        (lambda: EpsilonSchedule([(2.0, 3)]), "schedule"),
        (lambda: QLearning(Bits(), [(1.0, 1)], replays=0), "replays=0"),
        (lambda: QLearning("nasbench201", [(1.0, 1)]), "'nasbench201' is not sequential"),
        (lambda: BlockQNN(mu=-1.0), "mu=-1"),
    ],
)
def test_what_is_wrong_is_said(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
