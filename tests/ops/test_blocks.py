"""The blocks of cells and skeletons, against their definitions written with torch's functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.ops import ConvBN, FactorizedReduce, ReLUConvBN, ResidualBlock


def test_a_factorized_reduction_reads_even_and_odd_pixels() -> None:
    block, x = FactorizedReduce(3, 8), torch.randn(4, 3, 6, 10)
    relu = F.relu(x)
    even = torch.einsum("nchw,oc->nohw", relu[:, :, ::2, ::2], block.conv_1.weight[:, :, 0, 0])
    odd = torch.einsum("nchw,oc->nohw", relu[:, :, 1::2, 1::2], block.conv_2.weight[:, :, 0, 0])
    expected = F.batch_norm(torch.cat([even, odd], dim=1), None, None, training=True)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_a_factorized_reduction_of_few_channels_last() -> None:
    block, x = FactorizedReduce(4, 4).to(memory_format=torch.channels_last), torch.randn(8, 4, 16, 16)
    given, plain = x.to(memory_format=torch.channels_last).requires_grad_(), x.requires_grad_()
    weights = [conv.weight.detach().clone().requires_grad_() for conv in (block.conv_1, block.conv_2)]
    pixels = F.relu(plain)
    pairs = zip((pixels[:, :, ::2, ::2], pixels[:, :, 1::2, 1::2]), weights, strict=True)
    halves = [torch.einsum("nchw,oc->nohw", half, weight[:, :, 0, 0]) for half, weight in pairs]
    out = block(given)
    upstream = torch.randn_like(out)
    grads = torch.autograd.grad(out, [given, block.conv_1.weight, block.conv_2.weight], upstream)
    expected = F.batch_norm(torch.cat(halves, dim=1), None, None, training=True)
    for got, want in zip(grads, torch.autograd.grad(expected, [plain, *weights], upstream), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_a_factorized_reduction_refuses_odd_numbers() -> None:
    with pytest.raises(ValueError, match="even number of channels, got 5"):
        FactorizedReduce(4, 5)
    for shape in ((4, 5), (5, 4)):
        with pytest.raises(ValueError, match="even height and width"):
            FactorizedReduce(4, 4)(torch.zeros(1, 4, *shape))


def test_a_residual_block_adds_its_shortcut() -> None:
    block, x = ResidualBlock(4, 8).eval(), torch.randn(2, 4, 8, 8)
    a, b = block.conv_a[1].weight, block.conv_b[1].weight
    scale = (1 + 1e-5) ** -0.5  # of batch normalisation in its initial state
    path = F.conv2d(F.relu(x), a, stride=2, padding=1) * scale
    path = F.conv2d(F.relu(path), b, padding=1) * scale
    expected = path + F.conv2d(F.avg_pool2d(x, 2), block.shortcut[1].weight)
    torch.testing.assert_close(block(x), expected)
    assert sum(p.numel() for p in block.parameters()) == 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8 + 4 * 8


@pytest.mark.parametrize("block", [ConvBN, ReLUConvBN])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_convolutions_keep_or_divide_the_resolution(block: type, kernel: int, stride: int) -> None:
    layer = block(3, 8, kernel, stride)
    assert layer(torch.zeros(2, 3, 8, 12)).shape == (2, 8, 8 // stride, 12 // stride)
    assert sum(p.numel() for p in layer.parameters()) == 3 * 8 * kernel**2 + 16


def test_without_statistics_evaluation_and_training_agree() -> None:
    for block in (ReLUConvBN(3, 8, affine=False, track_stats=False), FactorizedReduce(3, 8, False, track_stats=False)):
        x = torch.randn(4, 3, 8, 8)
        torch.testing.assert_close(block.train()(x), block.eval()(x))
        assert not list(block.buffers())
