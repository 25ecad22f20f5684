"""Networks of the spaces that are decided layer by layer: NAS-RL, MetaQNN, BlockQNN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.derived.blockqnn import stacked_blocks
from lightning_nas.ops import ConvBNReLU
from lightning_nas.spaces import CellNetwork, CellPlace, NetworkSize
from lightning_nas.spaces.blockqnn import BlockQNNSpace
from lightning_nas.spaces.metaqnn import MetaQNNSpace
from lightning_nas.spaces.nas_rl import NASRLSpace
from lightning_nas.spaces.skeleton import ImageNetStem, SimpleStem

__all__ = ["LayerSpace", "MetaQNNLayer", "NASRLLayers", "layer_network"]

LayerSpace = BlockQNNSpace | MetaQNNSpace | NASRLSpace
"""The spaces whose parts are here."""


def layer_network(space: LayerSpace, genotype: Genotype, size: NetworkSize) -> CellNetwork:
    """The network of a genotype of one of the three spaces.

    Networks of NAS-RL and MetaQNN have no stem: their layers take the picture, or what an ImageNet stem leaves of it.
    Blocks of BlockQNN stand behind a stem in three stages, at whose ends the resolution is halved and channels double.

    Raises:
        ValueError: If the size asks for several cells of a space whose genotypes are whole networks.
    """
    imagenet = size.stem == "imagenet"
    if isinstance(space, BlockQNNSpace):
        stem: nn.Module = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, size.channels, 1)
        blocks: list[nn.Module] = list(stacked_blocks(space, genotype, size))
        halvings = 2 + 2 * imagenet
    elif size.cells != 1:
        raise ValueError(f"cells={size.cells}: a genotype of {space.name!r} is a whole network; leave cells out")
    else:
        stem = ImageNetStem(size.in_channels, size.channels, 1) if imagenet else _Picture()
        before = size.channels if imagenet else size.in_channels
        if isinstance(space, NASRLSpace):
            blocks = [NASRLLayers(space, genotype, CellPlace("network", 0, (before,), size.channels))]
        else:
            blocks = list(_chain(space, genotype, before, size.channels))
        halvings = 2 * imagenet
    features = int(blocks[-1].out_channels)  # type: ignore[arg-type]
    return CellNetwork(stem, blocks, features, size.num_classes, halvings, track_stats=size.track_stats)


class _Picture(nn.Module):
    """The stem of a network without one."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The picture as it is."""
        return (x,)


class NASRLLayers(nn.Module):
    """The layers of NAS-RL: convolutions of any height and width, each with BN and ReLU.

    What feeds a layer is concatenated; smaller maps are padded with zeros at the right and at the bottom to the size of
    the largest. The output is the concatenation of all layers that feed nobody. Filters are in proportion to the
    channels of the place, of which the published network has 64.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: Where the layers stand.

    Attributes:
        out_channels: Channels of the output.

    Shape:
        - states: a tuple of one tensor ``(N, C, H, W)``
        - output: ``(N, out_channels, H', W')``, the size of the largest map that feeds nobody

    Reference:
        Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017.

    Example:
        >>> space = NASRLSpace(layers=2, start=2)
        >>> genotype = space.parse("nas_rl_2: 2  3 3 24  5 7 64 no")
        >>> NASRLLayers(space, genotype, CellPlace("network", 0, (3,), 8))((torch.zeros(2, 3, 6, 6),)).shape
        torch.Size([2, 11, 6, 6])
    """

    def __init__(self, space: NASRLSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.wiring, picks = space.wiring(genotype), genotype.picks
        widths, self.layers = {-1: place.in_channels[-1]}, nn.ModuleList()
        for i, sources in enumerate(self.wiring.inputs):
            parts = ("height", "width", "stride_height", "stride_width", "filters")
            height, width, down, right, filters = (int(space.choice(f"{part}/{i}", picks) or 1) for part in parts)
            widths[i] = max(1, filters * place.channels // space.derived_channels)
            conv = _Rectangle(sum(widths[j] for j in sources), widths[i], (height, width), (down, right))
            self.layers.append(nn.Sequential(conv, nn.BatchNorm2d(widths[i]), nn.ReLU()))
        self.out_channels = sum(widths[i] for i in self.wiring.outputs)

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the layers; the sample of a supernet's call is not looked at."""
        maps = {-1: states[-1]}
        for i, (layer, sources) in enumerate(zip(self.layers, self.wiring.inputs, strict=True)):
            maps[i] = layer(_side_by_side([maps[j] for j in sources]))
        return _side_by_side([maps[i] for i in self.wiring.outputs])


class _Rectangle(nn.Conv2d):
    """A convolution of odd height and width without bias; where the kernel is 1, a stride takes the pixels first."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, H, W)`` -> ``(N, out, H / stride, W / stride)``, rounded up."""
        sides = tuple(zip(self.kernel_size, self.stride, strict=True))
        down, right = (stride if kernel == 1 else 1 for kernel, stride in sides)
        rest = tuple(1 if kernel == 1 else stride for kernel, stride in sides)
        return F.conv2d(x[:, :, ::down, ::right], self.weight, None, rest, self.padding)


def _side_by_side(maps: list[Tensor]) -> Tensor:
    """The concatenation of maps, smaller ones padded with zeros at the right and at the bottom."""
    height, width = (max(part.shape[axis] for part in maps) for axis in (2, 3))
    return torch.cat([F.pad(part, (0, width - part.shape[3], 0, height - part.shape[2])) for part in maps], dim=1)


class MetaQNNLayer(nn.Module):
    """A layer of MetaQNN: convolution with BN and ReLU, max pooling, or fully connected layer with ReLU.

    The published networks have dropout and no BN, and are begun again where they do not learn; with BN the long chains
    learn at once. A fully connected layer takes a map of the side that the space says; maps of another side, which come
    from pictures of another size, are averaged to it, and a window that is larger than its map is cut.

    Args:
        name: One of `META_QNN_LAYERS`, the end excepted.
        in_channels: Channels of the input.
        side: Height and width of the input; only a fully connected layer needs it.
        channels: Channels that 64 filters become; those of other layers, and units, are in proportion.

    Attributes:
        out_channels: Channels, or units, of the output.

    Shape:
        - states: a tuple of one tensor ``(N, in_channels, H, W)``
        - output: ``(N, out_channels, H', W')``, of units ``(N, out_channels, 1, 1)``

    Reference:
        Baker, Gupta, Naik and Raskar, "Designing Neural Network Architectures using Reinforcement Learning", ICLR 2017.

    Example:
        >>> x = (torch.zeros(2, 4, 8, 8),)
        >>> [tuple(MetaQNNLayer(name, 4, 8)(x).shape[1:]) for name in ("conv_64_5x5", "pool_3_2", "fc_128")]
        [(64, 8, 8), (4, 3, 3), (128, 1, 1)]
    """

    def __init__(self, name: str, in_channels: int, side: int, channels: int = 64) -> None:
        super().__init__()
        self.kind, *numbers = name.split("_")
        self.side, self.window, self.stride = side, 0, 0
        own = max(1, int(numbers[0]) * channels // MetaQNNSpace.derived_channels)
        self.out_channels = in_channels if self.kind == "pool" else own
        self.body: nn.Module = nn.Identity()
        if self.kind == "pool":
            self.window, self.stride = map(int, numbers)
        elif self.kind == "conv":
            self.body = ConvBNReLU(in_channels, self.out_channels, int(numbers[1].split("x")[0]))
        else:
            self.body = nn.Sequential(nn.Linear(in_channels * side**2, self.out_channels), nn.ReLU())

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the layer; the sample of a supernet's call is not looked at."""
        x = states[-1]
        height, width = x.shape[-2:]
        if self.kind == "pool":
            return F.max_pool2d(x, (min(self.window, height), min(self.window, width)), self.stride)
        if self.kind == "conv":
            return self.body(x)  # type: ignore[no-any-return]
        if (height, width) != (self.side, self.side):
            x = F.adaptive_avg_pool2d(x, self.side)
        return self.body(x.flatten(1))[:, :, None, None]  # type: ignore[no-any-return]


def _chain(space: MetaQNNSpace, genotype: Genotype, before: int, channels: int) -> list[MetaQNNLayer]:
    """The layers of a genotype; behind a fully connected one the side is 1."""
    layers, side = list[MetaQNNLayer](), space.size
    for name, after in zip(space.network_layers(genotype), space.sizes(genotype), strict=True):
        layers.append(MetaQNNLayer(name, before, side, channels))
        before, side = layers[-1].out_channels, 1 if name.startswith("fc") else after
    return layers
