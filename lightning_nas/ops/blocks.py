"""Building blocks that the candidate operations and the macro skeletons share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Conv",
    "ConvBN",
    "FactorizedReduce",
    "ReLUConvBN",
    "ResidualBlock",
    "batch_norm",
    "convolve",
    "require_even",
]


def batch_norm(channels: int, affine: bool = True, track_stats: bool = True) -> nn.BatchNorm2d:
    """Batch normalisation; without `track_stats` it uses the statistics of the batch in evaluation too."""
    return nn.BatchNorm2d(channels, affine=affine, track_running_stats=track_stats)


def convolve(
    x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Tensor:
    """A convolution without bias; a strided 1x1 one takes the pixels first and has stride 1, which is the same.

    oneDNN's strided 1x1 convolution of channels-last maps with fewer than 8 channels writes past its memory in the
    backward pass (its issue 6035), and the plain one is faster.
    """
    if stride > 1 and weight.shape[-1] == weight.shape[-2] == 1 and not padding:
        x, stride = x[:, :, ::stride, ::stride], 1
    return F.conv2d(x, weight, None, stride, padding, dilation, groups)


class Conv(nn.Conv2d):
    """A square convolution without bias, padded to keep the resolution, by `convolve`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, H, W) -> (N, out, H/stride, W/stride)``."""
        return convolve(x, self.weight, self.stride[0], int(self.padding[0]), groups=self.groups)


class ConvBN(nn.Sequential):
    """Convolution (no bias) and batch normalisation: ``(N, in, H, W) -> (N, out, H/stride, W/stride)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(Conv(in_channels, out_channels, kernel, stride), nn.BatchNorm2d(out_channels))


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution (no bias), batch normalisation: ``(N, in, H, W) -> (N, out, H/stride, W/stride)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        affine: bool = True,
        track_stats: bool = True,
    ) -> None:
        super().__init__(
            nn.ReLU(),
            Conv(in_channels, out_channels, kernel, stride),
            batch_norm(out_channels, affine, track_stats),
        )


def require_even(x: Tensor) -> None:
    """Refuse an image that a factorized reduction cannot halve.

    Raises:
        ValueError: If the height or the width is odd.
    """
    if x.shape[-1] % 2 or x.shape[-2] % 2:
        raise ValueError(f"a factorized reduction needs an even height and width, got {tuple(x.shape[-2:])}")


class FactorizedReduce(nn.Module):
    """Halve the resolution by two shifted 1x1 convolutions of stride 2: ``(N, in, H, W) -> (N, out, H/2, W/2)``.

    Every other pixel is taken first, for the reason that `convolve` tells.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; even, half from each convolution.
        affine: Whether the batch normalisation has a scale and a shift.
        track_stats: Whether it keeps running statistics.

    Raises:
        ValueError: If `out_channels` is odd, or (in `forward`) if the height or the width is odd.

    Example:
        >>> FactorizedReduce(4, 6)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool = True, track_stats: bool = True) -> None:
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"a factorized reduction needs an even number of channels, got {out_channels}")
        self.relu = nn.ReLU()
        self.conv_1 = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.conv_2 = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.bn = batch_norm(out_channels, affine, track_stats)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce ``(N, in, H, W)`` to ``(N, out, H/2, W/2)``."""
        require_even(x)
        x = self.relu(x)
        halves: Tensor = self.bn(torch.cat([self.conv_1(x[:, :, ::2, ::2]), self.conv_2(x[:, :, 1::2, 1::2])], dim=1))
        return halves


class ResidualBlock(nn.Module):
    """The fixed block of stride 2 between the stages of NAS-Bench-201 (Dong and Yang, ICLR 2020).

    Two ReLU-conv3x3-BN, added to a shortcut of 2x2 average pooling and a 1x1 convolution:
    ``(N, in, H, W) -> (N, out, H/2, W/2)``.

    Example:
        >>> ResidualBlock(4, 8)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, track_stats: bool = True) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(in_channels, out_channels, 3, stride=2, track_stats=track_stats)
        self.conv_b = ReLUConvBN(out_channels, out_channels, 3, track_stats=track_stats)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Reduce ``(N, in, H, W)`` to ``(N, out, H/2, W/2)``."""
        out: Tensor = self.conv_b(self.conv_a(x)) + self.shortcut(x)
        return out
