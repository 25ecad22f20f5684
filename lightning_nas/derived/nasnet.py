"""The cells of NASNet and their network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers.drop import drop_path
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import FactorizedReduce, OpSpec, ReLUConvBN, make_op
from lightning_nas.spaces import CellNetwork, CellPlace, NetworkSize
from lightning_nas.spaces.nasnet import NASNET_OPS, NASNetSpace
from lightning_nas.spaces.skeleton import ImageNetStem, SimpleStem

__all__ = ["NASNetCell", "nasnet_network"]


class NASNetCell(nn.Module):
    """A cell of NASNet: blocks that add or concatenate two operations, and the states that no block takes, joined.

    Both inputs are brought to the cell's channels, as in the cells of DARTS. In a reduction cell the operations on them
    have stride 2, and an input that no block takes is halved before it is concatenated. A concatenation that another
    block takes is brought to the cell's channels by ReLU, a 1x1 convolution and BN. Operations are ReLU, convolution
    and BN; a separable one is applied twice, a dilated one is not separable, and an identity of stride 2 is a
    factorized reduction.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: Where the cell stands, with two inputs.

    Attributes:
        drop_path: Probability of dropping an operation's output in training, identities excepted.
        in_channels: Channels of the inputs.
        out_channels: Channels of the output.

    Shape:
        - states: two tensors ``(N, C_i, H, W)``
        - output: ``(N, out_channels, H', W')``, where a loose addition has the cell's channels and a loose
          concatenation twice as many

    Reference:
        Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018.

    Example:
        >>> space = NASNetSpace(blocks=1)
        >>> genotype = space.parse("nasnet_1: 0 1 identity conv_3x3 add  0 0 max_pool_3x3 identity concat")
        >>> cell, x = NASNetCell(space, genotype, CellPlace("reduce", 0, (6, 6), 4, True)), torch.zeros(2, 6, 8, 8)
        >>> cell((x, x)).shape
        torch.Size([2, 12, 4, 4])
    """

    def __init__(self, space: NASNetSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.drop_path, self.in_channels, c = 0.0, place.in_channels, place.channels
        self.blocks, self.ends = space.cell(genotype, place.kind), space.loose_ends(genotype, place.kind)
        before, last = place.in_channels
        first = FactorizedReduce(before, c) if place.reduced_before else ReLUConvBN(before, c)
        self.preprocess = nn.ModuleList([first, ReLUConvBN(last, c)])
        self.ops, self.joints, widths = nn.ModuleDict(), nn.ModuleDict(), [c, c]
        for state, (combine, sides) in enumerate(self.blocks, start=2):
            for side, (source, op) in zip(("left", "right"), sides, strict=True):
                stride = 2 if place.reduction and source < 2 else 1
                self.ops[f"{state}/{side}"] = _OPERATIONS[NASNET_OPS[op]](c, stride)
            widths.append(2 * c if combine == "concat" else c)
            if combine == "concat" and state not in self.ends:
                self.joints[str(state)] = ReLUConvBN(2 * c, c)
        if place.reduction:
            self.joints.update({str(end): FactorizedReduce(c, c) for end in self.ends if end < 2})
        self.out_channels = sum(widths[end] for end in self.ends)

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the cell for its inputs; the sample of a supernet's call is not looked at."""
        values = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        for state, (combine, (left, right)) in enumerate(self.blocks, start=2):
            one, other = self._side(f"{state}/left", values[left[0]]), self._side(f"{state}/right", values[right[0]])
            out = one + other if combine == "add" else torch.cat([one, other], dim=1)
            values.append(self.joints[str(state)](out) if str(state) in self.joints else out)
        ends = [self.joints[str(e)](values[e]) if e < 2 and str(e) in self.joints else values[e] for e in self.ends]
        return torch.cat(ends, dim=1)

    def _side(self, name: str, x: Tensor) -> Tensor:
        """An operation, dropped at random for whole samples unless it is an identity."""
        op = self.ops[name]
        out: Tensor = op(x)
        return out if isinstance(op, nn.Identity) else drop_path(out, self.drop_path, self.training)


def nasnet_network(space: NASNetSpace, genotype: Genotype, size: NetworkSize) -> CellNetwork:
    """The usual skeleton, with reduction cells at one and two thirds of the depth; a ReLU stands before the pooling.

    Normal cells and reduction cells may concatenate different numbers of states, so each cell is built for what those
    before it give.
    """
    imagenet = size.stem == "imagenet"
    width = size.channels if imagenet else 3 * size.channels
    stem: nn.Module = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, width, 2)
    cells, c, before, last, reduced = list[nn.Module](), size.channels, width, width, imagenet
    reductions = {size.cells // 3, 2 * size.cells // 3}
    for index in range(size.cells):
        reduce = index in reductions
        c = 2 * c if reduce else c
        place = CellPlace("reduce" if reduce else "normal", index, (before, last), c, reduce, reduced)
        cell = NASNetCell(space, genotype, place)
        cells.append(cell)
        before, last, reduced = last, cell.out_channels, reduce
    halvings = len(reductions) + 3 * imagenet
    return CellNetwork(stem, cells, last, size.num_classes, halvings, nn.ReLU(), size.track_stats)


def _two_convs(length: int) -> Callable[[int, int], nn.Module]:
    """Convolutions of 1 x length and of length x 1, each with half of the stride."""

    def build(c: int, stride: int) -> nn.Module:
        wide = nn.Conv2d(c, c, (1, length), (1, stride), (0, length // 2), bias=False)
        high = nn.Conv2d(c, c, (length, 1), (stride, 1), (length // 2, 0), bias=False)
        return nn.Sequential(nn.ReLU(), wide, high, nn.BatchNorm2d(c))

    return build


def _separable(kernel: int) -> Callable[[int, int], nn.Module]:
    """ReLU, depthwise convolution, 1x1 convolution and BN, twice."""

    def half(c: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(c, c, kernel, stride, kernel // 2, groups=c, bias=False)
        return [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]

    return lambda c, stride: nn.Sequential(*half(c, stride), *half(c, 1))


def _conv(kernel: int) -> Callable[[int, int], nn.Module]:
    return lambda c, stride: ReLUConvBN(c, c, kernel, stride)


def _dilated(c: int, stride: int) -> nn.Module:
    """ReLU, 3x3 convolution with a dilation of 2 and BN."""
    conv = nn.Conv2d(c, c, 3, stride, padding=2, dilation=2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c))


def _max_pool(kernel: int) -> Callable[[int, int], nn.Module]:
    return lambda c, stride: nn.MaxPool2d(kernel, stride, kernel // 2)


_OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "identity": lambda c, stride: make_op("skip_connect", OpSpec(c, stride)),
    "conv_1x3_3x1": _two_convs(3),
    "conv_1x7_7x1": _two_convs(7),
    "dil_conv_3x3": _dilated,
    "avg_pool_3x3": lambda c, stride: make_op("avg_pool_3x3", OpSpec(c, stride)),
    "max_pool_3x3": _max_pool(3),
    "max_pool_5x5": _max_pool(5),
    "max_pool_7x7": _max_pool(7),
    "conv_1x1": _conv(1),
    "conv_3x3": _conv(3),
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "sep_conv_7x7": _separable(7),
}
"""Name -> function from channels and stride to the operation."""
