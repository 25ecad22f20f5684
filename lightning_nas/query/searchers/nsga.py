"""Evolution with two objectives: accuracy and a cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_nas.arch import Genotype
from lightning_nas.query.mutations import Mutation, crossover, get_mutation
from lightning_nas.query.searchers.generational import Generational
from lightning_nas.query.trial import Result
from lightning_nas.spaces import Space

__all__ = ["NSGA2", "crowding_distance", "non_dominated_sort"]

Array = npt.NDArray[np.float64]


def non_dominated_sort(points: npt.ArrayLike) -> list[list[int]]:
    """Fronts of points, whose coordinates are all to be small: no point of a front dominates another of it.

    A point dominates another if it is nowhere larger and somewhere smaller. Each front is what is not dominated when
    those before it are taken away.

    Args:
        points: Array ``(n, objectives)``.

    Returns:
        Indices of the points of each front, the best front first, in rising order.

    Reference:
        Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
        Transactions on Evolutionary Computation 2002.

    Example:
        >>> non_dominated_sort([[1, 3], [2, 2], [3, 3], [3, 1]])
        [[0, 1, 3], [2]]
    """
    values = np.asarray(points, dtype=np.float64)
    nowhere_larger = np.all(values[:, None] <= values[None], axis=2)
    dominates: npt.NDArray[np.bool_] = nowhere_larger & np.any(values[:, None] < values[None], axis=2)
    above = dominates.sum(axis=0)
    fronts: list[list[int]] = []
    left = np.ones(len(values), dtype=bool)
    while left.any():
        front = left & (above == 0)
        fronts.append(np.flatnonzero(front).tolist())
        above = above - dominates[front].sum(axis=0)
        left &= ~front
    return fronts


def crowding_distance(points: npt.ArrayLike) -> Array:
    """How much room each point of a front has: the sides of the box up to its neighbors, added up.

    Each objective is divided by its range over the front. The ends of the front have infinite room.

    Args:
        points: Array ``(n, objectives)``.

    Returns:
        Array ``(n,)``.

    Example:
        >>> crowding_distance([[0, 4], [1, 1], [4, 0]]).tolist()
        [inf, 2.0, inf]
    """
    values = np.asarray(points, dtype=np.float64)
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        extent = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if extent > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
    return distance


class NSGA2(Generational):
    """Evolution of a front: a high score at a low cost, no architecture of it better in both than another.

    The parents of a child win tournaments of two: the better front wins, then the one with more room in its front. The
    child takes each decision from either parent with probability `crossing`, and is mutated with probability
    `mutating`; a child that stands in the population already, or that cannot be mended, is mutated again. The next
    population are the best of parents and children. The cost is one of the result's metrics.

    Reference: Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
    Transactions on Evolutionary Computation 2002; Lu, Whalen, Boddeti, Dhebar, Deb, Goodman and Banzhaf, "NSGA-Net:
    Neural Architecture Search using Multi-Objective Genetic Algorithm", GECCO 2019.

    Args:
        space: Name of a search space, or a space.
        cost: Name of the metric that is to be small, for example ``"params_m"``.
        population: Parents, and children of a generation.
        crossing: Probability that a child has two parents.
        mutating: Probability that it is mutated.
        mutate: How, see `RegularizedEvolution`.
        generations: Generations after the first; ``None`` for no end.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Attributes:
        population: The parents of the next generation.

    Raises:
        ValueError: If the population is not positive, a probability not in ``[0, 1]``, or a name unknown.

    Example:
        >>> searcher = NSGA2("nasbench201", cost="params_m", population=4)
        >>> for trial in searcher.ask(4):
        ...     searcher.tell([Result(trial, score=trial.number, metrics={"params_m": 7.0 - trial.number % 2})])
        >>> [result.trial.number for result in searcher.front()]
        [3]
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        cost: str = "params_m",
        population: int = 40,
        crossing: float = 0.9,
        mutating: float = 0.5,
        mutate: str | Mutation = "one",
        generations: int | None = None,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, generations, budget, seed)
        if population < 1 or not 0 <= crossing <= 1 or not 0 <= mutating <= 1:
            raise ValueError(
                f"population={population}, crossing={crossing}, mutating={mutating}: give at least 1 and two"
                " probabilities in [0, 1]"
            )
        self.cost, self.size, self.crossing, self.mutating = cost, population, crossing, mutating
        self.mutate = get_mutation(mutate)
        self.population: list[Result] = []
        self._front: list[Result] = []

    def front(self) -> list[Result]:
        """The results of the whole history that no other dominates, the cheapest first.

        Of results that are equal in both the first told stays.
        """
        return sorted(self._front, key=lambda result: result.metrics[self.cost])

    def _point(self, result: Result) -> tuple[float, float]:
        """What is to be small."""
        return result.metrics[self.cost], -result.score

    def objection(self, result: Result) -> str | None:
        """A result without the cost has no place among the others."""
        if self.cost not in result.metrics:
            return f"cost={self.cost!r}: the oracle's results have no such metric, only {sorted(result.metrics)}"
        value = result.metrics[self.cost]
        return None if math.isfinite(value) else f"cost={self.cost!r}: the metric is {value}"

    def observe(self, result: Result) -> None:
        """Keep the result, and bring the front up to date."""
        super().observe(result)
        cost, loss = self._point(result)
        points = [self._point(other) for other in self._front]
        if not any(a <= cost and b <= loss for a, b in points):
            beaten = [cost <= a and loss <= b for a, b in points]
            self._front = [other for other, out in zip(self._front, beaten, strict=True) if not out] + [result]

    def breed(self, told: list[Result]) -> list[Genotype]:
        """The survivors of parents and children become parents; their children."""
        pool = self.population + told
        if not pool:
            return [self.space.sample(self.rng) for _ in range(self.size)]
        ranked = self._ranked(pool)[: self.size]
        self.population = [pool[index] for index in ranked]
        children: list[Genotype] = []
        there = {result.trial.genotype for result in self.population}
        while len(children) < self.size:
            child = self._child()
            for _ in range(100):
                if child not in there:
                    break
                child = self.mutate(self.space, child, self.rng)
            there.add(child)
            children.append(child)
        return children

    def _ranked(self, pool: Sequence[Result]) -> list[int]:
        """Indices of the results, the best first: by front, then by room."""
        points = np.array([self._point(result) for result in pool])
        order: list[int] = []
        for front in non_dominated_sort(points):
            distance = crowding_distance(points[front])
            order += [front[k] for k in np.argsort(-distance, kind="stable")]
        return order

    def _parent(self) -> Genotype:
        """The winner of a tournament of two; the population stands in the order of its ranks."""
        rank = min(self.rng.randrange(len(self.population)) for _ in range(2))
        return self.population[rank].trial.genotype

    def _child(self) -> Genotype:
        parent = self._parent()
        child = crossover(self.space, parent, self._parent(), self.rng) if self.rng.random() < self.crossing else parent
        if child is None:
            return self.mutate(self.space, parent, self.rng)
        return self.mutate(self.space, child, self.rng) if self.rng.random() < self.mutating else child

    def state(self) -> dict[str, Any]:  # noqa: D102
        plain = {
            "population": [result.to_plain(self.space) for result in self.population],
            "front": [result.to_plain(self.space) for result in self._front],
        }
        return super().state() | plain

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self.population = [Result.from_plain(plain, self.space) for plain in state["population"]]
        self._front = [Result.from_plain(plain, self.space) for plain in state["front"]]
