"""A part of a space: the architectures that a table has, or that a constraint allows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.spaces.base import CellGraph, Space

__all__ = ["RestrictedSpace", "unrestricted"]


class RestrictedSpace(Space):
    """Some architectures of a space, drawn uniformly; every searcher that samples and mutates works on it.

    Neighbors are the members that differ in at most `within` decisions; where there is none, those that differ in the
    fewest. In NAS-Bench-101 an edge that moves is two decisions.

    Args:
        base: The space.
        members: The architectures.
        within: Decisions in which neighbors may differ.

    Raises:
        ValueError: If there are fewer than two members, or one is not of the space.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> base = get_space("nasbench201")
        >>> some = [base.sample(random.Random(k)) for k in range(50)]
        >>> space = RestrictedSpace(base, some)
        >>> all(space.mutate(genotype, random.Random(0)) in some for genotype in some)
        True
    """

    def __init__(self, base: Space, members: Iterable[Genotype], within: int = 1) -> None:
        self.members = tuple(dict.fromkeys(base.check(genotype) for genotype in members))
        if len(self.members) < 2 or within < 1:
            raise ValueError(f"{len(self.members)} members, within={within}: give at least 2 members and 1 decision")
        self.base, self.within = base, within
        self.name, self.decisions, self.relaxed = base.name, base.decisions, base.relaxed
        names = [row.name for rows in base.decisions.values() for row in rows]
        codes: dict[tuple[str, tuple[int, ...] | None], int] = {}
        self._table = np.array(
            [[codes.setdefault((n, g.picks.get(n)), len(codes)) for n in names] for g in self.members], dtype=np.int32
        )
        self._row = {genotype: row for row, genotype in enumerate(self.members)}
        self._near: dict[int, list[int]] = {}

    def _beside(self, genotype: Genotype) -> list[int]:
        """The rows of the neighbors of a member."""
        if genotype not in self._row:
            raise ValueError(f"{self.base.format(genotype)[:80]!r} is no member of this part of {self.name!r}")
        row = self._row[genotype]
        if row not in self._near:
            differ = (self._table != self._table[row]).sum(axis=1)
            differ[row] = np.iinfo(differ.dtype).max
            self._near[row] = np.flatnonzero(differ <= max(self.within, int(differ.min()))).tolist()
        return self._near[row]

    def sample(self, rng: random.Random) -> Genotype:
        """Draw a member."""
        return rng.choice(self.members)

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """Draw a neighbor."""
        return self.members[rng.choice(self._beside(genotype))]

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """The members close to a member."""
        return (self.members[row] for row in self._beside(genotype))

    def canonical(self, genotype: Genotype) -> Genotype:  # noqa: D102
        return self.base.canonical(genotype)

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        return self.base.check(genotype)

    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:  # noqa: D102
        return self.base.discretize(scores, exclude)

    def format(self, genotype: Genotype) -> str:  # noqa: D102
        return self.base.format(genotype)

    def parse(self, text: str) -> Genotype:  # noqa: D102
        return self.base.parse(text)

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:  # noqa: D102
        return self.base.graphs(genotype)


def unrestricted(space: Space) -> Space:
    """The space that a restricted one is a part of, for what depends on its kind; any other space itself.

    Args:
        space: A space.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> base = get_space("nasbench201")
        >>> part = RestrictedSpace(base, [base.sample(random.Random(k)) for k in range(5)])
        >>> unrestricted(part) is unrestricted(base) is base
        True
    """
    while isinstance(space, RestrictedSpace):
        space = space.base
    return space
