"""The depthwise convolution against the library's: values, gradients of any order, and what is not computed."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_nas.supernet.depthwise import Taps, depthwise, fan

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
SIZES = ((1, 1), (2, 2), (2, 9), (6, 6), (7, 7), (8, 10), (9, 12), (12, 9), (11, 11))
CHANNELS = 3

kernels = pytest.mark.parametrize("kernel", [1, 3, 5, 7])
strides = pytest.mark.parametrize("stride", [1, 2, 3])
dilations = pytest.mark.parametrize("dilation", [1, 2, 3])
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def drawn(
    size: tuple[int, int],
    kernel: int,
    layout: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float64,
    batch: int = 2,
    channels: int = CHANNELS,
) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *size, generator=draw, dtype=torch.float64).to(dtype, memory_format=layout)
    weight = torch.randn(channels, 1, kernel, kernel, generator=draw, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), weight.requires_grad_()


def fits(size: tuple[int, int], kernel: int, padding: int, dilation: int) -> bool:
    return min(size) + 2 * padding > dilation * (kernel - 1)


def library(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])


def assert_equals_library(
    x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, rtol: float = 1e-10
) -> None:
    """Output, gradients, and a product of the Hessian with a vector."""
    found = []
    for execute in (depthwise, library):
        out = execute(x, weight, stride, padding, dilation)
        draw = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        of_out = torch.empty_like(out, requires_grad=False).copy_(draw).requires_grad_()
        first = torch.autograd.grad(out, (x, weight), of_out, create_graph=True)
        second = torch.autograd.grad((first[0] * x.detach().cos()).sum() + first[1].square().sum(), (x, weight, of_out))
        found.append((out, *first, *second))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        scale = max(1.0, float(theirs.detach().abs().max()))
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=rtol, atol=rtol)


@kernels
@strides
@dilations
@layouts
def test_equals_the_library(kernel: int, stride: int, dilation: int, layout: torch.memory_format) -> None:
    """For every padding: none, less than the size needs, what keeps it, more."""
    same, compared = dilation * (kernel // 2), 0
    for size, padding in product(SIZES, sorted({0, 1, 2, same, same + 1, same + 2})):
        if fits(size, kernel, padding, dilation):
            assert_equals_library(*drawn(size, kernel, layout), stride, padding, dilation)
            compared += 1
    assert compared >= 12


@layouts
@pytest.mark.parametrize("side", [4, 6, 7, 8, 9, 32])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_single_precision_as_the_spaces_use_it(
    stride: int, kernel: int, dilation: int, side: int, layout: torch.memory_format
) -> None:
    x, weight = drawn((side, side), kernel, layout, torch.float32, batch=4, channels=16)
    assert_equals_library(x, weight, stride, dilation * (kernel // 2), dilation, rtol=1e-4)


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 8),
    dilation=st.integers(1, 3),
    layout=st.sampled_from(list(LAYOUTS.values())),
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
)
def test_any_shape(
    size: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    layout: torch.memory_format,
    batch: int,
    channels: int,
) -> None:
    if fits(size, kernel, padding, dilation):
        x, weight = drawn(size, kernel, layout, batch=batch, channels=channels)
        assert_equals_library(x, weight, stride, padding, dilation)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (5, 1, 2, 1), (7, 1, 0, 1), (3, 1, 2, 2), (3, 2, 1, 1), (5, 2, 2, 1), (3, 2, 2, 2), (3, 3, 4, 1)],
)
def test_second_derivatives_by_differences(kernel: int, stride: int, padding: int, dilation: int) -> None:
    x, weight = drawn((8, 8), kernel, batch=1, channels=2)
    assert torch.autograd.gradcheck(depthwise, (x, weight, stride, padding, dilation), fast_mode=True)
    assert torch.autograd.gradgradcheck(depthwise, (x, weight, stride, padding, dilation), fast_mode=True)


def test_each_channel_has_a_kernel_of_its_own() -> None:
    """By hand: identity, and a shift to the left that zeros follow."""
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0, 1, 1] = weight[1, 0, 1, 2] = 1.0
    row = torch.tensor([1.0, 2.0, 3.0])
    out = depthwise(row.expand(1, 2, 3, 3), weight, padding=1)
    assert out[0, 0].tolist() == [[1.0, 2.0, 3.0]] * 3
    assert out[0, 1].tolist() == [[2.0, 3.0, 0.0]] * 3


class WeightGradients(TorchDispatchMode):
    """Counts the gradients of weights, and the convolutions, that are executed."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.convolutions = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket
        self.convolutions += name in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
        self.count += name is torch.ops.aten.convolution_backward and args[-1][1]
        return func(*args, **(kwargs or {}))


SHAPES = [(3, 1, 1, 1), (5, 1, 2, 1), (5, 1, 4, 2), (3, 2, 1, 1), (5, 2, 4, 2), (3, 3, 1, 1)]
shapes = pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SHAPES)


@shapes
def test_detached_weights_cost_nothing(kernel: int, stride: int, padding: int, dilation: int) -> None:
    x, weight = drawn((8, 8), kernel)
    out = depthwise(x, weight.detach(), stride, padding, dilation)
    with WeightGradients() as seen:
        torch.autograd.grad(out.sum(), x)
    assert (seen.count, seen.convolutions) == (0, 1)
    out = depthwise(x, weight, stride, padding, dilation)
    with WeightGradients() as seen:
        torch.autograd.grad(out.sum(), (x, weight))
    assert seen.count > 0


@shapes
def test_a_detached_input_costs_nothing(kernel: int, stride: int, padding: int, dilation: int) -> None:
    x, weight = drawn((8, 8), kernel)
    out = depthwise(x.detach(), weight, stride, padding, dilation)
    with WeightGradients() as seen:
        (grad,) = torch.autograd.grad(out.sum(), weight)
    assert seen.count == seen.convolutions > 0
    torch.testing.assert_close(
        grad, torch.autograd.grad(library(x, weight, stride, padding, dilation).sum(), weight)[0]
    )


@shapes
@layouts
def test_gradients_of_other_layouts(
    kernel: int, stride: int, padding: int, dilation: int, layout: torch.memory_format
) -> None:
    """A gradient may come expanded, or in the other memory format."""
    x, weight = drawn((8, 8), kernel, layout)
    out, theirs = depthwise(x, weight, stride, padding, dilation), library(x, weight, stride, padding, dilation)
    for of_out in (
        torch.ones(()).double().expand(out.shape),
        torch.randn_like(out).contiguous(memory_format=torch.channels_last),
        torch.randn_like(out).contiguous(),
        torch.randn_like(out).transpose(2, 3),
    ):
        ours = torch.autograd.grad(out, (x, weight), of_out, retain_graph=True)
        expected = torch.autograd.grad(theirs, (x, weight), of_out, retain_graph=True)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_the_same_bits_on_every_run() -> None:
    for kernel, stride, padding, dilation in SHAPES:
        x, weight = drawn((8, 8), kernel, torch.channels_last, torch.float32)
        runs = [
            torch.autograd.grad(depthwise(x, weight, stride, padding, dilation).square().sum(), (x, weight))
            for _ in range(2)
        ]
        assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@layouts
def test_under_autocast(layout: torch.memory_format) -> None:
    """In bfloat16 as the library's convolution; gradients arrive in the types of the leaves."""
    x, weight = drawn((8, 8), 5, layout, torch.float32)
    found = []
    for execute in (depthwise, library):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = execute(x, weight, 1, 2, 1)
        assert out.dtype == torch.bfloat16
        found.append((out, *torch.autograd.grad(out.float().square().sum(), (x, weight))))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


@layouts
@pytest.mark.parametrize("size", [(6, 6), (7, 9), (8, 8)])
def test_a_fan_equals_one_by_one(size: tuple[int, int], layout: torch.memory_format) -> None:
    """Several convolutions of one image, with one kernel per channel or more, of every shape that shares copies."""
    x, _ = drawn(size, 3, layout)
    taps = [Taps(1, 1, 1), Taps(1, 4, 2), Taps(2, 2, 1), Taps(2, 2, 2), Taps(2, 4, 2), Taps(2, 0, 2), Taps(1, 0, 1)]
    sizes = [(1, 3), (2, 5), (3, 5), (2, 3), (1, 5), (2, 1), (2, 3)]
    weights = [torch.randn(m * CHANNELS, 1, k, k, dtype=torch.float64, requires_grad=True) for m, k in sizes]
    ours = fan(x, weights, taps)
    theirs = [
        torch.cat([library(x, part, *tap) for part in weight.split(CHANNELS)], dim=1)
        for weight, tap in zip(weights, taps, strict=True)
    ]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    of_outs = [torch.randn_like(out) for out in ours]
    for read in ([0, 1, 2, 3, 4, 5, 6], [3], [1, 3], [0, 6], [5, 2]):
        found = []
        for outs in (ours, theirs):
            value = torch.stack([(outs[k] * of_outs[k]).sum() + outs[k].pow(3).sum() for k in read]).sum()
            first = torch.autograd.grad(value, (x, *weights), create_graph=True, allow_unused=True)
            norm = torch.stack([g.square().sum() for g in first if g is not None]).sum()
            found.append([*first, *torch.autograd.grad(norm, (x, *weights), retain_graph=True, allow_unused=True)])
        for one, other in zip(*found, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                scale = max(1.0, float(other.detach().abs().max()))
                torch.testing.assert_close(one / scale, other / scale, rtol=1e-10, atol=1e-10)
