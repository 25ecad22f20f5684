"""Every searcher whose space is that of NAS-Bench-201 searches with the weights of a supernet."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas.oracles import SupernetOracle
from lightning_nas.query import Evaluator, Result, Searcher, Trial, searchers
from lightning_nas.query.encoders import AdjacencyEncoder
from lightning_nas.query.predictors import NearestNeighbor
from lightning_nas.query.searchers import (
    ASHA,
    BANANAS,
    BOHB,
    BRPNAS,
    NAO,
    NASBOT,
    NASBOWL,
    NASRL,
    NSGA2,
    PNAS,
    Arch2VecBO,
    CurveExtrapolation,
    GATESSearch,
    Hyperband,
    LocalSearch,
    NASNetPPO,
    NeuralPredictorSearch,
    PredictorSearch,
    RandomSearch,
    RankNOSH,
    RegularizedEvolution,
    Reinforce,
    SemiNAS,
    SuccessiveHalving,
    TournamentEvolution,
)
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet

CELL = get_space("nasbench201")
TRIALS = 10
SIMPLE: dict[str, Any] = {"encoder": AdjacencyEncoder(CELL), "predictor": NearestNeighbor()}

SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "RandomSearch": lambda: RandomSearch(CELL),
    "RegularizedEvolution": lambda: RegularizedEvolution(CELL, 5, 2),
    "TournamentEvolution": lambda: TournamentEvolution(CELL, 5),
    "LocalSearch": lambda: LocalSearch(CELL, 3),
    "NSGA2": lambda: NSGA2(CELL, population=6, cost="conv"),
    "Reinforce": lambda: Reinforce(CELL),
    "NASNetPPO": lambda: NASNetPPO(CELL, batch=4, size=8),
    "NASRL": lambda: NASRL(CELL, batch=4, size=8),
    "SuccessiveHalving": lambda: SuccessiveHalving(CELL, 9, 1, 9),
    "ASHA": lambda: ASHA(CELL, 1, 9),
    "Hyperband": lambda: Hyperband(CELL, 1, 9),
    "BOHB": lambda: BOHB(CELL, 1, 9, samples=4),
    "PredictorSearch": lambda: PredictorSearch(AdjacencyEncoder(CELL), NearestNeighbor(), initial=5, batch=4),
    "BANANAS": lambda: BANANAS(CELL, initial=5, mutants=10, members=1, passes=2, batch=4),
    "NASBOT": lambda: NASBOT(CELL, initial=5, pool=10, steps=1, batch=4),
    "NASBOWL": lambda: NASBOWL(CELL, initial=5, pool=10, steps=1, batch=4),
    "NeuralPredictorSearch": lambda: NeuralPredictorSearch(CELL, 5, 4, width=8, passes=2, pool=20),
    "BRPNAS": lambda: BRPNAS(CELL, 5, 4, width=8, passes=2, pool=20),
    "GATESSearch": lambda: GATESSearch(CELL, 5, 4, 8, (8,), passes=2, pool=20),
    "NAO": lambda: NAO(CELL, 5, 4, seeds=3, steps=2, pool=10, passes=2, hidden=8, embedding=8),
    "SemiNAS": lambda: SemiNAS(CELL, 5, 4, 3, 2, 10, 2, 2, 1, 8),
    "Arch2VecBO": lambda: Arch2VecBO(CELL, 10, 1, pool=20, passes=2, batch=4),
    "PNAS": lambda: PNAS(CELL, beam=6, first=6, surrogate=NearestNeighbor()),
    "RankNOSH": lambda: RankNOSH(CELL, (1, 3, 9), initial=4, batch=4, pool=16, **SIMPLE),
    "CurveExtrapolation": lambda: CurveExtrapolation(RandomSearch(CELL), 6, 2, warmup=2),
}
ELSEWHERE = {"GeneticCNN", "HierarchicalEvolution", "CGP", "QLearning", "MetaQNN", "BlockQNN"}
"""Those with a space of their own, of which there is no supernet."""


class Noise(LightningDataModule):
    """Eight pictures of four classes."""

    num_classes, in_channels = 4, 1

    def val_dataloader(self) -> DataLoader[Any]:
        draw = torch.Generator().manual_seed(0)
        return DataLoader(TensorDataset(torch.randn(8, 1, 8, 8, generator=draw), torch.arange(8) % 4), 8)


class Counting(SupernetOracle):
    """A supernet that says what a cell costs too."""

    def __call__(self, trial: Trial) -> Result:
        result = super().__call__(trial)
        return replace(result, metrics={"conv": float(self.space.format(trial.genotype).count("conv"))})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small only wait for each other in several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def oracle() -> Counting:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Counting(CELL, Noise(), build_supernet(CELL, 4, 1, num_classes=4, in_channels=1))


def test_no_searcher_is_forgotten() -> None:
    exported = {name for name in searchers.__all__ if inspect.isclass(getattr(searchers, name))}
    ours = {name for name in exported if issubclass(getattr(searchers, name), Searcher)}
    assert {name for name in ours if not inspect.isabstract(getattr(searchers, name))} == set(SEARCHERS) | ELSEWHERE


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_searcher_on_a_supernet(name: str, oracle: Counting) -> None:
    searcher, evaluator = SEARCHERS[name](), Evaluator(oracle)
    results = [result for _ in range(TRIALS) if (result := evaluator.step(searcher)) is not None]
    assert [result.error for result in results] == [None] * TRIALS
    assert {result.source for result in results} == {"supernet"}
    top = max(result.trial.budget or 0 for result in results)
    full = [result.score for result in results if (result.trial.budget or 0) == top]
    assert searcher.best is not None
    if not isinstance(searcher, TournamentEvolution):  # whose children have larger budgets than their parents
        assert searcher.best.score == max(full)
    assert oracle(searcher.best.trial).score == searcher.best.score
