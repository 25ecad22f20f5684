"""What the two spaces of ENAS share: independent decisions that keep one choice each, written as integers."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar

from lightning_nas.arch import Genotype
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, NetworkSize, StemName

__all__ = ["ENASSpace"]


class ENASSpace(IndependentSpace):
    """Independent decisions that are written as integers.

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
    default_stem: ClassVar[StemName] = "cifar"
    """The stem of the published supernet."""
    derived_channels: ClassVar[int] = 36
    """Channels of the derived network's first stage."""

    @abstractmethod
    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The macro skeleton with a part from `make_cell` in each place; supernet and derived network share it."""

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
        return self.from_indices(integers)
