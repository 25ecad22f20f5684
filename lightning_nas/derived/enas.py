"""The discrete cell and the discrete layers of ENAS: exactly what a genotype keeps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.drop import drop_path
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import FactorizedReduce, OpSpec, make_op
from lightning_nas.spaces import ENAS_MACRO_OPS, ENAS_MICRO_OPS, CellPlace, ENASMacroSpace, ENASMicroSpace
from lightning_nas.spaces.enas import ENASSpace
from lightning_nas.spaces.enas_macro import make_macro_op

__all__ = ["DiscreteENASCell", "DiscreteENASLayers", "discrete_part"]


class DiscreteENASCell(nn.Module):
    """A cell of the micro space that executes a genotype and nothing else, with the parameter names of the supernet.

    It is the cell that was searched, with batch normalisation that has a scale. The released derived network differs:
    its reduction cells have operations of stride 2, and its loose ends are concatenated without a 1x1 convolution.

    Args:
        space: The space.
        genotype: An architecture of this space.
        place: Where the cell stands.

    Attributes:
        drop_path: Probability of dropping an operation's output in training, identities excepted.
        out_channels: Channels of the output.

    Shape:
        - states: two tensors ``(N, C_i, H, W)``
        - output: ``(N, channels, H', W')``

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = ENASMicroSpace(1)
        >>> genotype = space.parse("0 2 1 4  0 0 0 0")
        >>> cell, x = DiscreteENASCell(space, genotype, CellPlace("normal", 0, (8, 8), 4)), torch.zeros(2, 8, 6, 6)
        >>> cell((x, x)).shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(self, space: ENASMicroSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.drop_path, self.out_channels = 0.0, place.channels
        self.blocks = space.cell(genotype, place.kind)
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=True))
        self.edges = nn.ModuleDict()
        for row, (source, op) in enumerate(side for block in self.blocks for side in block):
            made = make_op(ENAS_MICRO_OPS[op], OpSpec(place.channels))
            self.edges[str(row)] = nn.ModuleDict({str(source): nn.ModuleDict({str(op): made})})
        self.combine = nn.ModuleDict(
            {
                str(node): nn.Conv2d(place.channels, place.channels, 1, bias=False)
                for node in space.loose_ends(genotype, place.kind)
            }
        )
        self.norm = nn.BatchNorm2d(place.channels)

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the cell for its inputs; the sample of a supernet's call is not looked at."""
        nodes = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        for index, (left, right) in enumerate(self.blocks):
            nodes.append(self._side(2 * index, *left, nodes) + self._side(2 * index + 1, *right, nodes))
        loose = torch.cat([nodes[int(node)] for node in self.combine], dim=1)
        out: Tensor = self.norm(F.conv2d(F.relu(loose), _side_by_side(self.combine)))
        return out

    def _side(self, row: int, source: int, op: int, nodes: list[Tensor]) -> Tensor:
        module = self.edges[str(row)][str(source)][str(op)]  # type: ignore[index]
        out: Tensor = module(nodes[source])
        return out if isinstance(module, nn.Identity) else drop_path(out, self.drop_path, self.training)


class DiscreteENASLayers(nn.Module):
    """The layers of the macro space that a genotype keeps, with the parameter names of the supernet.

    Args:
        space: The space.
        genotype: An architecture of this space.
        place: Where the layers stand.
        grow: Whether channels double where the resolution is halved, as in the released derived network; those of the
            supernet do not.

    Attributes:
        drop_path: Probability of dropping an operation's output in training.
        out_channels: Channels of the output.

    Shape:
        - states: a tuple of one tensor ``(N, channels, H, W)``, H and W divisible by four
        - output: ``(N, out_channels, H/4, W/4)``

    Example:
        >>> space = ENASMacroSpace(3)
        >>> layers = DiscreteENASLayers(space, space.parse("0  3 1  5 0 1"), CellPlace("network", 0, (4,), 4))
        >>> layers((torch.zeros(2, 4, 8, 8),)).shape
        torch.Size([2, 16, 2, 2])
    """

    def __init__(self, space: ENASMacroSpace, genotype: Genotype, place: CellPlace, grow: bool = True) -> None:
        super().__init__()
        self.drop_path, self.chain = 0.0, space.chain(genotype)
        self.thirds = [space.third(layer) for layer in range(space.layers)]
        widths = [place.channels * (2**third if grow else 1) for third in range(3)]
        self.out_channels = widths[-1]
        self.ops, self.joins, self.norms = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.reductions = nn.ModuleDict({"0": nn.ModuleDict(), "1": nn.ModuleDict()})
        for layer, (op, skips) in enumerate(self.chain):
            c, third = widths[self.thirds[layer]], self.thirds[layer]
            made = make_macro_op(ENAS_MACRO_OPS[op], c, affine=True, track_stats=True)
            self.ops[str(layer)] = nn.ModuleDict({str(op): made})
            if layer:
                convs = {str(source): nn.Conv2d(c, c, 1, bias=False) for source in (*skips, layer)}
                self.joins[str(layer)], self.norms[str(layer)] = nn.ModuleDict(convs), nn.BatchNorm2d(c)
            for read in sorted({*skips, layer - 1} - {-1}):
                for step in range(self.thirds[read], third):
                    reduction: nn.ModuleDict = self.reductions[str(step)]  # type: ignore[assignment]
                    if str(read) not in reduction:
                        reduction[str(read)] = FactorizedReduce(widths[step], widths[step + 1])

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the layers for their input; the sample of a supernet's call is not looked at."""
        (out,) = states
        maps: list[Tensor] = []  # of each layer that is read later, as the third of the last one reads it
        for layer, (op, skips) in enumerate(self.chain):
            if layer and self.thirds[layer] > self.thirds[layer - 1]:
                halve: nn.ModuleDict = self.reductions[str(self.thirds[layer - 1])]  # type: ignore[assignment]
                maps = [halve[str(k)](x) if str(k) in halve else x for k, x in enumerate(maps)]
            out = self.ops[str(layer)][str(op)](maps[-1] if maps else out)  # type: ignore[index]
            out = drop_path(out, self.drop_path, self.training)
            if layer:
                joined = torch.cat([*(maps[k] for k in skips), out], dim=1)
                convs: nn.ModuleDict = self.joins[str(layer)]  # type: ignore[assignment]
                out = F.relu(self.norms[str(layer)](F.conv2d(joined, _side_by_side(convs))))
            maps.append(out)
        return out


def _side_by_side(slices: nn.ModuleDict) -> Tensor:
    """The kernel of a 1x1 convolution from its slices."""
    return torch.cat([conv.weight for conv in slices.values() if isinstance(conv, nn.Conv2d)], dim=1)


def discrete_part(space: ENASSpace, genotype: Genotype, place: CellPlace) -> DiscreteENASCell | DiscreteENASLayers:
    """What stands in a place of the network of a genotype of either space.

    Raises:
        ValueError: If the space is neither.
    """
    if isinstance(space, ENASMicroSpace):
        return DiscreteENASCell(space, genotype, place)
    if isinstance(space, ENASMacroSpace):
        return DiscreteENASLayers(space, genotype, place)
    raise ValueError(f"{space.name!r} is neither the micro nor the macro space of ENAS; build its networks yourself")
