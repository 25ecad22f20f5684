"""Two spaces so small that every cell of theirs can be trained: rulers for search methods on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

from lightning_nas.arch import Genotype
from lightning_nas.spaces.darts import DARTS_OPS, DARTSSpace

__all__ = ["SMALL_SPACES", "SmallSpace"]

SMALL_SPACES: dict[str, tuple[tuple[str, ...], int]] = {
    "small_sep": (("skip_connect", "sep_conv_3x3"), 2),
    "small_ops": (DARTS_OPS[1:], 1),
}
"""Name -> candidates of every edge, number of intermediate nodes."""


class SmallSpace(DARTSSpace):
    """DARTS cells with few nodes or few candidates; one cell, which is the reduction cell too.

    ``small_sep`` has two nodes over {skip, 3x3 separable convolution}, the candidates of the space S2 in which DARTS
    collapses (Zela et al., ICLR 2020): 48 cells. ``small_ops`` has one node over all operations of DARTS but `none`:
    49 cells. No block but the preprocessing of inputs is fixed, so a cell counts for all that the network does.

    Args:
        name: ``"small_sep"`` or ``"small_ops"``.

    Raises:
        ValueError: If the name is another.

    Example:
        >>> len(list(SmallSpace("small_sep").cells())), len(list(SmallSpace("small_ops").cells()))
        (48, 49)
    """

    default_cells = 5
    derived_cells = 5
    derived_channels = 16

    def __init__(self, name: str) -> None:
        if name not in SMALL_SPACES:
            raise ValueError(f"unknown small space {name!r}; known are {', '.join(SMALL_SPACES)}")
        ops, nodes = SMALL_SPACES[name]
        super().__init__(name, ops, nodes, kinds=("normal",))

    def distinct(self) -> list[Genotype]:
        """The canonical genotypes: one for each network."""
        return list(dict.fromkeys(map(self.canonical, self.cells())))

    def cells(self) -> Iterator[Genotype]:
        """Every genotype, in a fixed order."""
        first, nodes = self.topology.inputs, self.topology.nodes
        pairs = [combinations(self.topology.rows_into(node), 2) for node in range(first, first + nodes)]
        for chosen in product(*pairs):
            rows = [row for pair in chosen for row in pair]
            for choices in product(*(range(len(self.decisions["normal"][row].choices)) for row in rows)):
                yield self.from_rows({"normal": dict(zip(rows, choices, strict=True))})
