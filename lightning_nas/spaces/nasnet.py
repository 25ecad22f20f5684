"""The cells of NASNet (Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import ClassVar

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.sequential import SequentialSpace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["NASNET_OPS", "NASNetSpace"]

NASNET_OPS = (
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)

Block = tuple[str, tuple[tuple[int, int], tuple[int, int]]]
"""How a block combines its two sides, and (input, operation) of each."""


class NASNetSpace(SequentialSpace):
    """Normal and reduction cells of blocks; a block adds or concatenates two operations, each on one earlier state.

    States 0 and 1 are the outputs of the last two cells, then come the blocks. States that no block takes are
    concatenated. For each kind of cell there are the groups ``"{kind}/inputs"`` and ``"{kind}/ops"`` with two rows for
    each block, and ``"{kind}/combine"`` with one; they are decided block by block: both inputs, both operations, and
    how they are combined.

    `DerivedNetwork` builds the networks of its genotypes; ``cells`` are ``3 N + 2`` for ``N`` normal cells between
    reductions as published.

    Args:
        blocks: Blocks of a cell; 5 as published. Other numbers are part of the space's name.

    Raises:
        ValueError: If there are no blocks.

    Example:
        >>> space = NASNetSpace(blocks=1)
        >>> genotype = space.parse("nasnet_1: 0 1 identity conv_3x3 add  0 0 max_pool_3x3 identity concat")
        >>> space.cell(genotype, "normal")
        (('add', ((0, 0), (1, 9))),)
        >>> len(NASNetSpace().order)
        50
    """

    kinds: ClassVar[tuple[str, ...]] = ("normal", "reduce")

    default_stem: ClassVar[StemName] = "cifar"
    derived_cells: ClassVar[int] = 20
    derived_channels: ClassVar[int] = 32

    def __init__(self, blocks: int = 5) -> None:
        if blocks < 1:
            raise ValueError(f"blocks={blocks}: a cell needs at least 1")
        self.blocks = blocks
        states, decisions, order = range(2, 2 + blocks), dict[str, tuple[Decision, ...]](), list[str]()
        for kind in self.kinds:
            sides = [(state, side) for state in states for side in ("left", "right")]
            inputs = [Decision(f"{kind}/inputs/{state}/{side}", tuple(map(str, range(state)))) for state, side in sides]
            ops = [Decision(f"{kind}/ops/{state}/{side}", NASNET_OPS) for state, side in sides]
            combine = [Decision(f"{kind}/combine/{state}", ("add", "concat")) for state in states]
            decisions |= {f"{kind}/inputs": tuple(inputs), f"{kind}/ops": tuple(ops), f"{kind}/combine": tuple(combine)}
            for b in range(blocks):
                order += [row.name for row in (*inputs[2 * b : 2 * b + 2], *ops[2 * b : 2 * b + 2], combine[b])]
        super().__init__("nasnet" if blocks == 5 else f"nasnet_{blocks}", decisions, tuple(order))

    def cell(self, genotype: Genotype, kind: str) -> tuple[Block, ...]:
        """What each block does."""
        picks = self.check(genotype).picks
        blocks = []
        for state in range(2, 2 + self.blocks):
            left, right = (
                (picks[f"{kind}/inputs/{state}/{side}"][0], picks[f"{kind}/ops/{state}/{side}"][0])
                for side in ("left", "right")
            )
            blocks.append((("add", "concat")[picks[f"{kind}/combine/{state}"][0]], (left, right)))
        return tuple(blocks)

    def loose_ends(self, genotype: Genotype, kind: str) -> tuple[int, ...]:
        """The states that no block takes, which are concatenated."""
        taken = {source for _, sides in self.cell(genotype, kind) for source, _ in sides}
        return tuple(state for state in range(2 + self.blocks) if state not in taken)

    def from_cells(self, cells: Mapping[str, tuple[Block, ...]]) -> Genotype:
        """The genotype of both cells, as `cell` gives them.

        Raises:
            ValueError: If they are no cells of this space.
        """
        picks: dict[str, tuple[int, ...]] = {}
        for kind, blocks in cells.items():
            for state, (combine, sides) in enumerate(blocks, start=2):
                picks[f"{kind}/combine/{state}"] = (("add", "concat").index(combine),)
                for name, (source, op) in zip(("left", "right"), sides, strict=True):
                    picks[f"{kind}/inputs/{state}/{name}"] = (source,)
                    picks[f"{kind}/ops/{state}/{name}"] = (op,)
        return self.check(Genotype(self.name, picks))

    def canonical(self, genotype: Genotype) -> Genotype:
        """The least of the genotypes that differ only in the sides, or in the order, of a cell's blocks.

        Such cells differ in the order of channels and in nothing else.
        """
        return self.from_cells({kind: min(self._relabelings(self.cell(genotype, kind))) for kind in self.kinds})

    def _relabelings(self, blocks: tuple[Block, ...]) -> list[tuple[Block, ...]]:
        """The cell under every order of its blocks in which they take earlier states, the lesser side on the left."""
        found = []
        for order in permutations(range(self.blocks)):
            new = {0: 0, 1: 1} | {2 + old: 2 + at for at, old in enumerate(order)}
            moved = list[Block]()
            for old in order:
                combine, sides = blocks[old]
                left, right = sorted((new[source], op) for source, op in sides)
                moved.append((combine, (left, right)))
            if all(source < state for state, (_, sides) in enumerate(moved, start=2) for source, _ in sides):
                found.append(tuple(moved))
        return found

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """Each cell with operations on its edges; nodes tell how they combine (``"2: add"``), loose ends are wires."""
        found = {}
        for kind in self.kinds:
            blocks = list(enumerate(self.cell(genotype, kind), start=2))
            nodes = ("c_{k-2}", "c_{k-1}", *(f"{state}: {combine}" for state, (combine, _) in blocks), "output")
            edges = [(source, state, NASNET_OPS[op]) for state, (_, sides) in blocks for source, op in sides]
            wires = [(state, 2 + self.blocks, "") for state in self.loose_ends(genotype, kind)]
            found[kind] = CellGraph(nodes, (*edges, *wires))
        return found
