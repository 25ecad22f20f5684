"""The macro skeleton of NAS-Bench-101: a stem and three stacks of cells."""

from __future__ import annotations

from torch import nn

from lightning_nas.spaces.nasbench201 import FixedBlock
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, ImageNetStem, NetworkSize, SimpleStem

__all__ = ["stacks_of_modules"]


def stacks_of_modules(make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
    """Three stacks of `size.cells` cells; between them a 2x2 max-pooling halves the maps and channels double.

    Batch normalisation forgets and weights begin as in the published networks.

    Args:
        make_cell: Function from a place to a cell.
        size: The size of the network; 128 channels and 3 cells a stack are published.

    Reference:
        Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.

    Example:
        >>> from lightning_nas.ops import ConvBN
        >>> network = stacks_of_modules(lambda p: FixedBlock(ConvBN(p.in_channels[0], p.channels)), NetworkSize(4, 1))
        >>> network.num_features, network.reductions, len(network.blocks)
        (16, 2, 5)
    """
    imagenet = size.stem == "imagenet"
    stem = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, size.channels, 1)
    (stem.stem0 if isinstance(stem, ImageNetStem) else stem.conv).append(nn.ReLU())
    blocks: list[nn.Module] = []
    before = c = size.channels
    for stack in range(3):
        if stack:
            blocks.append(FixedBlock(nn.MaxPool2d(2)))
            c = 2 * c
        for index in range(stack * size.cells, (stack + 1) * size.cells):
            blocks.append(make_cell(CellPlace("cell", index, (before,), c)))
            before = c
    network = CellNetwork(stem, blocks, c, size.num_classes, 2 + 2 * imagenet, None, size.track_stats)
    return network.apply(_as_published)


def _as_published(part: nn.Module) -> None:
    """Momentum and initial weights of the published networks, whose framework has other defaults."""
    if isinstance(part, nn.BatchNorm2d):
        part.momentum = 0.003
    elif isinstance(part, nn.Conv2d):
        fan_in = part.weight[0].numel()
        cut = 0.87962566103423978  # deviation of a standard normal distribution that ends at -2 and 2
        deviation = fan_in**-0.5 / cut
        nn.init.trunc_normal_(part.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    elif isinstance(part, nn.Linear):
        nn.init.xavier_uniform_(part.weight)
        nn.init.zeros_(part.bias)
