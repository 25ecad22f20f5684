"""The candidate operations: shapes, sizes, and values against torch's own functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.ops import OPS, Noise, OpSpec, Zero, make_op

C = 6
# parameters without those of batch normalisation, and number of normalisations, at stride 1
SIZES = {
    "none": (0, 0),
    "max_pool_3x3": (0, 0),
    "avg_pool_3x3": (0, 0),
    "skip_connect": (0, 0),
    "sep_conv_3x3": (2 * (9 * C + C * C), 2),
    "sep_conv_5x5": (2 * (25 * C + C * C), 2),
    "dil_conv_3x3": (9 * C + C * C, 1),
    "dil_conv_5x5": (25 * C + C * C, 1),
    "nor_conv_1x1": (C * C, 1),
    "nor_conv_3x3": (9 * C * C, 1),
    "noise": (0, 0),
    "maxpool3x3": (0, 0),
    "conv1x1-bn-relu": (C * C, 1),
    "conv3x3-bn-relu": (9 * C * C, 1),
}


def test_every_operation_has_a_size_to_check() -> None:
    assert set(SIZES) == set(OPS)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", list(SIZES))
def test_shape_and_size(name: str, stride: int, affine: bool) -> None:
    op = make_op(name, OpSpec(C, stride, affine=affine))
    assert op(torch.randn(2, C, 8, 12)).shape == (2, C, 8 // stride, 12 // stride)
    plain, norms = (C * C, 1) if name == "skip_connect" and stride == 2 else SIZES[name]
    assert sum(p.numel() for p in op.parameters()) == plain + norms * 2 * C * affine
    assert all(m.bias is None for m in op.modules() if isinstance(m, nn.Conv2d))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in op.modules()) == norms


@pytest.mark.parametrize("name", list(SIZES))
def test_statistics_are_kept_or_not(name: str) -> None:
    op = make_op(name, OpSpec(C, 2, track_stats=False, pool_bn=True))
    assert not list(op.buffers())


@pytest.mark.parametrize("stride", [1, 2])
def test_poolings_are_torchs_with_a_norm_behind_only_where_asked(stride: int) -> None:
    x = torch.randn(4, C, 8, 8)
    maximum = F.max_pool2d(x, 3, stride, padding=1)
    counts = F.avg_pool2d(torch.ones_like(x), 3, stride, padding=1)  # the share of each window inside the picture
    mean = F.avg_pool2d(x, 3, stride, padding=1) / counts
    for name, expected in (("max_pool_3x3", maximum), ("avg_pool_3x3", mean)):
        torch.testing.assert_close(make_op(name, OpSpec(C, stride))(x), expected)
        normed = make_op(name, OpSpec(C, stride, pool_bn=True))
        torch.testing.assert_close(normed(x), F.batch_norm(expected, None, None, training=True))
        assert not list(normed.parameters())


def reference(op: nn.Module, x: Tensor, kernel: int, stride: int, dilation: int, times: int) -> Tensor:
    """Depthwise, pointwise, batch statistics, `times` over, with the operation's own weights."""
    convs = [m.weight for m in op.modules() if isinstance(m, nn.Conv2d)]
    for step in range(times):
        depthwise, pointwise = convs[2 * step : 2 * step + 2]
        padding = dilation * (kernel - 1) // 2
        x = F.conv2d(F.relu(x), depthwise, None, stride if step == 0 else 1, padding, dilation, groups=C)
        x = F.batch_norm(F.conv2d(x, pointwise), None, None, training=True)
    return x


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("name", "kernel", "dilation", "times"),
    [("sep_conv_3x3", 3, 1, 2), ("sep_conv_5x5", 5, 1, 2), ("dil_conv_3x3", 3, 2, 1), ("dil_conv_5x5", 5, 2, 1)],
)
def test_separable_convolutions(name: str, kernel: int, dilation: int, times: int, stride: int) -> None:
    op, x = make_op(name, OpSpec(C, stride)), torch.randn(4, C, 8, 8)
    torch.testing.assert_close(op(x), reference(op, x, kernel, stride, dilation, times))


@pytest.mark.parametrize("kernel", [1, 3])
def test_plain_convolutions(kernel: int) -> None:
    op, x = make_op(f"nor_conv_{kernel}x{kernel}", OpSpec(C)), torch.randn(4, C, 8, 8)
    (weight,) = [m.weight for m in op.modules() if isinstance(m, nn.Conv2d)]
    expected = F.batch_norm(F.conv2d(F.relu(x), weight, padding=kernel // 2), None, None, training=True)
    torch.testing.assert_close(op(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions_with_the_relu_behind(kernel: int, stride: int) -> None:
    op, x = make_op(f"conv{kernel}x{kernel}-bn-relu", OpSpec(C, stride)), torch.randn(4, C, 8, 8)
    (weight,) = [m.weight for m in op.modules() if isinstance(m, nn.Conv2d)]
    raw = F.conv2d(x, weight, None, stride, kernel // 2)
    torch.testing.assert_close(op(x), F.relu(F.batch_norm(raw, None, None, training=True)))


@pytest.mark.parametrize("pool_bn", [True, False])
def test_the_pooling_of_nasbench101_never_has_a_norm_behind(pool_bn: bool) -> None:
    x = torch.randn(2, C, 8, 8)
    assert torch.equal(make_op("maxpool3x3", OpSpec(C, pool_bn=pool_bn))(x), F.max_pool2d(x, 3, 1, padding=1))


def test_skip_is_an_identity_where_nothing_is_halved() -> None:
    x = torch.randn(1, C, 4, 4)
    assert make_op("skip_connect", OpSpec(C))(x) is x


@pytest.mark.parametrize(("stride", "shape"), [(1, (2, C, 5, 7)), (2, (2, C, 3, 4))])
def test_none_gives_zeros_whatever_comes_in(stride: int, shape: tuple[int, ...]) -> None:
    x = torch.full((2, C, 5, 7), torch.nan, dtype=torch.float64)
    out = Zero(stride)(x)
    assert torch.equal(out, torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(("stride", "shape"), [(1, (8, C, 21, 24)), (2, (8, C, 11, 12))])
def test_noise_is_normal_and_fresh_whatever_comes_in(stride: int, shape: tuple[int, ...]) -> None:
    x = torch.full((8, C, 21, 24), torch.nan, requires_grad=True)
    noise = Noise(stride).eval()
    torch.manual_seed(5)
    first, second = noise(x), noise(x)
    assert first.shape == second.shape == shape
    assert not first.requires_grad
    count = first.numel()
    for out in (first, second):  # five standard errors of the mean and of the variance
        assert abs(out.mean()) < 5 / count**0.5
        assert abs(out.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((first * second).mean()) < 5 / count**0.5
    torch.manual_seed(5)
    assert torch.equal(noise(torch.zeros_like(x)), first)
    assert noise(x.double()).dtype == torch.float64


def test_an_unknown_operation_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="unknown operation 'conv_9x9'; known are avg_pool_3x3"):
        make_op("conv_9x9", OpSpec(C))


def test_a_project_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "double", lambda spec: nn.Conv2d(spec.channels, spec.channels, 1))
    assert isinstance(make_op("double", OpSpec(C)), nn.Conv2d)
