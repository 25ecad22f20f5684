"""The block of BlockQNN and the stages of its network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.derived.grid import sum_of
from lightning_nas.ops import ReLUConvBN
from lightning_nas.spaces import CellPlace, NetworkSize
from lightning_nas.spaces.blockqnn import BlockQNNSpace

__all__ = ["BlockQNNBlock", "stacked_blocks"]


class BlockQNNBlock(nn.Module):
    """A block of BlockQNN: each layer on one or two earlier ones, outputs that no layer takes concatenated.

    A convolution is ReLU, convolution and BN, and gives the block's channels; poolings keep the size. A sum pads
    channels with zeros. An input of other than the block's channels is brought to them by ReLU, a 1x1 convolution and
    BN, so that what is concatenated does not multiply from block to block; that of a reduction is max-pooled before.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: Where the block stands.

    Attributes:
        out_channels: Channels of the output.

    Shape:
        - states: a tuple of one tensor ``(N, C, H, W)``
        - output: ``(N, out_channels, H, W)``, or half the height and width in a reduction

    Reference:
        Zhong, Yan, Wu, Shao and Liu, "Practical Block-wise Neural Network Architecture Generation", CVPR 2018.

    Example:
        >>> space = BlockQNNSpace(layers=3)
        >>> genotype = space.parse("conv_3:0 max_pool_3:0 terminal")
        >>> BlockQNNBlock(space, genotype, CellPlace("block", 0, (3,), 4, True))((torch.zeros(2, 3, 8, 8),)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, space: BlockQNNSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.reduction, (c_in,), c = place.reduction, place.in_channels, place.channels
        self.codes, self.ends = space.codes(genotype), space.loose_ends(genotype)
        self.input: nn.Module = nn.Identity() if c_in == c else ReLUConvBN(c_in, c)
        self.layers, widths = nn.ModuleDict(), [c]
        for node, (kind, sources) in enumerate(self.codes, start=1):
            own = [widths[source] for source in sources]
            widths.append(c if kind.startswith("conv") else sum(own) if kind == "concat" else max(own))
            if len(sources) == 1:
                self.layers[str(node)] = _layer(kind, own[0], c)
        self.out_channels = sum(widths[node] for node in self.ends)

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the block; the sample of a supernet's call is not looked at."""
        maps = [self.input(F.max_pool2d(states[-1], 2) if self.reduction else states[-1])]
        for node, (kind, sources) in enumerate(self.codes, start=1):
            parts = [maps[source] for source in sources]
            if kind == "concat":
                maps.append(torch.cat(parts, dim=1))
            elif kind == "add":
                width = max(part.shape[1] for part in parts)
                maps.append(sum_of([F.pad(part, (0, 0, 0, 0, 0, width - part.shape[1])) for part in parts]))
            else:
                maps.append(self.layers[str(node)](parts[0]))
        return torch.cat([maps[node] for node in self.ends], dim=1)


def _layer(kind: str, in_channels: int, channels: int) -> nn.Module:
    """A layer of a block that takes one input."""
    if kind == "identity":
        return nn.Identity()
    name, _, kernel = kind.rpartition("_")
    if name == "conv":
        return ReLUConvBN(in_channels, channels, int(kernel))
    if name == "max_pool":
        return nn.MaxPool2d(int(kernel), 1, int(kernel) // 2)
    return nn.AvgPool2d(int(kernel), 1, int(kernel) // 2, count_include_pad=False)


def stacked_blocks(space: BlockQNNSpace, genotype: Genotype, size: NetworkSize) -> list[BlockQNNBlock]:
    """The blocks of three stages; the first of the second and of the third halve and double the channels."""
    blocks, before = list[BlockQNNBlock](), size.channels
    for index in range(3 * size.cells):
        stage, first = index // size.cells, index % size.cells == 0
        place = CellPlace("block", index, (before,), size.channels * 2**stage, reduction=bool(stage) and first)
        blocks.append(BlockQNNBlock(space, genotype, place))
        before = blocks[-1].out_channels
    return blocks
