"""Networks of the spaces of early evolution: stages of Genetic CNN, hierarchical cells, grids of CGP-CNN."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.derived.grid import GridLayers, sum_of
from lightning_nas.ops import ConvBNReLU, OpSpec, make_op
from lightning_nas.spaces import CellNetwork, CellPlace, NetworkSize
from lightning_nas.spaces.cgp import CGPSpace
from lightning_nas.spaces.genetic_cnn import GeneticCNNSpace
from lightning_nas.spaces.hierarchical import HierarchicalSpace
from lightning_nas.spaces.skeleton import ImageNetStem, SimpleStem

__all__ = ["EvolvedSpace", "GeneticStage", "HierarchicalCell", "evolved_network"]

EvolvedSpace = CGPSpace | GeneticCNNSpace | HierarchicalSpace
"""The spaces whose parts are here."""


def evolved_network(space: EvolvedSpace, genotype: Genotype, size: NetworkSize) -> CellNetwork:
    """The network of a genotype of one of the three spaces.

    Raises:
        ValueError: If the size asks for a number of parts that the space does not have.
    """
    if isinstance(space, GeneticCNNSpace):
        return space.network(partial(GeneticStage, space, genotype), size)
    if isinstance(space, HierarchicalSpace):
        return space.network(partial(HierarchicalCell, space, genotype), size)
    if size.cells != 1:
        raise ValueError(f"cells={size.cells}: a grid of {space.name!r} is a whole network; leave cells out")
    imagenet = size.stem == "imagenet"
    stem = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, size.channels, 1)
    layers = GridLayers(space, genotype, CellPlace("network", 0, (size.channels,), size.channels))
    halvings = layers.pools + 2 * imagenet
    features = layers.out_channels
    return CellNetwork(stem, [layers], features, size.num_classes, halvings, track_stats=size.track_stats)


class GeneticStage(nn.Module):
    """A stage of Genetic CNN: 3x3 convolutions with BN and ReLU on its input and on each node, sums between them.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: The stage, whose kind is the name of its group.

    Shape:
        - states: a tuple of one tensor ``(N, C, H, W)``
        - output: ``(N, channels, H, W)``

    Example:
        >>> space = GeneticCNNSpace((3,))
        >>> stage = GeneticStage(space, space.parse("1-00"), CellPlace("stage1", 0, (3,), 4))
        >>> len(stage.nodes), stage((torch.zeros(2, 3, 8, 8),)).shape
        (2, torch.Size([2, 4, 8, 8]))
    """

    def __init__(self, space: GeneticCNNSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.out_channels = place.channels
        edges = space.edges(genotype, place.kind)
        used = sorted({node for edge in edges for node in edge})
        self.sources = {node: tuple(source for source, target in edges if target == node) for node in used}
        self.ends = tuple(node for node in used if all(source != node for source, _ in edges)) or (0,)
        self.input = ConvBNReLU(place.in_channels[-1], place.channels)
        self.nodes = nn.ModuleDict({str(node): ConvBNReLU(place.channels, place.channels) for node in used})

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the stage; the sample of a supernet's call is not looked at."""
        values = {0: self.input(states[-1])}
        for node, sources in self.sources.items():
            values[node] = self.nodes[str(node)](sum_of([values[source] for source in sources or (0,)]))
        return sum_of([values[node] for node in self.ends])


class HierarchicalCell(nn.Module):
    """A hierarchical cell: motifs inside motifs, each instance with weights of its own.

    What reaches a node is concatenated, and a 1x1 convolution with BN and ReLU brings it to the cell's channels; a
    single edge is taken as it is. An output that nothing reaches is zero.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: Where the cell stands.

    Shape:
        - states: a tuple of one tensor ``(N, channels, H, W)``
        - output: ``(N, channels, H, W)``

    Example:
        >>> space, x = HierarchicalSpace(), torch.randn(2, 4, 8, 8)
        >>> cell = HierarchicalCell(space, space.identity_chain(), CellPlace("cell", 0, (4,), 4))
        >>> torch.equal(cell((x,)), x)
        True
    """

    def __init__(self, space: HierarchicalSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.out_channels = place.channels
        self.motif = _Motif(space, genotype, space.root, place.channels)

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the cell; the sample of a supernet's call is not looked at."""
        out: Tensor = self.motif(states[-1])
        return out


class _Motif(nn.Module):
    """A motif of any level; edges that lead nowhere are not built."""

    def __init__(self, space: HierarchicalSpace, genotype: Genotype, group: str, channels: int) -> None:
        super().__init__()
        level, edges = int(group.split("/")[0].removeprefix("level")), space.motif(genotype, group)
        self.last = edges[-1][1]
        edges = tuple(edge for edge in edges if edge[2] != "none")
        reached = {0}
        for i, j, _ in edges:
            reached |= {j} if i in reached else set()
        needed = {self.last}
        for i, j, _ in reversed(edges):
            needed |= {i} if j in needed else set()
        kept = [(i, j, op) for i, j, op in edges if i in reached and j in needed]
        self.sources = {
            j: tuple(i for i, target, _ in kept if target == j) for j in dict.fromkeys(j for _, j, _ in kept)
        }
        below = f"level{level - 1}/"
        self.edges = nn.ModuleDict(
            {
                f"{j}<-{i}": _primitive(op, channels)
                if level == 2
                else _Motif(space, genotype, below + op[1:], channels)
                for i, j, op in kept
            }
        )
        merged = {str(j): len(sources) for j, sources in self.sources.items() if len(sources) > 1}
        self.merges = nn.ModuleDict({j: ConvBNReLU(n * channels, channels, 1) for j, n in merged.items()})

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)`` to the same."""
        values = {0: x}
        for j, sources in self.sources.items():
            parts = [self.edges[f"{j}<-{i}"](values[i]) for i in sources]
            values[j] = parts[0] if len(parts) == 1 else self.merges[str(j)](torch.cat(parts, dim=1))
        return values.get(self.last, torch.zeros_like(x))


def _primitive(name: str, channels: int) -> nn.Module:
    """A primitive; convolutions have BN and ReLU behind them."""
    c = channels
    if name == "identity":
        return nn.Identity()
    if name == "conv_1x1":
        return ConvBNReLU(c, c, 1)
    if name.endswith("pool_3x3"):
        return make_op(name, OpSpec(c))
    parts = [nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)]
    if name == "sep_conv_3x3":
        parts.append(nn.Conv2d(c, c, 1, bias=False))
    return nn.Sequential(*parts, nn.BatchNorm2d(c), nn.ReLU())
