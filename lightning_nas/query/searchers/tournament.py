"""Evolution by tournaments of two, in which the worse one dies."""

from __future__ import annotations

from typing import Any

from lightning_nas.query.mutations import Mutation, get_mutation
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["TournamentEvolution"]


class TournamentEvolution(Searcher):
    """Large-scale evolution: of two individuals the worse dies, and the better one has a mutated child.

    The first `population` trials are random. Two individuals are drawn for each later trial; the worse one leaves at
    once, so the population is short by the children under way, and the child takes its place when its result is told.
    The place of a trial that fails is filled by a child for which nobody dies.

    Where weights are inherited, a child continues the training of its parent: what fits of the parent's weights is
    where its own training starts, and its trial's budget is that of the parent and `budget` more. As children train
    for longer than their parents, the best individual is the one with the best score, whatever its budget.

    Reference: Real, Moore, Selle, Saxena, Suematsu, Tan, Le and Kurakin, "Large-Scale Evolution of Image Classifiers",
    ICML 2017.

    Args:
        space: Name of a search space, or a space.
        population: Individuals; 1,000 as published.
        mutate: How a child comes from its parent, see `RegularizedEvolution`.
        inherit: Whether a child goes on from its parent's weights.
        budget: Epochs that each individual is trained itself; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If the population is less than two, or the name of the mutation unknown.

    Example:
        >>> searcher = TournamentEvolution("nasbench201", population=2, budget=3)
        >>> searcher.tell([Result(trial, score=trial.number) for trial in searcher.ask(2)])
        >>> child = searcher.ask()[0]
        >>> child.continues, child.budget, len(searcher.population)
        (1, 6, 1)
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        population: int = 1000,
        mutate: str | Mutation = "one",
        inherit: bool = True,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if population < 2:
            raise ValueError(f"population={population}: two are drawn for a tournament; give at least 2")
        self.size, self.mutate, self.inherit, self.budget = population, get_mutation(mutate), inherit, budget
        self.population: list[Result] = []

    def propose(self) -> Trial | None:
        """A random genotype while the population is being founded, then a child of the better of two."""
        if self.asked < self.size or not (self.population or self.pending):
            return self.trial(self.space.sample(self.rng), self.budget)
        if len(self.population) < 2 and self.pending:
            return None  # nobody is left to be drawn
        parent = self._tournament()
        child = self.mutate(self.space, parent.trial.genotype, self.rng)
        if not self.inherit:
            return self.trial(child, self.budget, parent=parent.trial.number)
        budget = None if self.budget is None else (parent.trial.budget or 0.0) + self.budget
        return self.trial(child, budget, parent.trial.number, parent=parent.trial.number)

    def _tournament(self) -> Result:
        """The better of two; the worse dies unless there is room for a child without that."""
        drawn = self.rng.sample(range(len(self.population)), min(2, len(self.population)))
        better = self.population[max(drawn, key=lambda index: self.population[index].score)]
        if len(drawn) == 2 and len(self.population) + len(self.pending) >= self.size:
            worse = min(drawn, key=lambda index: self.population[index].score)
            if self.population[worse] is better:  # equal scores
                worse = next(index for index in drawn if self.population[index] is not better)
            self.population[worse] = self.population[-1]
            self.population.pop()
        return better

    def observe(self, result: Result) -> None:
        """The newcomer joins."""
        self.population.append(result)

    def worth(self, result: Result) -> tuple[float, ...]:
        """The best score wins at any budget, as budgets grow with the generations."""
        return (result.score,)

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {"population": [individual.to_plain(self.space) for individual in self.population]}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.population = [Result.from_plain(plain, self.space) for plain in state["population"]]
