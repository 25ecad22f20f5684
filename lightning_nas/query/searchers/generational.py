"""The part that all searchers share which work by whole generations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["Generational"]


class Generational(Searcher):
    """Asks for a generation of genotypes, waits for all their results, and makes the next generation from them.

    A subclass gives `breed`. Trials of a generation that fail are missing from its results.

    Args:
        space: Name of a search space, or a space.
        generations: Generations after the first; ``None`` for no end.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Attributes:
        generation: Number of generations bred so far.
        queue: Genotypes of this generation that are not asked for yet.
        told: Results of this generation, as they were told.

    Raises:
        ValueError: If the number of generations is negative.
    """

    def __init__(self, space: str | Space, generations: int | None, budget: float | None, seed: int) -> None:
        super().__init__(space, seed)
        if generations is not None and generations < 0:
            raise ValueError(f"generations={generations}: give at least 0, or None for no end")
        self.generations, self.budget = generations, budget
        self.generation = 0
        self.queue: list[Genotype] = []
        self.told: list[Result] = []

    @abstractmethod
    def breed(self, told: list[Result]) -> list[Genotype]:
        """The next generation, at least one genotype, from the results of the last (none before the first)."""

    def propose(self) -> Trial | None:
        """The next of this generation; ``None`` while it is being evaluated, and after the last."""
        if not self.queue:
            over = self.generations is not None and self.generation > self.generations
            if self.pending or over:
                return None
            told, self.told = sorted(self.told, key=lambda result: result.trial.number), []
            self.queue = self.breed(told)[::-1]
            self.generation += 1
        return self.trial(self.queue.pop(), self.budget, generation=self.generation - 1)

    def observe(self, result: Result) -> None:
        """Keep the result for the next generation."""
        self.told.append(result)

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "generation": self.generation,
            "queue": [self.space.format(genotype) for genotype in self.queue],
            "told": [result.to_plain(self.space) for result in self.told],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.generation, self.queue = state["generation"], list(map(self.space.parse, state["queue"]))
        self.told = [Result.from_plain(plain, self.space) for plain in state["told"]]
