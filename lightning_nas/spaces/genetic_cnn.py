"""The space of Genetic CNN (Xie and Yuille, "Genetic CNN", ICCV 2017): stages of nodes wired by bits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import ClassVar

from torch import nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.independent import IndependentSpace
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

__all__ = ["GeneticCNNSpace"]

Edges = tuple[tuple[int, int], ...]


class GeneticCNNSpace(IndependentSpace):
    """Stages of nodes, all of them 3x3 convolutions of the sum of what reaches them; bits say who feeds whom.

    A stage with ``K`` nodes has ``K (K - 1) / 2`` bits, one for each pair of an earlier and a later node. The stage's
    own input feeds all nodes without a predecessor, and its output sums all nodes without a successor. Nodes without
    either are left out; in a stage without any bit the output is the input. A group is ``"stage1"`` and so on, its rows
    are ``"stage1/{target}<-{source}"`` with nodes numbered from 1 and the choices ``"0"`` and ``"1"``.

    Args:
        nodes: Nodes of each stage; other numbers than the published are part of the space's name.

    Raises:
        ValueError: If there is no stage, or one has fewer than 2 or more than 7 nodes.

    Example:
        >>> space = GeneticCNNSpace()
        >>> sum(len(rows) for rows in space.decisions.values())
        19
        >>> space.format(space.parse("1-01|0-01-100|1-00-111-0001"))
        '1-01|0-01-100|1-00-111-0001'
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_channels: ClassVar[int] = 64

    def __init__(self, nodes: Sequence[int] = (3, 4, 5)) -> None:
        self.nodes, self.derived_cells = tuple(nodes), len(nodes)
        if not self.nodes or not all(2 <= count <= 7 for count in self.nodes):
            raise ValueError(f"nodes={list(nodes)}: give one stage at least, with 2 to 7 nodes each")
        decisions = {
            f"stage{stage}": tuple(
                Decision(f"stage{stage}/{target}<-{source}", ("0", "1")) for source, target in _pairs(count)
            )
            for stage, count in enumerate(self.nodes, start=1)
        }
        name = "genetic_cnn" if self.nodes == (3, 4, 5) else "genetic_cnn_" + "_".join(map(str, self.nodes))
        super().__init__(name, decisions)

    def edges(self, genotype: Genotype, stage: str) -> Edges:
        """``(source, target)`` of every bit of a stage that is set, nodes numbered from 1."""
        picks, count = self.check(genotype).picks, self.nodes[list(self.decisions).index(stage)]
        rows = zip(_pairs(count), self.decisions[stage], strict=True)
        return tuple(pair for pair, row in rows if picks[row.name] == (1,))

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype with the least bits among all that number the nodes of a stage in another order."""
        picks = {}
        for stage, count in zip(self.decisions, self.nodes, strict=True):
            least = _least(self.edges(genotype, stage), count)
            for pair, row in zip(_pairs(count), self.decisions[stage], strict=True):
                picks[row.name] = (int(pair in least),)
        return self.check(Genotype(self.name, picks))

    def format(self, genotype: Genotype) -> str:
        """The paper's bits: those into each node joined by ``-``, stages by ``|``."""
        picks = self.check(genotype).picks
        stages = []
        for rows, count in zip(self.decisions.values(), self.nodes, strict=True):
            bits = iter(str(picks[row.name][0]) for row in rows)
            stages.append("-".join("".join(next(bits) for _ in range(node)) for node in range(1, count)))
        return "|".join(stages)

    def parse(self, text: str) -> Genotype:
        """Read the paper's bits, or JSON.

        Raises:
            ValueError: If it is no genotype of this space; the message shows one.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        example = "|".join("-".join("0" * node for node in range(1, count)) for count in self.nodes)
        if re.sub("1", "0", text) != example:
            raise ValueError(f"not a genotype of {self.name!r}: {text[:60]!r}; expected bits like {example}")
        return self.from_indices([int(bit) for bit in text if bit in "01"])

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The stages with convolutions on their nodes and plain wires; nodes that are left out are not there."""
        return {stage: _graph(self.edges(genotype, stage)) for stage in self.decisions}

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """A stem and the stages, each with a 2x2 max-pooling behind it; channels double from stage to stage.

        Raises:
            ValueError: If the size asks for another number of stages.
        """
        if size.cells != len(self.nodes):
            raise ValueError(f"cells={size.cells}: {self.name!r} has {len(self.nodes)} stages; leave cells out")
        imagenet, before = size.stem == "imagenet", size.channels
        stem: nn.Module = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, size.channels, 1)
        blocks: list[nn.Module] = []
        for index, stage in enumerate(self.decisions):
            channels = size.channels * 2**index
            blocks += [make_cell(CellPlace(stage, index, (before,), channels)), FixedBlock(nn.MaxPool2d(2))]
            before = channels
        halvings = len(self.nodes) + 2 * imagenet
        return CellNetwork(stem, blocks, before, size.num_classes, halvings, track_stats=size.track_stats)


def _pairs(count: int) -> Edges:
    """Pairs of an earlier and a later node, by the later one."""
    return tuple((source, target) for target in range(2, count + 1) for source in range(1, target))


def _graph(edges: Edges) -> CellGraph:
    """The graph of a stage."""
    used = sorted({node for edge in edges for node in edge})
    at = {node: index for index, node in enumerate(used, start=1)}
    end = len(used) + 1
    wires = [(0, at[node], "") for node in used if all(target != node for _, target in edges)]
    wires += [(at[source], at[target], "") for source, target in edges]
    wires += [(at[node], end, "") for node in used if all(source != node for source, _ in edges)]
    wires = wires or [(0, end, "")]
    return CellGraph(("input", *(f"{node}: conv_3x3" for node in used), "output"), tuple(wires))


@lru_cache(maxsize=100_000)
def _least(edges: Edges, count: int) -> Edges:
    """The edges, in the numbering of the nodes under which the bits are least when read as a number."""
    pairs, least = _pairs(count), edges
    bits = [pair in edges for pair in pairs]
    for order in permutations(range(1, count + 1)):
        moved = {(order[source - 1], order[target - 1]) for source, target in edges}
        if all(source < target for source, target in moved) and (new := [pair in moved for pair in pairs]) < bits:
            bits, least = new, tuple(sorted(moved))
    return least
