"""What the two spaces of ENAS share: independent decisions that keep one choice each, written as integers."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Genotype, Sample
from lightning_nas.spaces.base import Space
from lightning_nas.spaces.cell_space import check_pick
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, NetworkSize

__all__ = ["ENASSpace"]


class ENASSpace(Space):
    """A space whose rows keep one choice each, whatever the others keep: every combination is a genotype.

    The text is the integers of the released code, in its order, behind the name of the space:
    ``"enas_micro: 0 2 0 0 ..."``. `parse` reads them without the name too, over any number of lines.

    Args:
        name: The space's name.
        decisions: Its decisions by group; all are relaxed.
        order: The names of all decisions in the order of the text.
    """

    default_cells: int
    """Number of cells or layers of the published supernet."""
    derived_cells: int
    """The same for the derived network."""
    derived_channels: ClassVar[int] = 36
    """Channels of the derived network's first stage."""

    def __init__(self, name: str, decisions: Decisions, order: tuple[str, ...]) -> None:
        self.name, self.decisions, self.order = name, decisions, order
        self.relaxed = tuple(decisions)
        self._rows = {row.name: row for rows in decisions.values() for row in rows}

    @abstractmethod
    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The macro skeleton with a part from `make_cell` in each place; supernet and derived network share it."""

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
        return self._from_integers(rng.randrange(len(self._rows[name].choices)) for name in self.order)

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:  # noqa: D102
        return rng.choice(list(self.neighbors(genotype)))

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:  # noqa: D102
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

    def vertex(self, genotype: Genotype) -> Sample:  # noqa: D102
        picks = self.check(genotype).picks
        weights, active = {}, {}
        for group, rows in self.decisions.items():
            active[group] = tuple(picks[row.name] for row in rows)
            weights[group] = torch.zeros(len(rows), max(len(row.choices) for row in rows))
            for index, (choice,) in enumerate(active[group]):
                weights[group][index, choice] = 1.0
        return Sample(weights, active)

    def format(self, genotype: Genotype) -> str:
        """The integers of the released code, behind the name of the space."""
        picks = self.check(genotype).picks
        return f"{self.name}: {' '.join(str(picks[name][0]) for name in self.order)}"

    def parse(self, text: str) -> Genotype:
        """Read the integers of the released code, with or without the name of the space, or JSON.

        Raises:
            ValueError: If it is not an architecture of this space; the message says what is wrong.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        name, _, numbers = text.rpartition(":")
        words = numbers.split()
        if not words or not all(re.fullmatch("[0-9]{1,4}", word) for word in words):
            raise ValueError(f"not an ENAS architecture: {text[:60]!r}; expected '{self.name}: 0 2 0 ...' or JSON")
        if name not in ("", self.name):
            raise ValueError(f"a genotype of space {name[:60]!r} was given to space {self.name!r}; use its own")
        integers = [int(word) for word in words]
        if len(integers) != len(self.order):
            raise ValueError(f"{len(integers)} integers were given; {self.name!r} has {len(self.order)} decisions")
        for integer, row in zip(integers, map(self._rows.__getitem__, self.order), strict=True):
            if integer >= len(row.choices):
                last = len(row.choices) - 1
                raise ValueError(f"{row.name!r} is {integer}; allowed are 0 to {last}, for {', '.join(row.choices)}")
        return self._from_integers(integers)

    def _from_integers(self, integers: Iterator[int] | list[int]) -> Genotype:
        return Genotype(self.name, {name: (value,) for name, value in zip(self.order, integers, strict=True)})
