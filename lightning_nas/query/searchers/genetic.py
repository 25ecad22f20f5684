"""The genetic algorithm of Genetic CNN."""

from __future__ import annotations

from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.mutations import EachDecision, valid
from lightning_nas.query.searchers.generational import Generational
from lightning_nas.query.trial import Result
from lightning_nas.spaces import Space
from lightning_nas.spaces.genetic_cnn import GeneticCNNSpace

__all__ = ["GeneticCNN"]


class GeneticCNN(Generational):
    """Generations by Russian roulette, exchange of whole stages, and mutation of bits.

    Individuals are drawn with a probability in proportion to how far they are above the worst, which dies. Each pair of
    consecutive individuals exchanges stages with probability `crossing`, each stage with probability
    `crossing_stage`; the individuals of other pairs are mutated with probability `mutating`, each bit with probability
    `mutating_bit`. Everybody is evaluated in every generation anew, and an architecture is as good as the mean of its
    evaluations, which makes up for the noise of training.

    Reference: Xie and Yuille, "Genetic CNN", ICCV 2017.

    Args:
        space: Name of a search space, or a space; its groups are the stages. ``None`` for `GeneticCNNSpace`.
        population: Individuals of a generation.
        generations: Generations after the first; ``None`` for no end.
        crossing: Probability that a pair exchanges stages.
        crossing_stage: Probability that it exchanges a given one.
        mutating: Probability that an individual is mutated.
        mutating_bit: Probability that a given decision of it changes.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If a number is not positive, or a probability not in ``[0, 1]``.

    Example:
        >>> searcher = GeneticCNN(population=4, generations=1)
        >>> for _ in range(8):
        ...     searcher.tell([Result(trial, score=1.0) for trial in searcher.ask()])
        >>> searcher.ask()
        []
    """

    def __init__(
        self,
        space: str | Space | None = None,
        population: int = 20,
        generations: int | None = 50,
        crossing: float = 0.2,
        crossing_stage: float = 0.2,
        mutating: float = 0.8,
        mutating_bit: float = 0.05,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(GeneticCNNSpace() if space is None else space, generations, budget, seed)
        rates = (crossing, crossing_stage, mutating, mutating_bit)
        if population < 1 or not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"population={population}, probabilities {rates}: give at least 1, and all in [0, 1]")
        self.size, self.crossing, self.crossing_stage, self.mutating = population, crossing, crossing_stage, mutating
        self.flip = EachDecision(dict.fromkeys(self.space.decisions, mutating_bit))
        self.sums: dict[Genotype, tuple[float, int]] = {}

    def merit(self, genotype: Genotype) -> float:
        """The mean of all evaluations of an architecture that was told."""
        total, count = self.sums[genotype]
        return total / count

    def breed(self, told: list[Result]) -> list[Genotype]:
        """Roulette, then crossover or mutation."""
        for result in told:
            total, count = self.sums.get(result.trial.genotype, (0.0, 0))
            self.sums[result.trial.genotype] = total + result.score, count + 1
        if not told:
            return [self.space.sample(self.rng) for _ in range(self.size)]
        chosen = self.roulette([result.trial.genotype for result in told])
        for k in range(0, self.size, 2):
            pair = chosen[k : k + 2]
            if len(pair) == 2 and self.rng.random() < self.crossing:
                chosen[k : k + 2] = self._crossed(*pair)
            else:
                chosen[k : k + 2] = [self._mutated(genotype) for genotype in pair]
        return chosen

    def roulette(self, genotypes: list[Genotype]) -> list[Genotype]:
        """As many as the population has, in proportion to their merit above the least; alike if all are equal."""
        merits = [self.merit(genotype) for genotype in genotypes]
        weights = [merit - min(merits) for merit in merits]
        return self.rng.choices(genotypes, weights if sum(weights) > 0 else None, k=self.size)

    def _crossed(self, first: Genotype, second: Genotype) -> list[Genotype]:
        """Both, with some stages exchanged; as they are if that is not valid."""
        one, other = dict(first.picks), dict(second.picks)
        for rows in self.space.decisions.values():
            if self.rng.random() < self.crossing_stage:
                for name in (row.name for row in rows if row.name in one and row.name in other):
                    one[name], other[name] = other[name], one[name]
        mixed = [valid(self.space, Genotype(self.space.name, picks)) for picks in (one, other)]
        return [parent if child is None else child for child, parent in zip(mixed, (first, second), strict=True)]

    def _mutated(self, genotype: Genotype) -> Genotype:
        return self.flip(self.space, genotype, self.rng) if self.rng.random() < self.mutating else genotype

    def state(self) -> dict[str, Any]:  # noqa: D102
        sums = [[self.space.format(genotype), total, count] for genotype, (total, count) in self.sums.items()]
        return super().state() | {"sums": sums}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self.sums = {self.space.parse(text): (total, count) for text, total, count in state["sums"]}
