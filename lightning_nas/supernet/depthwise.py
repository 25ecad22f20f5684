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

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as library

__all__ = ["Taps", "depthwise", "fan"]

FAST_COLUMNS = 3
"""The most columns of a kernel for which the gradient of the weights has a fast kernel."""
SMALL_IMAGE = 8
"""Below this height that kernel is fast only without padding, so the image is padded before."""


class Taps(NamedTuple):
    """How a kernel is laid over an image: stride, zeros on each side, distance of the taps."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1


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
    return fan(x, [weight], [Taps(stride, padding, dilation)])[0]


def fan(x: Tensor, weights: Sequence[Tensor], taps: Sequence[Taps]) -> list[Tensor]:
    """Several depthwise convolutions of one image, each with any number of kernels per channel.

    Args:
        x: ``(N, C, H, W)``.
        weights: Each ``(m C, 1, k, k)``: the kernels of the first copy of all channels, of the second, ...
        taps: How each is laid over the image.

    Returns:
        For each ``(N, m C, H', W')``; any number of times differentiable.
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        copies = _Copies(x)
        pairs = zip(weights, taps, strict=True)
        return [F.conv2d(copies(w.shape[0], False), w, None, *tap, w.shape[0]) for w, tap in pairs]
    return list(_Fan.apply(x, tuple(taps), *weights))


class _Fan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: tuple[Taps, ...], *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.taps, ctx.size, kept = taps, x.shape, x if any(ctx.needs_input_grad[2:]) else None
        ctx.save_for_backward(kept, *weights)
        ctx.set_materialize_grads(False)
        copies = _Copies(x)
        outs = []
        for weight, tap in zip(weights, taps, strict=True):
            of, plain = copies(weight.shape[0], _halved(tap)), _plain(tap)
            outs.append(F.conv2d(of, weight, None, *plain, weight.shape[0]))
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        wanted = [_wanted(ctx, k) for k in range(len(ctx.needs_input_grad))]
        copies = None if x is None else _Copies(x)
        of_weights: list[Tensor | None] = [None] * len(weights)
        sums: dict[tuple[int, bool], Tensor] = {}
        for k, (grad, weight, tap) in enumerate(zip(grads, weights, ctx.taps, strict=True)):
            if grad is None:
                continue
            channels, halved = weight.shape[0], _halved(tap)
            sides = [-(-side // 2) if halved else side for side in ctx.size[2:]]
            if wanted[0]:
                size = torch.Size([ctx.size[0], channels, *sides])
                part = _input_gradient(grad, size, weight, *_plain(tap))
                sums[channels, halved] = sums[channels, halved].add_(part) if (channels, halved) in sums else part
            if wanted[2 + k] and copies is not None:
                of_weights[k] = _weight_gradient(grad, copies(channels, halved), weight, *_plain(tap))
        return (_gathered(sums, ctx.size), None, *of_weights)


def _wanted(ctx: Any, position: int) -> bool:
    """Whether the backward pass that runs now asks for this gradient: an architecture step asks for none of weights.

    What the library's own operations know, a function in Python has to look up.
    """
    if torch.compiler.is_compiling() or not ctx.needs_input_grad[position]:
        return bool(ctx.needs_input_grad[position])
    node, _ = ctx.next_functions[max(0, position - 1)]  # of the tensors only: the second argument is none
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # it is one of the tensors asked for
        return True


class _Copies:
    """Copies of an image side by side, and of its every second pixel, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.made: dict[tuple[int, bool], Tensor] = {}

    def __call__(self, channels: int, halved: bool) -> Tensor:
        if channels == self.x.shape[1] and not halved:
            return self.x
        if (channels, halved) not in self.made:
            x = self.x[:, :, ::2, ::2] if halved else self.x
            self.made[channels, halved] = torch.cat([x] * (channels // x.shape[1]), dim=1)
        return self.made[channels, halved]


def _halved(tap: Taps) -> bool:
    """Whether only every second row and column is ever read."""
    return tap.stride == tap.dilation == 2 and tap.padding % 2 == 0


def _plain(tap: Taps) -> Taps:
    """The taps on the image that is read."""
    return Taps(1, tap.padding // 2, 1) if _halved(tap) else tap


def _gathered(sums: dict[tuple[int, bool], Tensor], size: torch.Size) -> Tensor | None:
    """The gradient of the image from those of its copies."""
    total: Tensor | None = None
    for (channels, halved), part in sorted(sums.items(), key=lambda item: item[0][1]):
        if channels > size[1]:
            n, _, h, w = part.shape
            last = part.permute(0, 2, 3, 1).reshape(n, h, w, channels // size[1], size[1])
            part = last.sum(3).permute(0, 3, 1, 2)
        if halved:
            part = _spread(part, tuple(size))
        total = part if total is None else total + part
    return total


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
    wide = F.pad(x, (padding, grad.shape[-1] - x.shape[-1] + kernel - 1 - padding, above, above))
    for first in range(0, kernel, FAST_COLUMNS):
        columns = min(FAST_COLUMNS, kernel - first)
        moved, shape = wide[..., first : first + grad.shape[-1] + columns - 1], [channels, 1, kernel, columns]
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
