"""The NAS-Bench-201 topology space: 15,625 cells (Dong and Yang, "NAS-Bench-201", ICLR 2020)."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product
from typing import ClassVar

from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import ResidualBlock
from lightning_nas.ops.blocks import batch_norm
from lightning_nas.spaces.base import CellTopology
from lightning_nas.spaces.cell_space import CellSpace
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, ImageNetStem, NetworkSize, SimpleStem

__all__ = ["NB201_OPS", "FixedBlock", "NASBench201Space"]

NB201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class FixedBlock(nn.Module):
    """A block of the skeleton that is not searched: it takes the last state and ignores the sample."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Apply the body to the last state."""
        out: Tensor = self.body(states[-1])
        return out


class NASBench201Space(CellSpace):
    """One kind of cell: four nodes, six edges, five operations; three stages with residual blocks between them.

    Example:
        >>> space = NASBench201Space()
        >>> text = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
        >>> space.format(space.parse(text)) == text
        True
    """

    default_cells: ClassVar[int] = 5
    derived_cells: ClassVar[int] = 5
    derived_channels: ClassVar[int] = 16

    def __init__(self, name: str = "nasbench201", ops: tuple[str, ...] = NB201_OPS) -> None:
        super().__init__(name, ("cell",), CellTopology(1, 3, "last"), ops)
        self.ops = tuple(ops)

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The published skeleton: three stages of `cells` cells; a residual block halves and doubles between them."""
        stem = (ImageNetStem if size.stem == "imagenet" else SimpleStem)(size.in_channels, size.channels, 1)
        blocks: list[nn.Module] = []
        c = size.channels
        for stage in range(3):
            if stage:
                blocks.append(FixedBlock(ResidualBlock(c, 2 * c)))
                c = 2 * c
            blocks += [make_cell(CellPlace("cell", stage * size.cells + i, (c,), c)) for i in range(size.cells)]
        tail = nn.Sequential(batch_norm(c), nn.ReLU())
        halvings = 2 + 2 * (size.stem == "imagenet")
        return CellNetwork(stem, blocks, c, size.num_classes, halvings, tail, size.track_stats)

    def index(self, genotype: Genotype) -> int:
        """Rank of a genotype when its six operations are read as a number, the first edge most significant."""
        number = 0
        for _, choice in sorted(self.kept_rows(self.check(genotype), "cell").items()):
            number = number * len(self.ops) + choice
        return number

    def canonical(self, genotype: Genotype) -> Genotype:
        """The first genotype (by `index`) of its isomorphism class, as the benchmark counts them: 6,466 classes.

        `none`, and every operation on a node that nothing reaches, counts as nothing; `skip_connect` passes its
        source on; sums are unordered. A sum keeps its empty terms, so some cells of equal value stay apart.
        """
        return _first_of_class(self.ops)[self.expression(genotype)](self)

    def expression(self, genotype: Genotype) -> str:
        """The cell as an expression of its input ``0``, where ``#`` is nothing; equal for isomorphic cells."""
        rows = self.kept_rows(self.check(genotype), "cell")
        return _expression(tuple(self.op_name("cell", row, choice) for row, choice in sorted(rows.items())))

    def format(self, genotype: Genotype) -> str:
        """The benchmark's text: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        kept = self.kept_rows(self.check(genotype), "cell")
        nodes = []
        for node in range(1, 4):
            rows = self.topology.rows_into(node)
            nodes.append("|" + "|".join(f"{self.op_name('cell', r, kept[r])}~{i}" for i, r in enumerate(rows)) + "|")
        return "+".join(nodes)

    def parse(self, text: str) -> Genotype:
        """Read the benchmark's text, or JSON.

        Raises:
            ValueError: If it is not a cell of this space; the message says what is wrong.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        example = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        nodes = text.split("+")
        if len(nodes) != 3:
            raise ValueError(f"not a NAS-Bench-201 cell: {text[:60]!r}; expected {example}")
        kept = {}
        for node, part in enumerate(nodes, start=1):
            match = re.fullmatch(r"\|" + r"([^|~+]+)~(\d)\|" * node, part)
            if match is None or [int(i) for i in match.groups()[1::2]] != list(range(node)):
                raise ValueError(f"node {node} of the cell reads {part[:60]!r}; expected {example}")
            for row, op in zip(self.topology.rows_into(node), match.groups()[::2], strict=True):
                if op not in self.ops:
                    raise ValueError(f"unknown operation {op[:60]!r} into node {node}; allowed are {self.ops}")
                kept[row] = self.ops.index(op)
        return self.from_rows({"cell": kept})


def _expression(ops: tuple[str, ...]) -> str:
    nodes, row = ["0"], 0
    for node in range(1, 4):
        terms = []
        for source in nodes[:node]:
            op, row = ops[row], row + 1
            if op == "none" or source == "#":
                terms.append("#")
            else:
                terms.append(source if op == "skip_connect" else f"({source})@{op}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


class _Choices(tuple[int, ...]):
    """Six choices that turn into a genotype of a space."""

    def __call__(self, space: NASBench201Space) -> Genotype:
        return space.from_rows({"cell": dict(enumerate(self))})


@lru_cache(maxsize=4)
def _first_of_class(ops: tuple[str, ...]) -> dict[str, _Choices]:
    first: dict[str, _Choices] = {}
    for choices in product(range(len(ops)), repeat=6):
        first.setdefault(_expression(tuple(ops[k] for k in choices)), _Choices(choices))
    return first
