"""The three spaces of NAS-Bench-1Shot1 (Zela, Siems and Hutter, "NAS-Bench-1Shot1", ICLR 2020).

Cells of NAS-Bench-101 with a fixed number of parents for each node, so that a supernet contains all of them. Nodes are
numbered as published: 0 is the cell's input, then come the choice blocks, each an operation on the sum of its parents,
and last the output, which concatenates the blocks it takes and adds the input if it takes that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from itertools import permutations, product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.ops import ReLUConvBN
from lightning_nas.spaces.base import CellGraph, Space
from lightning_nas.spaces.cell_space import check_pick
from lightning_nas.spaces.nasbench201 import FixedBlock
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, ImageNetStem, NetworkSize, SimpleStem

__all__ = ["ONE_SHOT1_OPS", "ONE_SHOT1_PARENTS", "NASBench1Shot1Space"]

ONE_SHOT1_OPS = ("maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu")

ONE_SHOT1_PARENTS = {1: (1, 2, 2, 2, 2), 2: (1, 1, 2, 2, 3), 3: (1, 1, 1, 2, 2, 2)}
"""Number of the space -> how many parents each block has, and the output at the end."""


class NASBench1Shot1Space(Space):
    """One kind of cell: choice blocks with one operation and a fixed number of parents each, concatenated.

    The groups are ``"ops"`` (a row for each block), ``"inputs"`` (a row for each block that has a choice among its
    predecessors) and ``"output"`` (one row). All are relaxed.

    Args:
        number: 1, 2 or 3: 14,580, 29,160 and 1,312,200 genotypes.

    Raises:
        ValueError: If there is no space of this number.

    Example:
        >>> space = NASBench1Shot1Space(1)
        >>> [row.choices for row in space.decisions["inputs"]]
        [('0', '1', '2'), ('0', '1', '2', '3')]
        >>> genotype = space.sample(random.Random(0))
        >>> space.parse(space.format(genotype)) == genotype
        True
    """

    default_cells: ClassVar[int] = 9  # of the published supernet

    def __init__(self, number: int = 1) -> None:
        if number not in ONE_SHOT1_PARENTS:
            raise ValueError(f"NAS-Bench-1Shot1 has no space {number!r}; give one of {list(ONE_SHOT1_PARENTS)}")
        self.name = f"nasbench1shot1_{number}"
        self.parents = ONE_SHOT1_PARENTS[number]
        self.blocks = len(self.parents) - 1
        rows = [
            Decision("output" if node > self.blocks else f"inputs/{node}", tuple(map(str, range(node))), keep)
            for node, keep in enumerate(self.parents, start=1)
        ]
        self.decisions = {
            "ops": tuple(Decision(f"ops/{block}", ONE_SHOT1_OPS) for block in range(1, self.blocks + 1)),
            "inputs": tuple(row for row in rows[:-1] if len(row.choices) > row.keep),
            "output": (rows[-1],),
        }
        self.relaxed = ("ops", "inputs", "output")

    def input_row(self, block: int) -> int | None:
        """The row of a block in the group ``"inputs"``; ``None`` if it takes all its predecessors."""
        names = [row.name for row in self.decisions["inputs"]]
        return names.index(f"inputs/{block}") if f"inputs/{block}" in names else None

    def cell(self, genotype: Genotype) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """The parents of each block and, at the end, of the output; the index of each block's operation."""
        picks = self.check(genotype).picks
        parents = [picks.get(f"inputs/{block}", tuple(range(block))) for block in range(1, self.blocks + 1)]
        return (*parents, picks["output"]), tuple(picks[row.name][0] for row in self.decisions["ops"])

    def _from_cell(self, parents: Mapping[int, tuple[int, ...]], ops: Mapping[int, int]) -> Genotype:
        """The genotype of valid parents of each node (``blocks + 1`` is the output) and operations of each block."""
        picks = {f"ops/{block}": (op,) for block, op in ops.items()} | {"output": parents[self.blocks + 1]}
        picks |= {row.name: parents[int(row.name.rsplit("/", 1)[1])] for row in self.decisions["inputs"]}
        return self.check(Genotype(self.name, picks))

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        if genotype.space != self.name:
            raise ValueError(f"a genotype of space {genotype.space!r} was given to space {self.name!r}; use its own")
        left = dict(genotype.picks)
        for row in self._rows():
            check_pick(row, left.pop(row.name, None), self.name)
        if left:
            raise ValueError(f"a genotype of {self.name!r} has no decision {sorted(left)}")
        return genotype

    def _rows(self) -> list[Decision]:
        return [row for rows in self.decisions.values() for row in rows]

    def sample(self, rng: random.Random) -> Genotype:  # noqa: D102
        picks = {row.name: tuple(rng.sample(range(len(row.choices)), row.keep)) for row in self._rows()}
        return self.check(Genotype(self.name, picks))

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:  # noqa: D102
        return rng.choice(list(self.neighbors(genotype)))

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes with one other operation, or one other parent of one node."""
        picks = self.check(genotype).picks
        for row in self._rows():
            kept = picks[row.name]
            for old, new in product(kept, set(range(len(row.choices))) - set(kept)):
                yield Genotype(self.name, {**picks, row.name: (*(k for k in kept if k != old), new)})

    def reached(self, genotype: Genotype) -> tuple[int, ...]:
        """The blocks from which a way leads to the output; the others are loose ends."""
        parents, _ = self.cell(genotype)
        found: set[int] = set()
        for node in range(self.blocks + 1, 0, -1):
            if node > self.blocks or node in found:
                found |= set(parents[node - 1])
        return tuple(sorted(found - {0}))

    def canonical(self, genotype: Genotype) -> Genotype:
        """The least of the genotypes that differ in the order of their blocks or in what does not reach the output.

        Renumbering blocks permutes the channels of the cell's output and nothing else.
        """
        (parents, ops), reached = self.cell(genotype), self.reached(genotype)
        cells = []
        for places in permutations(range(1, self.blocks + 1), len(reached)):
            new = {0: 0, **dict(zip(reached, places, strict=True)), self.blocks + 1: self.blocks + 1}
            moved = {new[node]: tuple(sorted(new[p] for p in parents[node - 1])) for node in new if node}
            if all(len(into) == self.parents[node - 1] and into[-1] < node for node, into in moved.items()):
                cells.append((sorted(moved.items()), sorted((new[block], ops[block - 1]) for block in reached)))
        best, best_ops = min(cells)
        blocks = range(1, self.blocks + 1)
        loose = {block: tuple(range(self.parents[block - 1])) for block in blocks}
        return self._from_cell(loose | dict(best), dict.fromkeys(blocks, 0) | dict(best_ops))

    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:
        """The best operation of each block; of the parents of each node the best, as many as the space fixes.

        A group without scores keeps its first choices.
        """
        picks: dict[str, tuple[int, ...]] = {}
        for group, rows in self.decisions.items():
            for index, row in enumerate(rows):
                value = torch.zeros(len(row.choices), dtype=torch.float64)
                if group in scores:
                    value = scores[group][index, : len(row.choices)].detach().double().clone()
                banned = [k for k, choice in enumerate(row.choices) if group == "ops" and choice in (exclude or ())]
                value[banned if len(banned) < len(row.choices) else []] = -torch.inf
                best = torch.sort(value, descending=True, stable=True).indices[: row.keep]
                picks[row.name] = tuple(best.tolist())
        return self.check(Genotype(self.name, picks))

    def format(self, genotype: Genotype) -> str:
        """JSON in one line: the operation of each block, the parents of each block and, at the end, of the output."""
        parents, ops = self.cell(genotype)
        names = [ONE_SHOT1_OPS[op] for op in ops]
        return json.dumps({"space": self.name, "ops": names, "parents": [list(into) for into in parents]})

    def parse(self, text: str) -> Genotype:
        """Read what `format` or `to_json` wrote.

        Raises:
            ValueError: If it is not a cell of this space; the message says what is wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            wanted = '{"space": ..., "ops": [...], "parents": [[0], ...]}'
            raise ValueError(f"not a NAS-Bench-1Shot1 cell: {text[:60]!r}; expected {wanted}") from None
        if not isinstance(data, dict) or not {"ops", "parents"} <= set(data):
            return self.from_json(text)
        if data.get("space") != self.name:
            given = str(data.get("space"))[:60]
            raise ValueError(f"a genotype of space {given!r} was given to space {self.name!r}; use its own")
        return self._from_cell(self._read_parents(data["parents"]), self._read_ops(data["ops"]))

    def _read_ops(self, names: object) -> dict[int, int]:
        if not isinstance(names, list) or len(names) != self.blocks:
            raise ValueError(f"ops must be a list of {self.blocks} operations, not {str(names)[:80]}")
        unknown = [str(name)[:60] for name in names if name not in ONE_SHOT1_OPS]
        if unknown:
            raise ValueError(f"unknown operation {unknown[0]!r}; allowed are {ONE_SHOT1_OPS}")
        return {block: ONE_SHOT1_OPS.index(name) for block, name in enumerate(names, start=1)}

    def _read_parents(self, lists: object) -> dict[int, tuple[int, ...]]:
        if not isinstance(lists, list) or len(lists) != len(self.parents):
            raise ValueError(f"parents must be {len(self.parents)} lists, the output's last, not {str(lists)[:80]}")
        read: dict[int, tuple[int, ...]] = {}
        for node, (keep, into) in enumerate(zip(self.parents, lists, strict=True), start=1):
            valid = isinstance(into, list) and all(type(p) is int and 0 <= p < node for p in into)
            if not valid or not len(into) == len(set(into)) == keep:
                raise ValueError(f"node {node} takes {keep} of the nodes 0 to {node - 1}, not {str(into)[:80]}")
            read[node] = tuple(into)
        return read

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The cell with operations on its nodes and plain wires; a block is labelled ``"1: conv3x3-bn-relu"``."""
        parents, ops = self.cell(genotype)
        nodes = ("input", *(f"{block}: {ONE_SHOT1_OPS[op]}" for block, op in enumerate(ops, start=1)), "output")
        edges = [(source, node, "") for node, into in enumerate(parents, start=1) for source in into]
        return {"cell": CellGraph(nodes, tuple(edges))}

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The published skeleton: a 2x2 max-pooling, padded by 1, at one and two thirds, where channels double.

        The padding makes maps of side ``s`` into maps of ``s // 2 + 1``, so pictures need not be divisible by two.
        """
        imagenet = size.stem == "imagenet"
        stem = _ActivatedStem((ImageNetStem if imagenet else SimpleStem)(size.in_channels, size.channels, 1))
        blocks: list[nn.Module] = []
        c, before = size.channels, size.channels
        for index in range(size.cells):
            if index in {size.cells // 3, 2 * size.cells // 3}:
                blocks.append(FixedBlock(nn.MaxPool2d(2, stride=2, padding=1)))
                c = 2 * c
            blocks.append(make_cell(CellPlace("cell", index, (before,), c)))
            before = self.blocks * c
        tail = ReLUConvBN(before, c, affine=False)
        return CellNetwork(stem, blocks, c, size.num_classes, 2 * imagenet, tail, size.track_stats)


class _ActivatedStem(nn.Module):
    """A stem with a ReLU behind it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.relu(out) for out in self.body(x))
