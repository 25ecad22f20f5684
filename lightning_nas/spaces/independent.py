"""Spaces whose decisions do not depend on each other."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Genotype
from lightning_nas.spaces.base import Space
from lightning_nas.spaces.cell_space import check_pick

__all__ = ["IndependentSpace"]


class IndependentSpace(Space):
    """A space whose rows keep one choice each, whatever the others keep: every combination is a genotype.

    Args:
        name: The space's name.
        decisions: Its decisions by group; all are relaxed.
        order: The names of all decisions, in the order in which they are drawn and written; ``None`` for group by
            group.
    """

    def __init__(self, name: str, decisions: Decisions, order: Sequence[str] | None = None) -> None:
        self.name, self.decisions, self.relaxed = name, decisions, tuple(decisions)
        self._rows = {row.name: row for rows in decisions.values() for row in rows}
        self.order = tuple(self._rows if order is None else order)

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        if genotype.space != self.name:
            raise ValueError(f"a genotype of space {genotype.space!r} was given to space {self.name!r}; use its own")
        for name, row in self._rows.items():
            check_pick(row, genotype.picks.get(name), self.name)
        unknown = sorted(set(genotype.picks) - set(self._rows))
        if unknown:
            raise ValueError(f"a genotype of {self.name!r} has no decision {unknown}")
        return genotype

    def sample(self, rng: random.Random) -> Genotype:  # noqa: D102
        return self.from_indices([rng.randrange(len(self._rows[name].choices)) for name in self.order])

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:  # noqa: D102
        return rng.choice(list(self.neighbors(genotype)))

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes with another choice in one row."""
        picks = self.check(genotype).picks
        for name, row in self._rows.items():
            for choice in range(len(row.choices)):
                if picks[name] != (choice,):
                    yield Genotype(self.name, {**picks, name: (choice,)})

    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:
        """The best choice of each row; of choices that score the same, and without scores, the first.

        Choices in `exclude` are never taken, unless a row has no other.
        """
        picks = {}
        for group, rows in self.decisions.items():
            for index, row in enumerate(rows):
                value = torch.zeros(len(row.choices), dtype=torch.float64)
                if group in scores:
                    value = scores[group][index, : len(row.choices)].detach().double().clone()
                banned = [k for k, choice in enumerate(row.choices) if choice in (exclude or ())]
                value[banned if len(banned) < len(row.choices) else []] = -torch.inf
                picks[row.name] = (int(torch.sort(value, descending=True, stable=True).indices[0]),)
        return self.check(Genotype(self.name, picks))

    def from_indices(self, indices: Sequence[int]) -> Genotype:
        """The genotype with these choices, in `order`."""
        return Genotype(self.name, {name: (k,) for name, k in zip(self.order, indices, strict=True)})
