"""Evolution of a population by mutation and tournaments."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from lightning_nas.arch import Genotype
from lightning_nas.query.mutations import Mutation, get_mutation
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["RegularizedEvolution"]


class RegularizedEvolution(Searcher):
    """Aging evolution: the best of a sample has a child, and the oldest dies.

    The first `population` trials are random. Afterwards each trial is one mutation of the best of `sample` individuals;
    its result joins the population at the right end of a queue, and the individual at the left end leaves. The answer
    is the best of the whole history.

    Reference: Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search",
    AAAI 2019.

    Args:
        space: Name of a search space, or a space.
        population: Individuals in the queue.
        sample: Individuals of a tournament; a number below 1 is the share of the population.
        replace: Whether an individual may be drawn twice for one tournament, as published.
        dies: Whether the ``"oldest"`` leaves, the ``"worst"`` (not regularized), or ``"nobody"``.
        mutate: How a child comes from its parent: a name of `lightning_nas.query.mutations.MUTATIONS` (``"one"`` for
            the space's own mutation of one decision), or a function of space, genotype and source of randomness.
        initial: Function that draws the first individuals; ``None`` for the space's own `sample`.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If a number is not positive, a sample without replacement exceeds the population, or a name is
            unknown.

    Example:
        >>> searcher = RegularizedEvolution("nasbench201", population=10, sample=3, mutate="nasbench201")
        >>> for trial in searcher.ask(10):
        ...     searcher.tell([Result(trial, score=-trial.number)])
        >>> len(searcher.population), "parent" in searcher.ask()[0].note
        (10, True)
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        population: int = 100,
        sample: float = 25,
        replace: bool = True,
        dies: Literal["oldest", "worst", "nobody"] = "oldest",
        mutate: str | Mutation = "one",
        initial: Callable[[random.Random], Genotype] | None = None,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if population < 1 or sample <= 0 or (not replace and sample > population):
            raise ValueError(
                f"population={population}, sample={sample}: both must be positive, and a sample without replacement"
                " at most the population"
            )
        if sample >= 1 and sample != int(sample):
            raise ValueError(f"sample={sample}: give a whole number of individuals, or a share of them below 1")
        if dies not in ("oldest", "worst", "nobody"):
            raise ValueError(f"dies={dies!r}; give 'oldest', 'worst' or 'nobody'")
        self.size, self.sample, self.replace, self.dies, self.budget = population, sample, replace, dies, budget
        self.mutate, self.initial = get_mutation(mutate), self.space.sample if initial is None else initial
        self.population: deque[Result] = deque()

    def propose(self) -> Trial | None:
        """A random genotype while the population is being founded, then a child."""
        if self.asked < self.size:
            return self.trial(self.initial(self.rng), self.budget)
        if not self.population:
            if self.pending:
                return None  # the first individuals are still being trained
            return self.trial(self.initial(self.rng), self.budget)  # all of them failed
        parent = max(self._drawn(), key=lambda individual: individual.score)
        child = self.mutate(self.space, parent.trial.genotype, self.rng)
        return self.trial(child, self.budget, parent=parent.trial.number)

    def _drawn(self) -> list[Result]:
        """The individuals of a tournament."""
        alive = len(self.population)
        drawn = int(self.sample) if self.sample >= 1 else max(1, round(self.sample * alive))
        if self.replace:
            return self.rng.choices(self.population, k=drawn)
        return self.rng.sample(self.population, min(drawn, alive))

    def observe(self, result: Result) -> None:
        """The newcomer joins; one leaves if there are too many."""
        self.population.append(result)
        if len(self.population) > self.size:
            if self.dies == "oldest":
                self.population.popleft()
            elif self.dies == "worst":
                self.population.remove(min(self.population, key=lambda individual: individual.score))

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {"population": [individual.to_plain(self.space) for individual in self.population]}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.population = deque(Result.from_plain(plain, self.space) for plain in state["population"])
