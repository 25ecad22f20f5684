"""Proposals: which architectures a predictor is asked about."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lightning_nas.arch import Genotype
from lightning_nas.query.enumeration import one_of_each
from lightning_nas.query.mutations import Mutation, get_mutation
from lightning_nas.spaces import Space

__all__ = [
    "Labels",
    "Mixture",
    "Mutants",
    "Neighbors",
    "Pool",
    "Proposal",
    "RandomPool",
    "WholeSpace",
    "best_of",
    "canonical",
]

Labels = Sequence[tuple[Genotype, float]]
"""Architectures tried so far with their scores."""


def best_of(labels: Labels, n: int) -> list[Genotype]:
    """The architectures with the best scores, best first.

    Args:
        labels: Architectures with their scores.
        n: How many; all if there are fewer.
    """
    return [genotype for genotype, _ in sorted(labels, key=lambda label: -label[1])[:n]]


@lru_cache(maxsize=50_000)
def canonical(space: Space, genotype: Genotype) -> Genotype:
    """What all architectures equal to one share (`Space.canonical`), kept as searches ask again and again.

    Args:
        space: The space.
        genotype: The architecture.
    """
    return space.canonical(genotype)


class Proposal(ABC):
    """Makes candidates; those that were tried before are left out by whoever asks."""

    @abstractmethod
    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> Sequence[Genotype]:
        """Candidates, some perhaps twice.

        Args:
            space: The space.
            labels: What was tried so far, with scores; the larger, the better.
            rng: Source of randomness.
        """


class RandomPool(Proposal):
    """Random architectures.

    Args:
        size: How many.

    Raises:
        ValueError: If `size` is not positive.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> len(RandomPool(7)(get_space("nasbench201"), [], random.Random(0)))
        7
    """

    def __init__(self, size: int = 1000) -> None:
        if size < 1:
            raise ValueError(f"size={size}: a pool has at least one architecture")
        self.size = size

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> list[Genotype]:
        """`size` random architectures."""
        return [space.sample(rng) for _ in range(self.size)]


class Mutants(Proposal):
    """Mutations of the best architectures so far.

    Args:
        size: How many.
        parents: Number of the best whose mutations they are.
        steps: Mutations one after the other that lead to each; a list of probabilities of 1, 2, ... steps.
        mutate: A name of `lightning_nas.query.mutations.MUTATIONS`, or a function.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> best = space.sample(random.Random(0))
        >>> all(g in set(space.neighbors(best)) for g in Mutants(5)(space, [(best, 90.0)], random.Random(0)))
        True
    """

    def __init__(
        self, size: int = 100, parents: int = 1, steps: Sequence[float] = (1.0,), mutate: str | Mutation = "one"
    ) -> None:
        if size < 1 or parents < 1 or not steps or min(steps) < 0 or sum(steps) <= 0:
            raise ValueError(f"size={size}, parents={parents}, steps={steps}: all must be positive")
        self.size, self.parents, self.steps, self.mutate = size, parents, tuple(steps), get_mutation(mutate)

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> list[Genotype]:
        """`size` mutants, as many of each parent; random architectures before the first label."""
        best = best_of(labels, self.parents)
        if not best:
            return RandomPool(self.size)(space, labels, rng)
        return [self._child(space, best[k % len(best)], rng) for k in range(self.size)]

    def _child(self, space: Space, genotype: Genotype, rng: random.Random) -> Genotype:
        for _ in range(rng.choices(range(1, len(self.steps) + 1), self.steps)[0]):
            genotype = self.mutate(space, genotype, rng)
        return genotype


class Neighbors(Proposal):
    """All architectures that differ in one decision from one of the best so far.

    Args:
        parents: Number of the best.

    Raises:
        ValueError: If `parents` is not positive.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> len(Neighbors()(space, [(space.sample(random.Random(0)), 90.0)], random.Random(0)))
        24
    """

    def __init__(self, parents: int = 1) -> None:
        if parents < 1:
            raise ValueError(f"parents={parents}: give at least one")
        self.parents = parents

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> list[Genotype]:
        """The neighbors; nothing before the first label."""
        return [neighbor for genotype in best_of(labels, self.parents) for neighbor in space.neighbors(genotype)]


class Pool(Proposal):
    """The same architectures each time: those of a benchmark, or of a list of your own.

    Args:
        genotypes: The architectures.

    Raises:
        ValueError: If there are none.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> len(Pool(space.neighbors(space.sample(random.Random(0))))(space, [], random.Random(0)))
        24
    """

    def __init__(self, genotypes: Iterable[Genotype]) -> None:
        self.genotypes = tuple(genotypes)
        if not self.genotypes:
            raise ValueError("the pool is empty; give at least one architecture")

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> Sequence[Genotype]:
        """All of them."""
        return self.genotypes


class WholeSpace(Proposal):
    """Every architecture of a small space, one of each kind of equal ones; a random pool where it is large.

    Args:
        largest: Size up to which a space counts as small, equal ones counted separately.
        pool: Size of the random pool of a larger one.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> len(WholeSpace()(get_space("small_sep"), [], random.Random(0)))
        42
    """

    def __init__(self, largest: int = 20_000, pool: int = 2_000) -> None:
        if largest < 1:
            raise ValueError(f"largest={largest}: give a positive size")
        self.largest, self.pool = largest, RandomPool(pool)

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> Sequence[Genotype]:
        """The space, or a random pool of it."""
        return one_of_each(space, self.largest) or self.pool(space, labels, rng)


class Mixture(Proposal):
    """The candidates of several proposals.

    Args:
        parts: The proposals.

    Raises:
        ValueError: If there are none.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> len(Mixture(RandomPool(3), Mutants(4))(get_space("nasbench201"), [], random.Random(0)))
        7
    """

    def __init__(self, *parts: Proposal) -> None:
        if not parts:
            raise ValueError("a mixture needs at least one proposal")
        self.parts = parts

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> list[Genotype]:
        """All candidates, part by part."""
        return [genotype for part in self.parts for genotype in part(space, labels, rng)]
