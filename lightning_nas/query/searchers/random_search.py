"""Random search."""

from __future__ import annotations

from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["RandomSearch"]


class RandomSearch(Searcher):
    """Genotypes drawn one after another; the best one wins.

    Reference: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019.

    Args:
        space: Name of a search space, or a space.
        budget: Epochs of each trial; ``None`` for full training.
        unique: Whether a genotype that builds the same network as an earlier one is drawn again, up to 100 times.
        seed: Seed of the draws.

    Example:
        >>> searcher = RandomSearch("nasbench201", seed=1)
        >>> trials = searcher.ask(3)
        >>> searcher.tell([Result(trial, score=float(trial.number)) for trial in trials])
        >>> searcher.genotype() == trials[2].genotype
        True
    """

    def __init__(
        self, space: str | Space = "nasbench201", budget: float | None = None, unique: bool = False, seed: int = 0
    ) -> None:
        super().__init__(space, seed)
        self.budget, self.unique = budget, unique
        self.seen: set[Genotype] = set()

    def propose(self) -> Trial:  # noqa: D102
        genotype = self.space.sample(self.rng)
        if self.unique:
            for _ in range(100):
                if self.space.canonical(genotype) not in self.seen:
                    break
                genotype = self.space.sample(self.rng)
            self.seen.add(self.space.canonical(genotype))
        return self.trial(genotype, self.budget)

    def observe(self, result: Result) -> None:
        """Nothing is learned."""

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {"seen": sorted(map(self.space.format, self.seen))}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.seen = set(map(self.space.parse, state["seen"]))
