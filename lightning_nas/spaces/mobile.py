"""The mobile spaces of ProxylessNAS, FBNet and Single Path One-Shot, each a chain of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lightning_nas.ops.mobile import FBNET_OPS, PROXYLESS_OPS, BlockSpec, MBConv, Norm, relu, relu6
from lightning_nas.ops.shufflenet import SHUFFLENET_OPS
from lightning_nas.spaces.chain_skeleton import BlockPlace, ChainStem, Shortcut
from lightning_nas.spaces.chain_space import ChainSpace
from lightning_nas.spaces.skeleton import NetworkSize

__all__ = ["FBNetSpace", "ProxylessMobileSpace", "ShuffleNetSpace"]

Stages = Sequence[tuple[int, int, int]]
"""Channels, number of blocks and first stride of each stage."""


class ProxylessMobileSpace(ChainSpace):
    """21 blocks of MBConv with kernels of 3, 5 or 7 and expansions of 3 or 6: 10^17.3 networks.

    Blocks that keep the shape of their input add it to their output, and have `Zero` as seventh candidate: then the
    shortcut alone remains. Batch normalisation has a scale in the search too, and eps 1e-3.

    Reference: Cai, Zhu and Han, "ProxylessNAS", ICLR 2019.

    Args:
        name: The space's name.
        stages: Channels, number of blocks and first stride of each stage.
        tail: Channels of the last 1x1 convolution.

    Example:
        >>> space = ProxylessMobileSpace()
        >>> [len(row.choices) for row in space.decisions["blocks"]]
        [6, 7, 7, 7, 6, 7, 7, 7, 6, 7, 7, 7, 6, 7, 7, 7, 6, 7, 7, 7, 6]
    """

    ops = PROXYLESS_OPS
    act = relu6
    identity: ClassVar[str | None] = "Zero"
    shortcut: ClassVar[Shortcut] = "block"
    eps: ClassVar[float] = 1e-3

    def __init__(
        self,
        name: str = "proxyless_mobile",
        stages: Stages = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1)),
        tail: int = 1280,
    ) -> None:
        super().__init__(name, 16, stages, tail)

    def choices(self, place: BlockPlace) -> tuple[str, ...]:
        """All candidates, `Zero` only where there is a shortcut."""
        return tuple(name for name in self.ops if place.keeps_shape or name != self.identity)

    def stem(self, size: NetworkSize, norm: Norm) -> ChainStem:
        """A 3x3 convolution to twice the channels, and an MBConv without expansion."""
        middle = self.width(32, size)
        block = MBConv(BlockSpec(middle, size.channels, norm=norm), 3, 1)
        return ChainStem(self.first_conv(size, middle, norm), block)


class FBNetSpace(ChainSpace):
    """22 blocks with nine candidates each: kernel 3 or 5; expansion 1 (also with two groups), 3 or 6; skip.

    A candidate adds its input to its output where the shape stays; there `skip` is the identity, and elsewhere a 1x1
    convolution with batch normalisation and ReLU, as in the released networks. The paper does not say whether batch
    normalisation has a scale in the search; here it has one.

    Reference: Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
    Search", CVPR 2019.

    Args:
        name: The space's name.
        stages: Channels, number of blocks and first stride of each stage.
        tail: Channels of the last 1x1 convolution (1504 in FBNet-A).

    Example:
        >>> space = FBNetSpace()
        >>> len(space.decisions["blocks"]), len(space.decisions["blocks"][0].choices)
        (22, 9)
    """

    ops = FBNET_OPS
    act = relu
    identity: ClassVar[str | None] = "skip"
    shortcut: ClassVar[Shortcut] = "candidate"

    def __init__(
        self,
        name: str = "fbnet",
        stages: Stages = (
            (16, 1, 1),
            (24, 4, 2),
            (32, 4, 2),
            (64, 4, 2),
            (112, 4, 1),
            (184, 4, 2),
            (352, 1, 1),
        ),
        tail: int = 1984,
    ) -> None:
        super().__init__(name, 16, stages, tail)


class ShuffleNetSpace(ChainSpace):
    """20 blocks of ShuffleNetV2 with kernel 3, 5 or 7 or in the form of Xception: 4^20 networks.

    Batch normalisation of the supernet has no scale.

    Reference: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.

    Args:
        name: The space's name.
        stages: Channels, number of blocks and first stride of each stage.
        tail: Channels of the last 1x1 convolution.

    Example:
        >>> space = ShuffleNetSpace()
        >>> len(space.decisions["blocks"]), len(space.decisions["blocks"][0].choices)
        (20, 4)
    """

    ops = SHUFFLENET_OPS
    act = relu
    search_affine: ClassVar[bool] = False

    def __init__(
        self,
        name: str = "shufflenet",
        stages: Stages = ((64, 4, 2), (160, 4, 2), (320, 8, 2), (640, 4, 2)),
        tail: int = 1024,
    ) -> None:
        super().__init__(name, 16, stages, tail)
