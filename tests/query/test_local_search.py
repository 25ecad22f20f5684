"""Local search: every climb ends in a local optimum, and nothing is asked twice."""

from __future__ import annotations

import random

import pytest

from lightning_nas.arch import Genotype
from lightning_nas.query import Result, Trial
from lightning_nas.query.searchers.local_search import LocalSearch
from lightning_nas.spaces.genetic_cnn import GeneticCNNSpace

SPACE = GeneticCNNSpace((3, 3))  # 64 genotypes
LANDSCAPE = {code: random.Random(5).sample(range(64), 64)[code] for code in range(64)}


def value(genotype: Genotype) -> float:
    bits = "".join(character for character in SPACE.format(genotype) if character in "01")
    return float(LANDSCAPE[int(bits, 2)])


def climb(searcher: LocalSearch, steps: int) -> list[Trial]:
    trials = []
    for _ in range(steps):
        trials += searcher.ask()
        searcher.tell([Result(trials[-1], value(trials[-1].genotype))])
    return trials


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_climb_ends_in_a_local_optimum(first: bool, seed: int) -> None:
    searcher = LocalSearch(SPACE, first=first, seed=seed)
    trials: list[Trial] = []
    while searcher.climbs == 1:
        trials += climb(searcher, 1)
    best = max((trial.genotype for trial in trials), key=value)
    assert all(value(neighbor) < value(best) for neighbor in SPACE.neighbors(best))
    assert len({trial.genotype for trial in trials}) == len(trials)


def test_the_best_neighbor_is_the_next_step() -> None:
    searcher = LocalSearch(SPACE, seed=2)
    (start,) = climb(searcher, 1)
    here = start.genotype
    while searcher.climbs == 1 and searcher.here is not None:
        assert searcher.here == here
        known = set(searcher.known)
        asked = climb(searcher, len(set(SPACE.neighbors(here)) - known))
        assert {trial.genotype for trial in asked} == set(SPACE.neighbors(here)) - known
        here = max(SPACE.neighbors(here), key=value)
    assert searcher.climbs == 2


def test_the_order_of_the_neighbors_is_random() -> None:
    orders = set()
    for seed in range(6):
        searcher = LocalSearch(SPACE, seed=seed)
        (start,) = climb(searcher, 1)
        neighbors = list(SPACE.neighbors(start.genotype))
        orders.add(tuple(neighbors.index(trial.genotype) for trial in searcher.ask(6)))
    assert len(orders) == 6


def test_climbs_begin_at_the_best_of_several() -> None:
    searcher = LocalSearch(SPACE, initial=5, seed=0)
    starts = climb(searcher, 5)
    assert searcher.here == max((trial.genotype for trial in starts), key=value)
    with pytest.raises(ValueError, match="initial=0"):
        LocalSearch(SPACE, initial=0)


def test_the_whole_space_is_seen_in_the_end() -> None:
    searcher = LocalSearch(SPACE, seed=1)
    climb(searcher, 150)
    assert len(searcher.known) == 64
    assert searcher.best is not None
    assert searcher.best.score == 63.0


def test_results_of_an_old_round_are_known_and_not_asked_again() -> None:
    searcher = LocalSearch(SPACE, first=True, seed=0)
    climb(searcher, 1)
    while True:
        trials = searcher.ask(3)
        better = [trial for trial in trials if value(trial.genotype) > searcher.score]
        if better and len(trials) == 3:
            break
        searcher.tell([Result(trial, value(trial.genotype)) for trial in trials])
    searcher.tell([Result(better[0], value(better[0].genotype))])
    assert searcher.here == better[0].genotype
    late = [trial for trial in trials if trial != better[0]]
    searcher.tell([Result(trial, value(trial.genotype)) for trial in late])
    assert {trial.genotype for trial in late} <= set(searcher.known)
    assert not {trial.genotype for trial in late} & set(searcher.left)
