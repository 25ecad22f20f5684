"""The micro space of ENAS (Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018)."""

from __future__ import annotations

from itertools import permutations
from typing import ClassVar

from torch import nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.ops import FactorizedReduce, ReLUConvBN
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.enas import ENASSpace
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, NetworkSize, two_reductions

__all__ = ["ENAS_MICRO_OPS", "ENASMicroSpace"]

ENAS_MICRO_OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")

Block = tuple[tuple[int, int], tuple[int, int]]
"""(input, operation) of the left and of the right side."""


class ENASMicroSpace(ENASSpace):
    """Normal and reduction cells of blocks; a block adds two operations, each on one earlier output.

    Nodes are numbered as published: 0 and 1 are the outputs of the last two cells, then come the blocks. Each block has
    a left and a right side, which may agree. All nodes that no block takes, the two inputs among them, are loose ends:
    they are concatenated, and a 1x1 convolution brings them to the channels of one node.

    For each kind of cell there are the groups ``"{kind}/ops"`` and ``"{kind}/inputs"``, with the rows ``2 * block`` for
    the left and ``2 * block + 1`` for the right side. All are relaxed. The order of the operations is that of the
    released code, so that its strings of integers can be read.

    Args:
        blocks: Blocks of a cell; 5 as published. Other numbers are part of the space's name.

    Raises:
        ValueError: If there are no blocks.

    Example:
        >>> import random
        >>> space = ENASMicroSpace()
        >>> [len(row.choices) for row in space.decisions["normal/inputs"]]
        [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
        >>> genotype = space.sample(random.Random(0))
        >>> space.parse(space.format(genotype)) == genotype
        True
    """

    kinds: ClassVar[tuple[str, ...]] = ("normal", "reduce")
    default_cells = 8
    derived_cells = 17

    def __init__(self, blocks: int = 5) -> None:
        if blocks < 1:
            raise ValueError(f"blocks={blocks}: a cell needs at least 1")
        self.blocks = blocks
        decisions: dict[str, tuple[Decision, ...]] = {}
        sides = [(node, side) for node in range(2, 2 + blocks) for side in ("left", "right")]
        for kind in self.kinds:
            ops = [Decision(f"{kind}/ops/{node}/{side}", ENAS_MICRO_OPS) for node, side in sides]
            inputs = [Decision(f"{kind}/inputs/{node}/{side}", tuple(map(str, range(node)))) for node, side in sides]
            decisions |= {f"{kind}/ops": tuple(ops), f"{kind}/inputs": tuple(inputs)}
        order = tuple(
            f"{kind}/{part}/{node}/{side}" for kind in self.kinds for node, side in sides for part in ("inputs", "ops")
        )
        super().__init__("enas_micro" if blocks == 5 else f"enas_micro_{blocks}", decisions, order)

    def cell(self, genotype: Genotype, kind: str) -> tuple[Block, ...]:
        """What each block takes and does: ``((input, operation), (input, operation))``."""
        picks = self.check(genotype).picks
        rows = zip(self.decisions[f"{kind}/inputs"], self.decisions[f"{kind}/ops"], strict=True)
        sides = [(picks[source.name][0], picks[op.name][0]) for source, op in rows]
        return tuple(zip(sides[::2], sides[1::2], strict=True))

    def loose_ends(self, genotype: Genotype, kind: str) -> tuple[int, ...]:
        """The nodes that no block takes."""
        taken = {source for block in self.cell(genotype, kind) for source, _ in block}
        return tuple(node for node in range(2 + self.blocks) if node not in taken)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The least of the genotypes that differ only in the sides, or in the order, of a cell's blocks.

        Renumbering the blocks permutes the channels that are concatenated and nothing else.
        """
        integers: list[int] = []
        for kind in self.kinds:
            best = min(self._relabelings(self.cell(genotype, kind)))
            integers += [number for block in best for side in block for number in side]
        return self.from_indices(integers)

    def _relabelings(self, blocks: tuple[Block, ...]) -> list[tuple[Block, ...]]:
        """The cell under every order of its blocks in which they take earlier nodes, the lesser side on the left."""
        found = []
        for order in permutations(range(self.blocks)):
            new = {0: 0, 1: 1} | {2 + old: 2 + at for at, old in enumerate(order)}
            moved = [sorted((new[source], op) for source, op in blocks[old]) for old in order]
            if all(source < 2 + at for at, block in enumerate(moved) for source, _ in block):
                found.append(tuple((left, right) for left, right in moved))
        return found

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """Each cell with operations on its edges; two edges of a block may be the same, and loose ends are wires."""
        nodes = ("c_{k-2}", "c_{k-1}", *map(str, range(2, 2 + self.blocks)), "output")
        found = {}
        for kind in self.kinds:
            blocks = enumerate(self.cell(genotype, kind), start=2)
            edges = [(source, node, ENAS_MICRO_OPS[op]) for node, block in blocks for source, op in block]
            wires = [(node, 2 + self.blocks, "") for node in self.loose_ends(genotype, kind)]
            found[kind] = CellGraph(nodes, (*edges, *wires))
        return found

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The published skeleton: reduction cells at one and two thirds of the depth, where channels double."""
        return two_reductions(make_cell, size, self.kinds, tail=nn.ReLU())

    def preprocess(self, place: CellPlace, affine: bool) -> list[nn.Module]:
        """What brings each input to the channels and the resolution of the cell, if it has others.

        Before a reduction cell both inputs are halved, so that its operations have stride 1, as in the released
        supernet. (That one derives both inputs of a reduction cell from the last output; here, as in its derived
        networks, they come from the last two.)
        """
        halvings = (int(place.reduced_before) + int(place.reduction), int(place.reduction))
        inputs = zip(place.in_channels, halvings, strict=True)
        return [_calibration(before, place.channels, times, affine) for before, times in inputs]


def _calibration(before: int, channels: int, halvings: int, affine: bool) -> nn.Module:
    """Factorized reductions; without them a ReLU-conv1x1-BN, or nothing where the channels agree."""
    if halvings:
        parts = [FactorizedReduce(channels if k else before, channels, affine) for k in range(halvings)]
        return nn.Sequential(*parts)
    return nn.Identity() if before == channels else ReLUConvBN(before, channels, affine=affine)
