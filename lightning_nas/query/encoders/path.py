"""The ways through a cell as features."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.base import Encoder, Graphs
from lightning_nas.spaces import CellSpace, Space
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.operation_graph import INPUT, OUTPUT, OperationGraph, cell_graph, cell_kinds, operations
from lightning_nas.spaces.restricted import unrestricted

__all__ = ["PathEncoder", "paths_of"]

_MOST = 1_000_000


class PathEncoder(Encoder):
    """Which sequences of operations lead from an input of a cell to its output.

    A path with the operations ``o_0, o_1, ...`` of ``b`` has the number ``sum_i b**i (o_i + 1)``, the wire from input
    to output the number 0. Each input of each kind of cell has a block of its own. Where every way has an operation
    (NAS-Bench-201), there is no number for the wire. Cells with the same paths need not be equal.

    NAS-Bench-101 has 364 features, NAS-Bench-201 has 155, DARTS has 4 x 4,681.

    Reference: White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
    Architecture Search", AAAI 2021.

    Args:
        space: Name of a search space, or a space.
        length: Features kept of each block, the shortest paths first (published: 40 for NAS-Bench-101, 30 for
            NAS-Bench-201); ``None`` for all.

    Raises:
        ValueError: If `length` is not positive, or missing where there are millions of possible paths; or if not all
            genotypes of the space have the same kinds of cell.

    Example:
        >>> encoder = PathEncoder("nasbench201")
        >>> text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
        >>> features = encoder([encoder.space.parse(text)])
        >>> features.shape, features[0].nonzero().flatten().tolist()
        (torch.Size([1, 155]), [0, 8, 15, 88])
    """

    def __init__(self, space: str | Space = "nasbench201", length: int | None = None) -> None:
        super().__init__(space)
        if length is not None and length < 1:
            raise ValueError(f"length={length}: keep at least one path, or None for all")
        whole = unrestricted(self.space)
        self.kinds, self.operations = cell_kinds(self.space), operations(whole)
        self.wire = not (isinstance(whole, CellSpace) and whole.topology.output == "last")
        self.length, self.longest = length, _longest(self.space)
        if min(self.block, length or self.block) > _MOST:
            raise ValueError(f"{self.space.name!r} has {self.block} possible paths a block; keep some with length=")

    @property
    def block(self) -> int:
        """Features of a block before truncation."""
        return sum(len(self.operations) ** size for size in range(not self.wire, self.longest + 1))

    def encode(self, genotypes: Sequence[Genotype]) -> Tensor:
        """``(n, features)`` of zeros and ones."""
        cells = [self.space.graphs(genotype) for genotype in genotypes]
        blocks = [block for kind in self.kinds for block in self._blocks([graphs[kind] for graphs in cells])]
        return torch.cat(blocks, dim=1)

    def _blocks(self, cells: Sequence[CellGraph]) -> Iterator[Tensor]:
        """A block for each input of a kind of cell."""
        graphs = [cell_graph(cell) for cell in cells]
        names = sorted({label for graph in graphs for label in graph.labels if label.startswith(INPUT)})
        batch = Graphs.stack(graphs, (*self.operations, OUTPUT, *names))
        width = self.block if self.length is None else min(self.length, self.block)
        for place in range(len(names)):
            start = len(self.operations) + 1 + place
            numbers, there = paths_of(batch, start, len(self.operations), len(self.operations))
            column = numbers - int(not self.wire)
            found = torch.zeros(len(batch), width + 1)
            found.scatter_(1, torch.where(there & (column < width), column, width), 1.0)
            yield found[:, :width]


def paths_of(graphs: Graphs, start: int, end: int, base: int) -> tuple[Tensor, Tensor]:
    """The numbers of all paths of many graphs at once.

    Args:
        graphs: `n` graphs; labels below `base` are operations.
        start: Label of the vertex where paths start.
        end: Label of the vertex where they end.
        base: Number of operations.

    Returns:
        Numbers ``(n, p)`` of the `p` ways over vertices that any of the graphs has, and booleans ``(n, p)``: whether
        the graph has that way.

    Example:
        >>> graph = Graphs(torch.tensor([[[0, 1.0, 0], [0, 0, 1.0], [0, 0, 0]]]), torch.tensor([[3, 1, 2]]), kinds=4)
        >>> paths_of(graph, start=3, end=2, base=2)
        (tensor([[2]]), tensor([[True]]))
    """
    anywhere = graphs.adjacency.any(dim=0).tolist()
    starts, ends = (graphs.labels == start).any(dim=0).tolist(), (graphs.labels == end).any(dim=0).tolist()
    after = [[w for w, edge in enumerate(row) if edge] for row in anywhere]
    inner = (graphs.labels >= 0) & (graphs.labels < base)
    numbers, there = [], []
    left = [
        (v, graphs.labels[:, v] == start, torch.zeros(len(graphs), dtype=torch.long), 1)
        for v, begins in enumerate(starts)
        if begins
    ]
    while left:
        vertex, holds, number, power = left.pop()
        for target in after[vertex]:
            reached = holds & (graphs.adjacency[:, vertex, target] > 0)
            if not reached.any():
                continue
            if ends[target]:
                numbers.append(number)
                there.append(reached & (graphs.labels[:, target] == end))
            further = reached & inner[:, target]
            if further.any():
                left.append((target, further, number + power * (graphs.labels[:, target] + 1), power * base))
    if not numbers:
        return torch.zeros(len(graphs), 0, dtype=torch.long), torch.zeros(len(graphs), 0, dtype=torch.bool)
    return torch.stack(numbers, dim=1), torch.stack(there, dim=1)


def _longest(space: Space) -> int:
    """The most operations that a path of a cell may have; outside cell spaces what many random genotypes show."""
    if isinstance(whole := unrestricted(space), CellSpace):
        return whole.topology.nodes
    rng = random.Random(0)  # noqa: S311
    graphs = [cell_graph(cell) for _ in range(300) for cell in space.graphs(space.sample(rng)).values()]
    return max(map(_depth, graphs)) - 2


def _depth(graph: OperationGraph) -> int:
    """Vertices on the longest way."""
    depth = [1] * len(graph.labels)
    for source, target in graph.edges:
        depth[target] = max(depth[target], depth[source] + 1)
    return max(depth)
