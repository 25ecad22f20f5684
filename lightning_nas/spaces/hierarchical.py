"""The hierarchical space (Liu et al., "Hierarchical Representations for Efficient Architecture Search", ICLR 2018)."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.json_text import read_value
from lightning_nas.spaces.nasbench201 import FixedBlock
from lightning_nas.spaces.skeleton import (
    CellFactory,
    CellNetwork,
    CellPlace,
    ImageNetStem,
    NetworkSize,
    SimpleStem,
    StemName,
)

__all__ = ["HIERARCHICAL_OPS", "HierarchicalSpace"]

HIERARCHICAL_OPS = ("none", "identity", "conv_1x1", "depthwise_3x3", "sep_conv_3x3", "max_pool_3x3", "avg_pool_3x3")
"""No edge, and the six primitives."""


class HierarchicalSpace(IndependentSpace):
    """Motifs made of motifs: primitives are the edges of small graphs, which are the edges of larger graphs.

    A motif is a graph of ordered nodes, the first its input and the last its output; on each pair of an earlier and a
    later node stands a motif of the level below, or ``"none"`` for no edge. Level 1 are the primitives. The last level
    has one motif, which is the cell. A group is ``"level2/0"`` (the first motif of level 2), and its rows are
    ``"level2/0/{target}<-{source}"``. Motifs of level 2 and above are named ``"m0"``, ``"m1"`` and so on.

    Args:
        motifs: Number of motifs of each level from the second on; as published six, then one.
        nodes: Nodes of the motifs of each of these levels; as published four, then five.

    Raises:
        ValueError: If there are no levels, their numbers differ, the last has more than one motif, or a number is too
            small.

    Example:
        >>> space = HierarchicalSpace()
        >>> len(space.decisions), sum(len(rows) for rows in space.decisions.values())
        (7, 46)
        >>> space.motif(space.identity_chain(), "level3/0")[:3]
        ((0, 1, 'm0'), (0, 2, 'none'), (1, 2, 'm0'))
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_channels: ClassVar[int] = 64
    derived_cells: ClassVar[int] = 1

    def __init__(self, motifs: Sequence[int] = (6, 1), nodes: Sequence[int] = (4, 5)) -> None:
        self.motifs, self.nodes = tuple(motifs), tuple(nodes)
        well = len(self.motifs) == len(self.nodes) >= 1 and self.motifs[-1:] == (1,)
        if not well or min(self.motifs) < 1 or min(self.nodes) < 2:
            raise ValueError(
                f"motifs={list(motifs)}, nodes={list(nodes)}: give as many numbers of either, at least one motif (the"
                " last level exactly one) and two nodes a level"
            )
        decisions: dict[str, tuple[Decision, ...]] = {}
        ops: tuple[str, ...] = HIERARCHICAL_OPS
        for level, (count, size) in enumerate(zip(self.motifs, self.nodes, strict=True), start=2):
            for motif in range(count):
                group = f"level{level}/{motif}"
                decisions[group] = tuple(Decision(f"{group}/{j}<-{i}", ops) for i, j in _pairs(size))
            ops = ("none", *(f"m{motif}" for motif in range(count)))
        published = (self.motifs, self.nodes) == ((6, 1), (4, 5))
        sizes = "_".join(f"{count}x{size}" for count, size in zip(self.motifs, self.nodes, strict=True))
        super().__init__("hierarchical" if published else f"hierarchical_{sizes}", decisions)

    @property
    def root(self) -> str:
        """The group of the one motif of the last level."""
        return f"level{len(self.motifs) + 1}/0"

    def motif(self, genotype: Genotype, group: str) -> tuple[tuple[int, int, str], ...]:
        """``(source, target, name)`` of every pair of nodes of a motif."""
        return self._motif(self.check(genotype), group)

    def _motif(self, genotype: Genotype, group: str) -> tuple[tuple[int, int, str], ...]:
        picks, size = genotype.picks, self.nodes[_level(group) - 2]
        rows = zip(_pairs(size), self.decisions[group], strict=True)
        return tuple((i, j, row.choices[picks[row.name][0]]) for (i, j), row in rows)

    def identity_chain(self) -> Genotype:
        """The trivial genotype: every motif is a chain of identities, made of the first motif below."""
        picks = {}
        for group, rows in self.decisions.items():
            for (i, j), row in zip(_pairs(self.nodes[_level(group) - 2]), rows, strict=True):
                picks[row.name] = (int(j == i + 1),)
        return self.check(Genotype(self.name, picks))

    def diversified(self, rng: random.Random, mutations: int = 1000) -> Genotype:
        """The trivial genotype after many mutations, as published for the first individuals.

        Args:
            rng: Source of randomness.
            mutations: Their number.
        """
        picks = dict(self.identity_chain().picks)
        for _ in range(mutations):
            self._change(picks, rng)
        return self.check(Genotype(self.name, picks))

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """Another choice on one edge: level, motif, target and source are drawn in this order, each uniformly."""
        picks = dict(self.check(genotype).picks)
        self._change(picks, rng)
        return Genotype(self.name, picks)

    def _change(self, picks: dict[str, tuple[int, ...]], rng: random.Random) -> None:
        level = rng.randrange(len(self.motifs))
        motif, target = rng.randrange(self.motifs[level]), rng.randrange(1, self.nodes[level])
        name = f"level{level + 2}/{motif}/{target}<-{rng.randrange(target)}"
        picks[name] = (rng.choice([k for k in range(len(self._rows[name].choices)) if (k,) != picks[name]]),)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype whose motifs are sorted and each there once; those that the cell does not use are empty.

        Numberings of the nodes inside a motif are told apart.
        """
        used = self._used(genotype)
        picks = {row.name: (0,) for rows in self.decisions.values() for row in rows}
        renamed: dict[str, str] = {}  # motifs of the level below -> what they are called now
        for level in range(2, len(self.motifs) + 2):
            here = {group: edges for group, edges in used.items() if _level(group) == level}
            contents = {g: tuple((i, j, renamed.get(op, op)) for i, j, op in edges) for g, edges in here.items()}
            ranks = {content: rank for rank, content in enumerate(sorted(set(contents.values())))}
            for content, rank in ranks.items():
                for row, (_, _, op) in zip(self.decisions[f"level{level}/{rank}"], content, strict=True):
                    picks[row.name] = (row.choices.index(op),)
            renamed = {f"m{group.split('/')[1]}": f"m{ranks[content]}" for group, content in contents.items()}
        return self.check(Genotype(self.name, picks))

    def _used(self, genotype: Genotype) -> dict[str, tuple[tuple[int, int, str], ...]]:
        """The groups of the motifs that the cell uses, with their edges."""
        used = {self.root: self.motif(genotype, self.root)}
        for level in range(len(self.motifs), 1, -1):
            names = {op for group, edges in used.items() if _level(group) == level + 1 for _, _, op in edges}
            groups = [f"level{level}/{name[1:]}" for name in sorted(names - {"none"})]
            used |= {group: self._motif(genotype, group) for group in groups}
        return used

    def format(self, genotype: Genotype) -> str:
        """JSON in one line: for each group the names on its edges, by target and then by source."""
        self.check(genotype)
        motifs = {group: " ".join(op for _, _, op in self._motif(genotype, group)) for group in self.decisions}
        return json.dumps({"space": self.name, "motifs": motifs})

    def parse(self, text: str) -> Genotype:
        """Read what `format` or `to_json` wrote.

        Raises:
            ValueError: If it is no genotype of this space; the message says what is wrong.
        """
        motifs = read_value(self.name, text, "motifs")
        if motifs is None:
            return self.from_json(text)
        if not isinstance(motifs, dict) or set(motifs) != set(self.decisions):
            raise ValueError(f"motifs must have the groups {list(self.decisions)}, each once")
        picks: dict[str, tuple[int, ...]] = {}
        for group, rows in self.decisions.items():
            names = str(motifs[group]).split()
            if len(names) != len(rows) or any(op not in row.choices for op, row in zip(names, rows, strict=False)):
                given = str(motifs[group])[:80]
                raise ValueError(f"{group} reads {given!r}; give {len(rows)} of {rows[0].choices}")
            picks |= {row.name: (row.choices.index(op),) for row, op in zip(rows, names, strict=True)}
        return self.check(Genotype(self.name, picks))

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The motifs that the cell uses, the cell last; what is ``"none"`` is not drawn."""
        genotype = self.canonical(genotype)
        graphs = {}
        for group in self.decisions:
            edges = tuple(edge for edge in self._motif(genotype, group) if edge[2] != "none")
            if edges or group == self.root:
                inner = map(str, range(1, self.nodes[_level(group) - 2] - 1))
                graphs[group] = CellGraph(("input", *inner, "output"), edges)
        return graphs

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """A stem and three stages of cells; separable convolutions between them halve the maps and double channels."""
        imagenet, c = size.stem == "imagenet", size.channels
        stem: nn.Module = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, c, 1)
        blocks: list[nn.Module] = []
        for stage in range(3):
            if stage:
                depthwise = nn.Conv2d(c, c, 3, 2, 1, groups=c, bias=False)
                pointwise = nn.Conv2d(c, 2 * c, 1, bias=False)
                blocks.append(FixedBlock(nn.Sequential(depthwise, pointwise, nn.BatchNorm2d(2 * c), nn.ReLU())))
                c = 2 * c
            first = stage * size.cells
            blocks += [make_cell(CellPlace("cell", index, (c,), c)) for index in range(first, first + size.cells)]
        return CellNetwork(stem, blocks, c, size.num_classes, 2 + 2 * imagenet, track_stats=size.track_stats)


def _level(group: str) -> int:
    return int(group.split("/")[0].removeprefix("level"))


def _pairs(nodes: int) -> tuple[tuple[int, int], ...]:
    """Pairs of an earlier and a later node, by the later one."""
    return tuple((i, j) for j in range(1, nodes) for i in range(j))
