"""The blocks of the mobile search spaces of ProxylessNAS and FBNet.

Shortcuts around a block are not in it: whoever executes it adds them, once for all candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lightning_nas.ops.blocks import Conv
from lightning_nas.ops.candidates import Zero

__all__ = [
    "FBNET_OPS",
    "PROXYLESS_OPS",
    "BlockSpec",
    "ConvNormAct",
    "MBConv",
    "Norm",
    "relu",
    "relu6",
]

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    """ReLU in place: it follows a batch normalisation, which keeps its input and not its output."""
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    """ReLU that ends at 6, in place."""
    return nn.ReLU6(inplace=True)


@dataclass(frozen=True)
class Norm:
    """How a network normalises.

    Args:
        affine: Whether batch normalisation has a scale and a shift.
        eps: What it adds to the variance.

    Example:
        >>> Norm(eps=1e-3)(8).eps
        0.001
    """

    affine: bool = True
    eps: float = 1e-5

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        """A batch normalisation of so many channels."""
        return nn.BatchNorm2d(channels, self.eps, affine=self.affine)


@dataclass(frozen=True)
class BlockSpec:
    """The place where a block stands.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 1, or 2 to halve the resolution.
        norm: How it normalises.
        keeps_shape: Whether the input can stand for the output: then a candidate that skips the block computes
            nothing, and elsewhere it is a 1x1 convolution.
    """

    in_channels: int
    out_channels: int
    stride: int = 1
    norm: Norm = Norm()
    keeps_shape: bool = False


class ConvNormAct(nn.Sequential):
    """Convolution (no bias), batch normalisation, activation (none by default).

    Example:
        >>> import torch
        >>> ConvNormAct(4, 6, kernel=3, stride=2, act=relu6)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm: Norm = Norm(),
        act: Activation | None = None,
    ) -> None:
        super().__init__(
            Conv(in_channels, out_channels, kernel, stride, groups),
            norm(out_channels),
            *([] if act is None else [act()]),
        )


class MBConv(nn.Sequential):
    """Mobile inverted bottleneck: 1x1 convolution to `expand` times the channels, depthwise, 1x1 to the output.

    Each convolution has batch normalisation, the first two an activation. From Sandler et al., "MobileNetV2", CVPR
    2018.

    Args:
        spec: Where it stands.
        kernel: Size of the depthwise convolution.
        expand: Expansion of the channels.
        act: The activation.
        groups: Groups of the 1x1 convolutions; with more than one, channels are shuffled after the first (Zhang et al.,
            "ShuffleNet", CVPR 2018).
        always_expand: Whether there is a first 1x1 convolution when `expand` is 1 too (FBNet).

    Raises:
        ValueError: If the groups do not divide the channels.

    Example:
        >>> import torch
        >>> MBConv(BlockSpec(4, 6, stride=2), kernel=5, expand=3)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(
        self,
        spec: BlockSpec,
        kernel: int = 3,
        expand: int = 6,
        act: Activation = relu6,
        groups: int = 1,
        always_expand: bool = False,
    ) -> None:
        c_in, c_out, middle, norm = spec.in_channels, spec.out_channels, expand * spec.in_channels, spec.norm
        if c_in % groups or c_out % groups:
            raise ValueError(
                f"{groups} groups do not divide {c_in} and {c_out} channels; choose widths that they divide"
            )
        parts: list[nn.Module] = []
        if expand > 1 or always_expand:
            parts.append(ConvNormAct(c_in, middle, groups=groups, norm=norm, act=act))
        if groups > 1:
            parts.append(nn.ChannelShuffle(groups))
        parts.append(ConvNormAct(middle, middle, kernel, spec.stride, middle, norm, act))
        parts.append(ConvNormAct(middle, c_out, groups=groups, norm=norm))
        super().__init__(*parts)


def _fbnet(kernel: int, expand: int, groups: int = 1) -> Callable[[BlockSpec], nn.Module]:
    return lambda spec: MBConv(spec, kernel, expand, relu, groups, always_expand=True)


def _fbnet_skip(spec: BlockSpec) -> nn.Module:
    if spec.keeps_shape:
        return Zero()
    return ConvNormAct(spec.in_channels, spec.out_channels, stride=spec.stride, norm=spec.norm, act=relu)


def _mbconv(kernel: int, expand: int) -> Callable[[BlockSpec], nn.Module]:
    return lambda spec: MBConv(spec, kernel, expand)


PROXYLESS_OPS: dict[str, Callable[[BlockSpec], nn.Module]] = {
    "3x3_MBConv3": _mbconv(3, 3),
    "3x3_MBConv6": _mbconv(3, 6),
    "5x5_MBConv3": _mbconv(5, 3),
    "5x5_MBConv6": _mbconv(5, 6),
    "7x7_MBConv3": _mbconv(7, 3),
    "7x7_MBConv6": _mbconv(7, 6),
    "Zero": lambda spec: Zero(spec.stride),
}
"""The candidates of ProxylessNAS (Cai, Zhu and Han, ICLR 2019) as published; `Zero` leaves the shortcut alone."""

FBNET_OPS: dict[str, Callable[[BlockSpec], nn.Module]] = {
    "k3_e1": _fbnet(3, 1),
    "k3_e1_g2": _fbnet(3, 1, groups=2),
    "k3_e3": _fbnet(3, 3),
    "k3_e6": _fbnet(3, 6),
    "k5_e1": _fbnet(5, 1),
    "k5_e1_g2": _fbnet(5, 1, groups=2),
    "k5_e3": _fbnet(5, 3),
    "k5_e6": _fbnet(5, 6),
    "skip": _fbnet_skip,
}
"""The candidates of FBNet (Wu et al., CVPR 2019) as published."""
