"""Cells with fewer blocks than a space's cells have, as architectures of that space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement, product
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.spaces import CellSpace, ENASMicroSpace, Space
from lightning_nas.spaces.nasnet import NASNET_OPS, NASNetSpace
from lightning_nas.spaces.restricted import RestrictedSpace

__all__ = ["Growth", "growth_of"]

Block = Any
"""What one block does, in the words of its space; hashable."""

Side = tuple[int, int]
"""Input and operation of one side of a block."""


class Growth(ABC):
    """How cells of a space grow block by block; all kinds of cell share their blocks.

    Attributes:
        space: The space.
        tokens: How many tokens each block takes of a string of `TokenEncoder`, which begins with the first kind's.
    """

    space: Space
    tokens: tuple[int, ...]

    @abstractmethod
    def blocks(self, number: int) -> list[Block]:
        """Whatever block a cell may have at a place, counted from 0; one of those that differ in their sides alone."""

    @abstractmethod
    def genotype(self, cell: Sequence[Block]) -> Genotype:
        """The architecture with these blocks, and nothing more in the other places than passes on what there is."""


class _Edges(Growth):
    """Each node is a block, an operation on the edge from every earlier one; the last node is the output.

    Nodes that are not built take the last one that is, by a skip connection, so the cell's output is that.
    """

    space: CellSpace

    def __init__(self, space: CellSpace) -> None:
        _require(space, "none", "skip_connect")
        self.space, self.topology = space, space.topology
        self.tokens = tuple(range(self.topology.inputs, self.topology.inputs + self.topology.nodes))

    def blocks(self, number: int) -> list[Block]:
        rows = self.topology.rows_into(self.topology.inputs + number)
        return list(product(*(self.space.decisions[self.space.kinds[0]][row].choices for row in rows)))

    def genotype(self, cell: Sequence[Block]) -> Genotype:
        last = self.topology.inputs + len(cell) - 1
        ops = {row: op for k, block in enumerate(cell) for row, op in zip(self._rows(k), block, strict=True)}
        for number in range(len(cell), self.topology.nodes):
            for source, row in enumerate(self._rows(number)):
                ops[row] = "skip_connect" if source == last else "none"
        return _from_names(self.space, ops)

    def _rows(self, number: int) -> range:
        return self.topology.rows_into(self.topology.inputs + number)


class _Pairs(Growth):
    """Each node is a block that keeps some of its inputs; all are concatenated.

    Nodes that are not built take the first inputs by skip connections, so they pass on the sum of the cell's inputs.
    """

    space: CellSpace

    def __init__(self, space: CellSpace, keep: int) -> None:
        _require(space, "skip_connect")
        self.space, self.topology, self.keep = space, space.topology, keep
        first = self.topology.inputs
        self.tokens = tuple(2 * min(keep, node) for node in range(first, first + self.topology.nodes))

    def blocks(self, number: int) -> list[Block]:
        rows = self.topology.rows_into(self.topology.inputs + number)
        found = []
        for kept in combinations(rows, min(self.keep, len(rows))):
            choices = [self.space.decisions[self.space.kinds[0]][row].choices for row in kept]
            ops = [[op for op in row if op not in self.space.exclude] for row in choices]
            found += [tuple(zip(kept, names, strict=True)) for names in product(*ops)]
        return found

    def genotype(self, cell: Sequence[Block]) -> Genotype:
        ops = {row: op for block in cell for row, op in block}
        for number in range(len(cell), self.topology.nodes):
            rows = self.topology.rows_into(self.topology.inputs + number)
            ops |= dict.fromkeys(rows[: self.keep], "skip_connect")
        return _from_names(self.space, ops)


class _Sides(Growth):
    """Each block has two sides; blocks that no other takes are concatenated.

    A block that is not built adds the block before it to itself, so twice the last one stands in its place.
    """

    space: NASNetSpace | ENASMicroSpace

    def __init__(self, space: NASNetSpace | ENASMicroSpace) -> None:
        self.space, nasnet = space, isinstance(space, NASNetSpace)
        self.tokens = (5 if nasnet else 4,) * space.blocks
        self.ops = NASNET_OPS if nasnet else space.decisions["normal/ops"][0].choices
        self.joins = ("add", "concat") if nasnet else ("add",)
        self.same = self.ops.index("identity" if nasnet else "skip_connect")

    def blocks(self, number: int) -> list[Block]:
        sides = product(range(2 + number), range(len(self.ops)))
        return list(product(self.joins, combinations_with_replacement(sides, 2)))

    def genotype(self, cell: Sequence[Block]) -> Genotype:
        whole = list(cell)
        for number in range(len(cell), self.space.blocks):
            side = (1 + number, self.same)
            whole.append(("add", (side, side)))
        if isinstance(self.space, NASNetSpace):
            return self.space.from_cells(dict.fromkeys(self.space.kinds, tuple(whole)))
        integers = [number for _, sides in whole for side in sides for number in side]
        return self.space.from_indices(integers * len(self.space.kinds))


def growth_of(space: Space) -> Growth:
    """How cells of a space grow.

    Args:
        space: NAS-Bench-201 and its like, DARTS and its like, NASNet or the micro space of ENAS.

    Raises:
        ValueError: If the space is another, or a part of one, its kinds of cell have other operations than the first,
            or they lack one that passes on.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> growth = growth_of(get_space("nasbench201"))
        >>> growth.space.format(growth.genotype([("nor_conv_3x3",)]))
        '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|none~2|'
        >>> [len(growth_of(get_space("darts")).blocks(number)) for number in range(4)]
        [49, 147, 294, 490]
    """
    if isinstance(space, RestrictedSpace):
        raise ValueError(
            f"this part of {space.name!r} has {len(space.members)} members, and cells that grow block by block are not"
            " always among them; give the whole space (the `base` of the restricted one)"
        )
    if isinstance(space, (NASNetSpace, ENASMicroSpace)):
        return _Sides(space)
    if isinstance(space, CellSpace) and space.keep_inputs is not None and space.topology.output == "concat":
        return _Pairs(space, space.keep_inputs)
    if isinstance(space, CellSpace) and space.keep_inputs is None and space.topology.output == "last":
        return _Edges(space)
    raise ValueError(
        f"cells of {space.name!r} do not grow block by block; give nasbench201, darts, enas_micro, a space like one of"
        " them, or NASNetSpace()"
    )


def _require(space: CellSpace, *names: str) -> None:
    """Raise ValueError unless every edge has some operations, and the same in all kinds of cell."""
    first = [row.choices for row in space.decisions[space.kinds[0]]]
    if any([row.choices for row in space.decisions[kind]] != first for kind in space.kinds):
        raise ValueError(f"the kinds of cell of {space.name!r} have other operations each; they cannot share blocks")
    lacking = [name for name in names if any(name not in choices for choices in first)]
    if lacking:
        raise ValueError(f"some edges of {space.name!r} lack {lacking}, without which no cell has fewer blocks")


def _from_names(space: CellSpace, ops: dict[int, str]) -> Genotype:
    """The genotype with these operations on these rows in all kinds of cell."""
    rows = {row: space.decisions[space.kinds[0]][row].choices.index(op) for row, op in ops.items()}
    return space.from_rows(dict.fromkeys(space.kinds, rows))
