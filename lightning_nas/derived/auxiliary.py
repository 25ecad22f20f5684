"""The auxiliary classifier of the published training recipes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AuxiliaryHead"]

_WINDOW = 5
_PUBLISHED_SIDES = (7, 8)


class AuxiliaryHead(nn.Module):
    """A second classifier on a feature map in the middle of the network, for training only.

    ReLU, pooling to 2x2, 1x1 convolution to 128, BN, ReLU, 2x2 convolution to 768, BN, ReLU, linear (Liu, Simonyan
    and Yang, "DARTS", ICLR 2019).

    The published heads average windows of 5x5 at the corners of the map: with stride 3 on the 8x8 maps of CIFAR, with
    stride 2 on the 7x7 maps that a 224x224 picture leaves there. Maps of other sizes, which no recipe has, are averaged
    adaptively to 2x2 instead, so that the head works at every resolution and stays as published at the published ones.

    Args:
        channels: Channels of the feature map.
        num_classes: Outputs.
        second_norm: Whether the second convolution is normalised. The published ImageNet head leaves this out, which
            its authors call a slip that they kept, because their results were obtained with it.

    Example:
        >>> import torch
        >>> head = AuxiliaryHead(576, num_classes=10)
        >>> head(torch.zeros(2, 576, 8, 8)).shape, sum(p.numel() for p in head.parameters())
        (torch.Size([2, 10]), 476426)
    """

    def __init__(self, channels: int, num_classes: int, second_norm: bool = True) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU())
        norm: list[nn.Module] = [nn.BatchNorm2d(768)] if second_norm else []
        self.expand = nn.Sequential(nn.Conv2d(128, 768, 2, bias=False), *norm, nn.ReLU())
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)`` -> logits ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.expand(self.squeeze(_pool(F.relu(x)))).flatten(1))
        return logits


def _pool(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` -> ``(N, C, 2, 2)``."""
    height, width = x.shape[-2:]
    if height in _PUBLISHED_SIDES and width in _PUBLISHED_SIDES:
        return F.avg_pool2d(x, _WINDOW, stride=(height - _WINDOW, width - _WINDOW))
    return F.adaptive_avg_pool2d(x, 2)
