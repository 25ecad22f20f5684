"""NSGA-II: sorting against brute force, crowding by hand, and the front of a known problem."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from lightning_nas.query import Result
from lightning_nas.query.searchers.nsga import NSGA2, crowding_distance, non_dominated_sort
from lightning_nas.spaces import get_space


def dominates(a: list[float], b: list[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def brute_force(points: list[list[float]]) -> list[list[int]]:
    left, fronts = set(range(len(points))), []
    while left:
        front = [k for k in sorted(left) if not any(dominates(points[j], points[k]) for j in left)]
        fronts.append(front)
        left -= set(front)
    return fronts


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_fronts_are_those_of_brute_force(objectives: int, seed: int) -> None:
    rng = random.Random(seed)
    points = [[float(rng.randrange(8)) for _ in range(objectives)] for _ in range(50)]  # many ties and duplicates
    assert non_dominated_sort(points) == brute_force(points)


def test_crowding_is_the_half_perimeter_of_the_box() -> None:
    points = [[0.0, 10.0], [2.0, 6.0], [3.0, 5.0], [10.0, 0.0]]
    expected = [math.inf, 3 / 10 + 5 / 10, 8 / 10 + 6 / 10, math.inf]
    np.testing.assert_allclose(crowding_distance(points), expected)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(crowding_distance([points[k] for k in order]), [expected[k] for k in order])
    assert crowding_distance([[1.0, 1.0]] * 3).tolist() == [math.inf, 0.0, math.inf]


def search(searcher: NSGA2, evaluations: int) -> list[Result]:
    """Score: convolutions, the later edges count more; cost: how many there are."""
    results = []
    for _ in range(evaluations):
        (trial,) = searcher.ask()
        chosen = [row for row, (choice,) in enumerate(trial.genotype.picks.values()) if choice == 3]
        results.append(Result(trial, float(sum(2**row for row in chosen)), metrics={"params_m": float(len(chosen))}))
        searcher.tell(results[-1:])
    return results


def test_the_front_of_the_history_is_that_of_brute_force() -> None:
    rng, searcher = random.Random(0), NSGA2(population=10, seed=4)
    told: list[Result] = []
    for _ in range(150):
        (trial,) = searcher.ask()
        told.append(Result(trial, float(rng.randrange(30)), metrics={"params_m": float(rng.randrange(30))}))
        searcher.tell(told[-1:])
    points = [[result.metrics["params_m"], -result.score] for result in told]
    expected = {tuple(points[k]) for k in brute_force(points)[0]}
    front = searcher.front()
    assert {(result.metrics["params_m"], -result.score) for result in front} == expected
    assert len(front) == len(expected)
    assert [result.metrics["params_m"] for result in front] == sorted(cost for cost, _ in expected)


def test_it_finds_the_whole_front_of_a_known_problem() -> None:
    searcher = NSGA2(population=20, mutate="nasbench201", seed=0)
    search(searcher, 1200)
    best = {cost: sum(2.0**row for row in range(6 - cost, 6)) for cost in range(7)}
    assert {int(result.metrics["params_m"]): result.score for result in searcher.front()} == best


def test_survivors_are_the_best_fronts_of_parents_and_children() -> None:
    searcher = NSGA2(population=8, seed=2)
    before = search(searcher, 16)
    (_,) = searcher.ask()
    points = [[result.metrics["params_m"], -result.score] for result in before]
    fronts = brute_force(points)
    kept = {result.trial.number for result in searcher.population}
    assert len(kept) == 8
    full = [number for front in fronts for number in front]
    for front in fronts:
        if full.index(front[-1]) < 8:
            assert set(front) <= kept
        elif full.index(front[0]) >= 8:
            assert not set(front) & kept


def test_no_child_stands_in_its_population_already() -> None:
    searcher = NSGA2(population=10, seed=0)
    results = search(searcher, 10)
    for _ in range(6):
        children = search(searcher, 10)
        there = {result.trial.genotype for result in searcher.population}
        new = [result.trial.genotype for result in children]
        assert len(set(new)) == 10
        assert not set(new) & there
        results += children
    assert len(results) == 70


@pytest.mark.parametrize("space", ["darts", "enas_macro", "nasbench1shot1_1", "fbnet"])
def test_it_works_in_other_spaces(space: str) -> None:
    searcher, rng = NSGA2(space, population=6, seed=0), random.Random(0)
    for _ in range(30):
        (trial,) = searcher.ask()
        get_space(space).check(trial.genotype)
        searcher.tell([Result(trial, rng.random(), metrics={"params_m": rng.random()})])


def test_a_cost_that_is_not_there_is_a_failure() -> None:
    searcher = NSGA2(cost="latency_ms")
    for metrics in ({"params_m": 1.0}, {"latency_ms": float("nan")}):
        (trial,) = searcher.ask()
        searcher.tell([Result(trial, 1.0, metrics=metrics)])
    assert (searcher.failures, searcher.best, searcher.front()) == (2, None, [])
    assert "no such metric, only ['params_m']" in str(searcher.objection(Result(trial, 1.0, metrics={"params_m": 1.0})))


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"population": 0}, {"crossing": 1.5}, {"mutating": -0.1}, {"generations": -1}):
        with pytest.raises(ValueError):
            NSGA2(**wrong)  # type: ignore[arg-type]


def test_generations_end() -> None:
    searcher = NSGA2(population=5, generations=2)
    assert len(search(searcher, 15)) == 15
    assert searcher.ask() == []
