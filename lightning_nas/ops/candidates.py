"""The candidate operations of the published cell spaces, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_nas.ops.blocks import Conv, FactorizedReduce, ReLUConvBN, batch_norm

__all__ = ["OPS", "ConvBNReLU", "Noise", "OpSpec", "Zero", "make_op"]


@dataclass(frozen=True)
class OpSpec:
    """The place where an operation stands.

    Args:
        channels: Channels of input and output.
        stride: 1, or 2 to halve the resolution.
        affine: Whether batch normalisation has a scale and a shift (off in a search, where a scale would absorb alpha).
        track_stats: Whether batch normalisation keeps running statistics.
        pool_bn: Whether a pooling is followed by batch normalisation without scale (DARTS, in search only).
    """

    channels: int
    stride: int = 1
    affine: bool = True
    track_stats: bool = True
    pool_bn: bool = False


class Zero(nn.Module):
    """The candidate `none`: zeros in the shape of the output, whatever the input holds."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> zeros of ``(N, C, H/stride, W/stride)``."""
        n, c, h, w = x.shape
        return x.new_zeros(n, c, -(-h // self.stride), -(-w // self.stride))


class Noise(nn.Module):
    """The candidate `noise`: fresh standard normal values in the shape of the output, whatever the input holds.

    They come from torch's global generator, at every call, in evaluation too. The harmful candidate of the space S4 of
    Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020.

    Example:
        >>> Noise(stride=2)(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 4, 4, 4])
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> normal values of ``(N, C, H/stride, W/stride)``; no gradient reaches the input."""
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


class ConvBNReLU(nn.Sequential):
    """Convolution (no bias), batch normalisation, ReLU: ``(N, in, H, W) -> (N, out, H/stride, W/stride)``.

    The order of NAS-Bench-101 (Ying et al., ICML 2019); the spaces of DARTS put the ReLU first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        affine: bool = True,
        track_stats: bool = True,
    ) -> None:
        super().__init__(
            Conv(in_channels, out_channels, kernel, stride),
            batch_norm(out_channels, affine, track_stats),
            nn.ReLU(),
        )


def _depthwise(spec: OpSpec, kernel: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise convolution, 1x1 convolution, batch normalisation."""
    c, padding = spec.channels, dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        batch_norm(c, spec.affine, spec.track_stats),
    )


def _sep_conv(kernel: int) -> Callable[[OpSpec], nn.Module]:
    def build(spec: OpSpec) -> nn.Module:
        return nn.Sequential(*_depthwise(spec, kernel, spec.stride), *_depthwise(spec, kernel, 1))

    return build


def _dil_conv(kernel: int) -> Callable[[OpSpec], nn.Module]:
    return lambda spec: _depthwise(spec, kernel, spec.stride, dilation=2)


def _nor_conv(kernel: int) -> Callable[[OpSpec], nn.Module]:
    return lambda spec: ReLUConvBN(
        spec.channels, spec.channels, kernel, spec.stride, affine=spec.affine, track_stats=spec.track_stats
    )


def _conv_bn_relu(kernel: int) -> Callable[[OpSpec], nn.Module]:
    return lambda spec: ConvBNReLU(
        spec.channels, spec.channels, kernel, spec.stride, affine=spec.affine, track_stats=spec.track_stats
    )


def _pool(make: Callable[[int], nn.Module]) -> Callable[[OpSpec], nn.Module]:
    def build(spec: OpSpec) -> nn.Module:
        pool = make(spec.stride)
        if not spec.pool_bn:
            return pool
        return nn.Sequential(pool, batch_norm(spec.channels, affine=False, track_stats=spec.track_stats))

    return build


def _skip(spec: OpSpec) -> nn.Module:
    if spec.stride == 1:
        return nn.Identity()
    return FactorizedReduce(spec.channels, spec.channels, spec.affine, spec.track_stats)


OPS: dict[str, Callable[[OpSpec], nn.Module]] = {
    "none": lambda spec: Zero(spec.stride),
    "noise": lambda spec: Noise(spec.stride),
    "max_pool_3x3": _pool(lambda stride: nn.MaxPool2d(3, stride, padding=1)),
    "avg_pool_3x3": _pool(lambda stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)),
    "skip_connect": _skip,
    "sep_conv_3x3": _sep_conv(3),
    "sep_conv_5x5": _sep_conv(5),
    "dil_conv_3x3": _dil_conv(3),
    "dil_conv_5x5": _dil_conv(5),
    "nor_conv_1x1": _nor_conv(1),
    "nor_conv_3x3": _nor_conv(3),
    "maxpool3x3": lambda spec: nn.MaxPool2d(3, spec.stride, padding=1),
    "conv1x1-bn-relu": _conv_bn_relu(1),
    "conv3x3-bn-relu": _conv_bn_relu(3),
}
"""Operation name -> function that builds it. A project adds its own with ``OPS["my_op"] = build``."""


def make_op(name: str, spec: OpSpec) -> nn.Module:
    """Build a candidate operation.

    Args:
        name: Its name in `OPS`.
        spec: Where it stands.

    Raises:
        ValueError: If no operation has this name.

    Example:
        >>> import torch
        >>> make_op("sep_conv_3x3", OpSpec(channels=4, stride=2))(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 4, 4, 4])
    """
    if name not in OPS:
        raise ValueError(f"unknown operation {name!r}; known are {', '.join(sorted(OPS))}; add your own to ops.OPS")
    return OPS[name](spec)
