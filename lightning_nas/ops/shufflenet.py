"""The blocks of the ShuffleNetV2 space of Single Path One-Shot."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_nas.ops.mobile import BlockSpec, ConvNormAct, Norm, relu

__all__ = ["SHUFFLENET_OPS", "ShuffleBlock"]


class ShuffleBlock(nn.Module):
    """A block of ShuffleNetV2: half of the channels pass, the others go through convolutions.

    With stride 1, even channels pass and odd ones are computed, which shuffles what the block before has concatenated.
    With stride 2, both branches see the whole input, and the first is a depthwise and a 1x1 convolution. The
    convolutions are 1x1, depthwise, 1x1, or, in the form of Xception, three times depthwise and 1x1. From Guo et al.,
    "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, after Ma et al., "ShuffleNet
    V2", ECCV 2018.

    Args:
        spec: Where it stands.
        kernel: Size of the depthwise convolutions.
        xception: Whether it has the form of Xception.

    Raises:
        ValueError: If channels are odd, or with stride 2 the output has not more of them than the input.

    Example:
        >>> ShuffleBlock(BlockSpec(4, 12, stride=2), kernel=5)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 12, 4, 4])
    """

    def __init__(self, spec: BlockSpec, kernel: int = 3, xception: bool = False) -> None:
        super().__init__()
        c_in, c_out, self.stride = spec.in_channels, spec.out_channels, spec.stride
        if c_in % 2 or c_out % 2 or (c_out <= c_in if self.stride > 1 else c_out != c_in):
            raise ValueError(
                f"a shuffle block of stride {self.stride} cannot take {c_in} channels to {c_out}; both must be even,"
                " equal with stride 1, more than before with stride 2"
            )
        c_in = c_in if self.stride > 1 else c_in // 2
        main = _xception if xception else _bottleneck
        self.main = nn.Sequential(*main(spec, c_in, c_out // 2, c_out - c_in, kernel))
        if self.stride > 1:
            self.passed = nn.Sequential(*_depthwise(spec.norm, c_in, c_in, kernel, self.stride))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H / stride, W / stride)``."""
        if self.stride > 1:
            return torch.cat([self.passed(x), self.main(x)], dim=1)
        return torch.cat([x[:, ::2], self.main(x[:, 1::2])], dim=1)


def _depthwise(norm: Norm, c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        ConvNormAct(c_in, c_in, kernel, stride, groups=c_in, norm=norm),
        ConvNormAct(c_in, c_out, norm=norm, act=relu),
    ]


def _bottleneck(spec: BlockSpec, c_in: int, middle: int, c_out: int, kernel: int) -> list[nn.Module]:
    first = ConvNormAct(c_in, middle, norm=spec.norm, act=relu)
    return [first, *_depthwise(spec.norm, middle, c_out, kernel, spec.stride)]


def _xception(spec: BlockSpec, c_in: int, middle: int, c_out: int, kernel: int) -> list[nn.Module]:
    first = _depthwise(spec.norm, c_in, middle, kernel, spec.stride)
    second = _depthwise(spec.norm, middle, middle, kernel)
    return [*first, *second, *_depthwise(spec.norm, middle, c_out, kernel)]


def _shuffle(kernel: int, xception: bool = False) -> Callable[[BlockSpec], nn.Module]:
    return lambda spec: ShuffleBlock(spec, kernel, xception)


SHUFFLENET_OPS: dict[str, Callable[[BlockSpec], nn.Module]] = {
    "shufflenet_3x3": _shuffle(3),
    "shufflenet_5x5": _shuffle(5),
    "shufflenet_7x7": _shuffle(7),
    "xception_3x3": _shuffle(3, xception=True),
}
"""The candidates of Single Path One-Shot (Guo et al., ECCV 2020), in their published order."""
