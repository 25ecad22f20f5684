"""The evolution of hierarchical architectures."""

from __future__ import annotations

import random

from lightning_nas.arch import Genotype
from lightning_nas.query.searchers.evolution import RegularizedEvolution
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.hierarchical import HierarchicalSpace

__all__ = ["HierarchicalEvolution"]


class HierarchicalEvolution(RegularizedEvolution):
    """Tournaments of 5 % of a population that only grows, begun with chains of identities after many mutations.

    Reference: Liu, Simonyan, Vinyals, Fernando and Kavukcuoglu, "Hierarchical Representations for Efficient
    Architecture Search", ICLR 2018.

    Args:
        space: A hierarchical space; ``None`` for the published one.
        population: Individuals at the start.
        sample: Share of the population that is drawn for a tournament.
        mutations: Mutations that each of the first individuals has had, without evaluation.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If the space is not hierarchical, or a number is not positive.

    Example:
        >>> HierarchicalEvolution(mutations=10).ask()[0].genotype.space
        'hierarchical'
    """

    def __init__(
        self,
        space: str | Space | None = None,
        population: int = 200,
        sample: float = 0.05,
        mutations: int = 1000,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        levels = HierarchicalSpace() if space is None else get_space(space)
        if not isinstance(levels, HierarchicalSpace):
            raise ValueError(f"{levels.name!r} is not hierarchical; give a HierarchicalSpace")
        if mutations < 0:
            raise ValueError(f"mutations={mutations}: give at least 0")

        def first(rng: random.Random) -> Genotype:
            return levels.diversified(rng, mutations)

        super().__init__(levels, population, sample, False, "nobody", initial=first, budget=budget, seed=seed)
