"""What every searcher promises. A new one is covered by a line in `SEARCHERS`."""

from __future__ import annotations

import inspect
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import quiet_trainer

from lightning_nas.arch import Genotype
from lightning_nas.methods import QuerySearch
from lightning_nas.query import Evaluator, History, Oracle, Result, Searcher, Trial, searchers
from lightning_nas.query.encoders import AdjacencyEncoder
from lightning_nas.query.predictors import NearestNeighbor
from lightning_nas.query.searchers import (
    ASHA,
    BANANAS,
    BOHB,
    BRPNAS,
    CGP,
    NAO,
    NASBOT,
    NASBOWL,
    NASRL,
    NSGA2,
    PNAS,
    Arch2VecBO,
    BlockQNN,
    CurveExtrapolation,
    GATESSearch,
    GeneticCNN,
    HierarchicalEvolution,
    Hyperband,
    LocalSearch,
    MetaQNN,
    NASNetPPO,
    NeuralPredictorSearch,
    PredictorSearch,
    QLearning,
    RandomSearch,
    RankNOSH,
    RegularizedEvolution,
    Reinforce,
    SemiNAS,
    SuccessiveHalving,
    TournamentEvolution,
)
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.blockqnn import BlockQNNSpace
from lightning_nas.spaces.cgp import CGPSpace
from lightning_nas.spaces.nas_rl import NASRLSpace

CELL = get_space("nasbench201")
STAGES = ((1.0, 8), (0.3, 1000))

SIMPLE: dict[str, Any] = {"encoder": AdjacencyEncoder(CELL), "predictor": NearestNeighbor()}

SEARCHERS: dict[str, Callable[[int], Searcher]] = {
    "RandomSearch": lambda seed: RandomSearch(CELL, seed=seed),
    "RandomSearch, unique": lambda seed: RandomSearch(CELL, 3.0, unique=True, seed=seed),
    "RegularizedEvolution": lambda seed: RegularizedEvolution(CELL, 5, 2, seed=seed),
    "RegularizedEvolution, darts": lambda seed: RegularizedEvolution("darts", 5, 0.5, dies="worst", seed=seed),
    "TournamentEvolution": lambda seed: TournamentEvolution(CELL, 5, budget=2.0, seed=seed),
    "TournamentEvolution, from scratch": lambda seed: TournamentEvolution(CELL, 5, inherit=False, seed=seed),
    "LocalSearch": lambda seed: LocalSearch(CELL, seed=seed),
    "LocalSearch, first": lambda seed: LocalSearch(CELL, 3, first=True, seed=seed),
    "GeneticCNN": lambda seed: GeneticCNN(population=6, seed=seed),
    "HierarchicalEvolution": lambda seed: HierarchicalEvolution(population=5, mutations=20, seed=seed),
    "CGP": lambda seed: CGP(CGPSpace(3, 6, 2), seed=seed),
    "NSGA2": lambda seed: NSGA2(CELL, population=6, seed=seed),
    "Reinforce": lambda seed: Reinforce(CELL, lr=0.2, seed=seed),
    "Reinforce, sgd on darts": lambda seed: Reinforce("darts", lr=0.2, optimizer="sgd", entropy=0.1, seed=seed),
    "NASNetPPO": lambda seed: NASNetPPO(CELL, lr=0.05, batch=4, size=8, seed=seed),
    "NASRL": lambda seed: NASRL(NASRLSpace(4, 2), lr=0.05, batch=4, size=8, grow_every=9, seed=seed),
    "NASRL, nasbench201": lambda seed: NASRL(CELL, lr=0.05, batch=4, size=8, seed=seed),
    "QLearning": lambda seed: QLearning(BlockQNNSpace(4), STAGES, alpha=0.3, replays=8, batch=3, seed=seed),
    "MetaQNN": lambda seed: MetaQNN(schedule=STAGES, alpha=0.3, replays=8, seed=seed),
    "BlockQNN": lambda seed: BlockQNN(schedule=STAGES, alpha=0.3, replays=8, batch=4, seed=seed),
    "SuccessiveHalving": lambda seed: SuccessiveHalving(CELL, 9, 1, 9, seed=seed),
    "ASHA": lambda seed: ASHA(CELL, 1, 9, seed=seed),
    "Hyperband": lambda seed: Hyperband(CELL, 1, 9, seed=seed),
    "BOHB": lambda seed: BOHB(CELL, 1, 9, samples=8, random_fraction=0.1, seed=seed),
    "BOHB, darts": lambda seed: BOHB("darts", 1, 3, samples=8, random_fraction=0.1, seed=seed),
    "PredictorSearch": lambda seed: PredictorSearch(AdjacencyEncoder(CELL), NearestNeighbor(), batch=7, seed=seed),
    "BANANAS": lambda seed: BANANAS(CELL, mutants=20, members=2, passes=3, batch=15, seed=seed),
    "NASBOT": lambda seed: NASBOT(CELL, pool=20, steps=2, batch=20, seed=seed),
    "NASBOWL": lambda seed: NASBOWL(CELL, pool=30, steps=2, batch=20, seed=seed),
    "NeuralPredictorSearch": lambda seed: NeuralPredictorSearch("darts", 10, 15, width=8, passes=3, pool=30, seed=seed),
    "BRPNAS": lambda seed: BRPNAS("darts", 10, 15, width=8, passes=3, pool=30, seed=seed),
    "GATESSearch": lambda seed: GATESSearch("darts", 10, 15, 8, (8,), passes=2, pool=30, seed=seed),
    "NAO": lambda seed: NAO(CELL, 10, 15, seeds=5, steps=3, pool=20, passes=2, hidden=8, embedding=8, seed=seed),
    "SemiNAS": lambda seed: SemiNAS(CELL, 10, 15, 5, 3, 20, 2, 2, 1, 8, seed=seed),
    "Arch2VecBO": lambda seed: Arch2VecBO("darts", 30, 1, pool=30, passes=2, batch=15, seed=seed),
    "PNAS": lambda seed: PNAS("darts", beam=8, first=10, surrogate=NearestNeighbor(), seed=seed),
    "RankNOSH": lambda seed: RankNOSH(CELL, (1, 3, 9), initial=10, batch=10, pool=300, **SIMPLE, seed=seed),
    "RankNOSH, level 0": lambda seed: RankNOSH(CELL, (0, 1, 9), initial=10, batch=10, pool=300, **SIMPLE, seed=seed),
    "CurveExtrapolation": lambda seed: CurveExtrapolation(RandomSearch(CELL, seed=seed), 6, 2, warmup=2),
    "CurveExtrapolation, Hyperband": lambda seed: CurveExtrapolation(Hyperband(CELL, 1, 9, seed=seed), 9, 3, warmup=2),
}

every = pytest.mark.parametrize("make", SEARCHERS.values(), ids=SEARCHERS)
in_flights = pytest.mark.parametrize("in_flight", [1, 5])
Fails = Callable[[Trial], bool]


class Hashed(Oracle):
    """A score that depends on genotype and budget and looks random; notes what it is asked."""

    def __init__(self, space: Space, fails: Fails = lambda _: False) -> None:
        self.space, self.fails = space, fails
        self.told: list[Result] = []

    def __call__(self, trial: Trial) -> Result:
        result = Result.failed(trial, "broken") if self.fails(trial) else self._scored(trial)
        self.told.append(result)
        return result

    def _scored(self, trial: Trial) -> Result:
        draw = zlib.crc32(self.space.format(trial.genotype).encode())
        epochs = 12.0 if trial.budget is None else trial.budget
        score = 50.0 + draw % 37 + min(epochs, 12.0) / 4
        metrics = {"params_m": draw // 37 % 11 / 10, "flops": 1e6 + draw % 1000}
        return Result(trial, score, 2.0, epochs - trial.trained, metrics=metrics)


def course(searcher: Searcher, oracle: Hashed, trials: int, in_flight: int = 1) -> list[Trial]:
    """The next `trials` that are asked; results are told in another order than their trials were asked in."""
    asked: list[Trial] = []
    while len(asked) < trials:
        while len(searcher.pending) < in_flight and len(asked) < trials and (new := searcher.ask()):
            asked += new
        assert searcher.pending, "nothing is pending and nothing is proposed"
        end = min if len(searcher.pending) % 2 else max
        searcher.tell([oracle(searcher.pending[end(searcher.pending)])])
    return asked


def plain(trials: list[Trial], space: Space) -> list[dict[str, Any]]:
    """All of each trial, its note included."""
    return [trial.to_plain(space) for trial in trials]


def test_no_searcher_is_forgotten() -> None:
    exported = {value for name in searchers.__all__ if inspect.isclass(value := getattr(searchers, name))}
    ours = {kind for kind in exported if issubclass(kind, Searcher) and not inspect.isabstract(kind)}
    assert {type(make(0)) for make in SEARCHERS.values()} == ours
    assert ours  # and the comparison is not one of nothing with nothing


@in_flights
@every
def test_proposals_are_valid_and_numbered_and_there_is_always_one(
    make: Callable[[int], Searcher], in_flight: int
) -> None:
    searcher = make(0)
    trials = course(searcher, Hashed(searcher.space), 60, in_flight)
    assert [trial.number for trial in trials] == list(range(60))
    assert searcher.asked == 60
    for trial in trials:
        assert searcher.space.check(trial.genotype) == trial.genotype
        assert trial.budget is None or trial.budget >= 0
        assert all(isinstance(value, str | int | float) for value in trial.note.values())


@in_flights
@every
def test_the_seed_decides(make: Callable[[int], Searcher], in_flight: int) -> None:
    found = []
    for seed in (1, 1, 2):
        searcher = make(seed)
        found.append(plain(course(searcher, Hashed(searcher.space), 30, in_flight), searcher.space))
    assert found[0] == found[1]
    assert [trial["genotype"] for trial in found[0]] != [trial["genotype"] for trial in found[2]]


@pytest.mark.parametrize("before", [0, 2, 11, 31])
@every
def test_a_loaded_searcher_goes_on_as_the_one_that_was_saved(make: Callable[[int], Searcher], before: int) -> None:
    """The state is a copy, needs nothing from the seed of the searcher that takes it, and has the pending trials."""
    searcher, other = make(3), make(4)
    oracle = Hashed(searcher.space, lambda trial: trial.number % 7 == 6)
    course(searcher, oracle, before, in_flight=3)
    searcher.ask(2)
    assert searcher.pending
    state = searcher.state_dict()
    pending, failures, best = dict(searcher.pending), searcher.failures, searcher.best
    expected = plain(course(searcher, oracle, 15, in_flight=3), searcher.space)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert (other.pending, other.failures, other.best) == (pending, failures, best)
    assert plain(course(other, oracle, 15, in_flight=3), other.space) == expected


@pytest.mark.parametrize("which", ["every third", "the first ten", "all"])
@in_flights
@every
def test_failed_trials_neither_block_nor_are_forgotten(
    make: Callable[[int], Searcher], in_flight: int, which: str
) -> None:
    fails: dict[str, Fails] = {
        "every third": lambda trial: trial.number % 3 == 0,
        "the first ten": lambda trial: trial.number < 10,
        "all": lambda _: True,
    }
    searcher = make(0)
    oracle = Hashed(searcher.space, fails[which])
    course(searcher, oracle, 45, in_flight)
    bad = [result for result in oracle.told if not result.ok]
    assert searcher.failures == len(bad) >= 10
    assert (searcher.best is None) == (which == "all")
    again = make(1)
    again.load_state_dict(searcher.state_dict())
    assert again.failures == len(bad)


def _or_all(budget: float | None) -> float:
    return float("inf") if budget is None else budget


@every
def test_the_best_is_the_best_at_the_largest_budget(make: Callable[[int], Searcher]) -> None:
    searcher = make(0)
    oracle = Hashed(searcher.space, lambda trial: trial.number % 5 == 2)
    told = oracle.told
    for trials in (4, 20, 30):
        course(searcher, oracle, trials)
        good = [result for result in told if result.ok]
        if isinstance(searcher, TournamentEvolution):  # children train for longer than parents: its budgets never end
            expected = max(good, key=lambda result: result.score)
        else:
            expected = max(good, key=lambda result: (_or_all(result.trial.budget), result.score))
        assert searcher.best == expected
        assert searcher.genotype() == expected.trial.genotype


@every
def test_each_result_is_told_once(make: Callable[[int], Searcher]) -> None:
    searcher = make(0)
    oracle = Hashed(searcher.space)
    first, second = searcher.ask()[0], make(1).ask()[0]
    assert first.genotype != second.genotype
    with pytest.raises(ValueError, match="trial 0 is not pending"):
        searcher.tell([oracle(second)])  # the number is that of a pending trial, the rest is not
    searcher.tell([oracle(first)])
    with pytest.raises(ValueError, match="trial 0 is not pending"):
        searcher.tell([oracle(first)])
    with pytest.raises(ValueError, match="trial 99 is not pending"):
        searcher.tell([Result(Trial(99, first.genotype), 1.0)])


@in_flights
@every
def test_what_is_continued_was_told_and_is_the_same_architecture(
    make: Callable[[int], Searcher], in_flight: int
) -> None:
    searcher = make(0)
    oracle = Hashed(searcher.space, lambda trial: trial.number % 6 == 5)
    continued: list[int] = []
    for _ in range(80):
        known = {result.trial.number: result for result in oracle.told}
        for trial in searcher.ask() if len(searcher.pending) < in_flight else ():
            if trial.continues is None:
                continue
            before = known[trial.continues]  # told, and so of an earlier trial
            continued.append(trial.continues)
            assert before.ok
            inherits = isinstance(searcher, TournamentEvolution)
            assert inherits or before.trial.genotype == trial.genotype
            assert before.trial.budget is not None
            assert trial.budget is not None
            assert trial.budget > before.trial.budget
        searcher.tell([oracle(searcher.pending[min(searcher.pending)])])
    multi_fidelity = isinstance(searcher, SuccessiveHalving | ASHA | Hyperband | CurveExtrapolation | RankNOSH)
    inheriting = isinstance(searcher, TournamentEvolution) and searcher.inherit
    assert bool(continued) == (multi_fidelity or inheriting)


@every
def test_its_description_is_plain_and_stays_as_it_searches(make: Callable[[int], Searcher]) -> None:
    searcher = make(3)
    before = json.loads(json.dumps(searcher.describe()))
    course(searcher, Hashed(searcher.space), 20, 3)
    assert json.loads(json.dumps(searcher.describe())) == before
    assert before["class"] == type(searcher).__name__


@every
def test_a_history_gives_the_same_trials_again(make: Callable[[int], Searcher], tmp_path: Path) -> None:
    runs, path = [], tmp_path / "history.sqlite"
    for steps in (14, 20):
        searcher = make(5)
        oracle = Hashed(searcher.space, lambda trial: trial.number == 3)
        evaluator = Evaluator(oracle, History(searcher.space, path), in_flight=2)
        found = [result for _ in range(steps) if (result := evaluator.step(searcher)) is not None]
        evaluator.close()
        assert len(found) == steps
        runs.append((plain([result.trial for result in found], searcher.space), found, searcher, oracle))
    (before, first, _, _), (after, second, searcher, oracle) = runs
    assert after[:14] == before
    assert [repr(result.to_plain(searcher.space)) for result in second[:14]] == [
        repr(result.to_plain(searcher.space)) for result in first
    ]  # as text, since NaN, the score of trial 3, is not equal to itself
    assert [result.trial.number for result in oracle.told] == list(range(14, 20))
    whole = make(5)
    asked = Evaluator(Hashed(whole.space, lambda trial: trial.number == 3), in_flight=2)
    again = [result.trial for _ in range(20) if (result := asked.step(whole)) is not None]
    assert plain(again, whole.space) == after
    assert whole.best == searcher.best


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@every
def test_a_trainer_runs_stops_and_resumes_it(make: Callable[[int], Searcher], tmp_path: Path) -> None:
    def search() -> QuerySearch:
        searcher = make(7)
        return QuerySearch(searcher, Hashed(searcher.space, lambda trial: trial.number == 1), trials=9, in_flight=2)

    def genotypes(module: QuerySearch) -> list[Genotype]:
        return [result.trial.genotype for result in module.evaluator.history]

    whole, begun, resumed = search(), search(), search()
    keep = ModelCheckpoint(tmp_path, "search", every_n_train_steps=4)
    stopped = quiet_trainer(max_epochs=1, max_steps=4, enable_checkpointing=True, callbacks=[keep])
    fits = [quiet_trainer(max_epochs=1), stopped, quiet_trainer(max_epochs=1)]
    fits[0].fit(whole)
    fits[1].fit(begun)
    fits[2].fit(resumed, ckpt_path=tmp_path / "search.ckpt", weights_only=True)
    assert [fit.global_step for fit in fits] == [9, 4, 9]
    assert len(genotypes(whole)) == 9
    assert genotypes(begun) == genotypes(whole)[:4]
    assert genotypes(resumed) == genotypes(whole)
    assert whole.searcher.failures == resumed.searcher.failures == 1
    assert resumed.searcher.best == whole.searcher.best
    assert whole.genotype() == whole.searcher.genotype()
