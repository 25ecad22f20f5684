"""Depthwise convolution whose gradients take the fast kernels of a CPU.

A library's kernels for the gradients of a depthwise convolution are fast for some shapes only. On a CPU in
channels-last, per map of 64 channels at 32x32 and batch 16 (one thread, AVX-512, milliseconds):

===================================  ============  =====================================================
gradient                             the library   here
===================================  ============  =====================================================
input, 5x5, dilation 2               5.5           0.5: a convolution with the kernel turned by 180 degrees
weight, 5x5                          6.9           2.0: two convolutions of at most three columns each
weight, 3x3, dilation 2              3.1           1.2: undilated, on the four interleaved sub-images
input, stride 2, 5x5                 2.3           0.8: a turned convolution of the gradient spread out with zeros
any, stride 2 and dilation 2         8 to 20       as undilated: only every second pixel is ever read
===================================  ============  =====================================================

All are exact identities, so the choice is a rule by shape: the same bits on every run. Other devices take the library's
own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as library

__all__ = ["depthwise"]

FAST_COLUMNS = 3
"""The most columns of a kernel for which the gradient of the weights has a fast kernel."""
SMALL_IMAGE = 8
"""Below this height that kernel is fast only without padding, so the image is padded before."""


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """Convolve each channel with a kernel of its own.

    Args:
        x: ``(N, C, H, W)``.
        weight: ``(C, 1, k, k)``.
        stride: Stride.
        padding: Zeros on each side.
        dilation: Distance of the taps.

    Returns:
        ``(N, C, H', W')``; any number of times differentiable.

    Example:
        >>> depthwise(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), padding=1)[0, 0, 0].tolist()
        [4.0, 6.0, 6.0, 4.0]
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    if stride == dilation == 2 and padding % 2 == 0:
        x, stride, dilation, padding = x[:, :, ::2, ::2], 1, 1, padding // 2
    out: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.size = x.shape
        ctx.shape = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad[:2]
        return (
            _input_gradient(grad, ctx.size, weight, *ctx.shape) if of_x else None,
            _weight_gradient(grad, x, weight, *ctx.shape) if of_weight else None,
            None,
            None,
            None,
        )


def _input_gradient(grad: Tensor, size: torch.Size, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    turned = dilation * (weight.shape[-1] - 1) - padding
    if turned < 0 or stride > 2:
        own: Tensor = library.conv2d_input(size, weight, grad, stride, padding, dilation, size[1])  # type: ignore[no-untyped-call]
        return own
    if stride == 2:
        spread = (size[0], size[1], *(s + 2 * padding - dilation * (weight.shape[-1] - 1) for s in size[2:]))
        grad = _spread(grad, spread)
    return F.conv2d(grad, weight.flip(2, 3), None, 1, turned, dilation, size[1])


def _spread(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The pixels at every second row and column of an image of zeros."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout).zero_()
    out[:, :, ::2, ::2] = x
    return out


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    channels, _, kernel, _ = weight.shape
    even = x.shape[-1] % 2 == x.shape[-2] % 2 == 0 and padding % 2 == 0
    if dilation == 2 and stride == 1 and even and grad.shape[-2:] == x.shape[-2:]:
        return _weight_gradient(_interleaved(grad), _interleaved(x), weight, 1, padding // 2, 1)
    if kernel <= FAST_COLUMNS or dilation > 1 or stride > 1:
        return _of_library(x, list(weight.shape), grad, stride, padding, dilation)
    above = padding if x.shape[-2] < SMALL_IMAGE else 0
    parts = []
    for first in range(0, kernel, FAST_COLUMNS):
        columns = min(FAST_COLUMNS, kernel - first)
        left = padding - first
        right = grad.shape[-1] - x.shape[-1] + columns - 1 - left
        moved, shape = F.pad(x, (left, right, above, above)), [channels, 1, kernel, columns]
        parts.append(_of_library(moved, shape, grad, 1, (padding - above, 0), 1))
    return torch.cat(parts, dim=3)


def _of_library(
    x: Tensor, size: list[int], grad: Tensor, stride: int, padding: int | tuple[int, int], dilation: int
) -> Tensor:
    out: Tensor = library.conv2d_weight(x, size, grad, stride, padding, dilation, size[0])  # type: ignore[no-untyped-call]
    return out


def _interleaved(x: Tensor) -> Tensor:
    """The four images of every second row and column: ``(N, C, H, W) -> (4 N, C, H/2, W/2)``."""
    n, c, h, w = x.shape
    parts = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
    return parts.reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)
