"""Networks of NAS-RL, MetaQNN and BlockQNN against evaluations by hand and closed forms."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.blockqnn import BlockQNNBlock
from lightning_nas.derived.sequential import MetaQNNLayer, NASRLLayers, _Rectangle
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.spaces import CellPlace, Space
from lightning_nas.spaces.blockqnn import BlockQNNSpace
from lightning_nas.spaces.metaqnn import MetaQNNSpace
from lightning_nas.spaces.nas_rl import NASRLSpace

SPACES: dict[str, Callable[[], Space]] = {
    "nas_rl": NASRLSpace,
    "nas_rl_strides": lambda: NASRLSpace(strides=True),
    "metaqnn": MetaQNNSpace,
    "metaqnn_8_16": lambda: MetaQNNSpace(8, 16),
    "metaqnn_4_4": lambda: MetaQNNSpace(4, 4),
    "blockqnn": BlockQNNSpace,
    "blockqnn_3": lambda: BlockQNNSpace(3),
}
every = pytest.mark.parametrize("name", SPACES)


def small(space: Space) -> dict[str, int]:
    return {"channels": 2, "cells": 1} if isinstance(space, BlockQNNSpace) else {"channels": 4}


def unlike(network: nn.Module) -> nn.Module:
    """The network in evaluation, with another normalisation in each place."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight, part.bias, part.running_mean, part.running_var):
                assert values is not None
                values.data.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def normed(x: Tensor, bn: nn.Module) -> Tensor:
    assert isinstance(bn, nn.BatchNorm2d)
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


@every
def test_every_drawn_genotype_builds(name: str) -> None:
    space, rng = SPACES[name](), random.Random(0)
    for _ in range(50):
        network = DerivedNetwork(space.sample(rng), space=space, num_classes=5, **small(space)).eval()
        for side in (16, 32):
            with torch.no_grad():
                features = network.forward_features(torch.randn(2, 3, side, side))
            assert features.shape[:2] == (2, network.num_features)
            assert network.forward_head(features).shape == (2, 5)
            assert bool(features.isfinite().all())


@every
def test_gradients_reach_every_parameter(name: str) -> None:
    space, rng = SPACES[name](), random.Random(0)
    for _ in range(8):
        network = DerivedNetwork(space.sample(rng), space=space, in_channels=1, **small(space))
        network(torch.randn(4, 1, 16, 16)).square().sum().backward()
        assert [path for path, weight in network.named_parameters() if weight.grad is None] == []
        assert all(bool(weight.grad.isfinite().all()) for weight in network.parameters() if weight.grad is not None)


@every
def test_what_a_network_of_any_space_can_do(name: str) -> None:
    space = SPACES[name]()
    genotype = space.sample(random.Random(1))
    network = DerivedNetwork(genotype, space=space, stem="imagenet", auxiliary=True, **small(space))
    assert network.forward_with_auxiliary(torch.randn(2, 3, 64, 64))[1].shape == (2, 10)
    with pytest.raises(ValueError, match="cannot be halved"):
        network(torch.randn(2, 3, 18, 18))
    network.reset_classifier(0)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, network.num_features)
    plain = DerivedNetwork(genotype, space=space, **small(space))
    first = plain.get_submodule(str(plain.default_cfg["first_conv"]))
    assert isinstance(first, (nn.Conv2d, nn.Linear))
    assert first.weight.shape[1] in (3, 3 * 4 * 4)
    assert count_macs(plain, (3, 16, 16)) > 0


@pytest.mark.parametrize("name", ["nas_rl", "metaqnn"])
def test_a_whole_network_is_not_repeated(name: str) -> None:
    space = SPACES[name]()
    with pytest.raises(ValueError, match=r"cells=2.*whole network; leave cells out"):
        DerivedNetwork(space.sample(random.Random(0)), space=space, cells=2)


# --- NAS-RL


@pytest.mark.parametrize(("kernel", "stride"), list(product(product((1, 3, 5, 7), repeat=2), product((1, 2, 3), (2,)))))
def test_a_rectangle_is_a_strided_convolution(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    conv = _Rectangle(2, 3, kernel, stride).double()
    x = torch.randn(2, 2, 9, 10, dtype=torch.float64)
    expected = F.conv2d(x, conv.weight, None, stride, (kernel[0] // 2, kernel[1] // 2))
    assert expected.shape[2:] == (-(-9 // stride[0]), 5)
    torch.testing.assert_close(conv(x), expected)


def test_nas_rl_pads_and_concatenates() -> None:
    """Layers 0, 1 and 3 take the picture, 2 takes 0 and 1, and 2 and 3 go to the classifier."""
    space = NASRLSpace(4, 4, strides=True)
    text = "4  3 1 2 1 24  1 5 1 2 48 no  3 3 1 1 36 yes yes  1 1 3 2 64 no no no"
    network = unlike(DerivedNetwork(space.parse(text), space=space, channels=64, num_classes=3))
    assert isinstance(network, DerivedNetwork)
    layers = network.body.blocks[0]
    assert isinstance(layers, NASRLLayers)

    def layer(i: int, x: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        conv, bn, _ = layers.layers[i]  # type: ignore[misc]
        return normed(F.conv2d(x, conv.weight, None, stride, padding), bn).relu()

    x = torch.randn(2, 3, 10, 10)
    zero, one, three = layer(0, x, (2, 1), (1, 0)), layer(1, x, (1, 2), (0, 2)), layer(3, x, (3, 2), (0, 0))
    assert zero.shape == (2, 24, 5, 10)
    assert one.shape == (2, 48, 10, 5)
    joined = torch.zeros(2, 72, 10, 10)
    joined[:, :24, :5], joined[:, 24:, :, :5] = zero, one
    features = torch.zeros(2, 100, 10, 10)
    features[:, :36], features[:, 36:, :4, :5] = layer(2, joined, (1, 1), (1, 1)), three
    torch.testing.assert_close(network.forward_features(x), features)
    head = network.get_classifier()
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(network(x), features.mean((2, 3)) @ head.weight.T + head.bias)


def test_parameters_of_nas_rl() -> None:
    """In a chain of convolutions each has height x width x in x out weights and two numbers of BN a filter."""
    space = NASRLSpace(3, 3)
    genotype = space.parse("3  3 5 24  7 1 48 yes  1 3 36 no yes")
    convs = 15 * 3 * 24 + 7 * 24 * 48 + 3 * 48 * 36
    expected = convs + 2 * (24 + 48 + 36) + 36 * 10 + 10
    assert count_parameters(DerivedNetwork(genotype, space=space)) == expected
    narrow = DerivedNetwork(genotype, space=space, channels=16)  # a quarter of each: 6, 12, 9
    assert [conv.out_channels for conv in narrow.modules() if isinstance(conv, nn.Conv2d)] == [6, 12, 9]


# --- MetaQNN

CHAIN = "conv_64_3x3 pool_5_3 conv_128_5x5 pool_3_2 fc_256 fc_128 terminate"


def test_parameters_of_a_chain() -> None:
    """32x32 pictures come to 10x10 and 4x4; channels=8 stands for an eighth of all widths."""
    space = MetaQNNSpace()
    network = DerivedNetwork(space.parse(CHAIN), space=space, channels=8, num_classes=7)
    convs = 9 * 3 * 8 + 2 * 8 + 25 * 8 * 16 + 2 * 16
    assert count_parameters(network) == convs + (16 * 4 * 4 + 1) * 32 + (32 + 1) * 16 + (16 + 1) * 7
    sizes = [out.shape[-1] for out in network.body.outputs(torch.randn(2, 3, 32, 32))]
    assert sizes == [32, 10, 10, 4, 1, 1]
    published = DerivedNetwork(space.parse("conv_512_1x1 terminate"), space=space)
    assert count_parameters(published) == 512 * 3 + 2 * 512 + 513 * 10


def test_a_chain_by_hand() -> None:
    space = MetaQNNSpace()
    network = unlike(DerivedNetwork(space.parse(CHAIN), space=space, channels=4, num_classes=3))
    weights, x = dict(network.named_parameters()), torch.randn(2, 3, 32, 32)
    convs = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    out = F.max_pool2d(normed(F.conv2d(x, convs[0].weight, padding=1), norms[0]).relu(), 5, 3)
    out = F.max_pool2d(normed(F.conv2d(out, convs[1].weight, padding=2), norms[1]).relu(), 3, 2)
    out = out.flatten(1)
    for block in (4, 5):
        name = f"body.blocks.{block}.body.0"
        out = (out @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).relu()
    expected = out @ weights["body.classifier.weight"].T + weights["body.classifier.bias"]
    torch.testing.assert_close(network(x), expected)


def test_pictures_of_another_size_are_taken() -> None:
    """A window is cut to a smaller map, and a fully connected layer takes means over parts of the map."""
    x = torch.randn(2, 4, 2, 6)
    torch.testing.assert_close(MetaQNNLayer("pool_5_3", 4, 32)((x,)), x[..., :5].amax((2, 3), keepdim=True))
    layer = MetaQNNLayer("fc_128", 4, 2, channels=8)
    means = torch.stack([x[..., :3].mean(-1), x[..., 3:].mean(-1)], dim=-1)
    torch.testing.assert_close(layer((x,)), layer((means,)))
    assert layer((x,)).shape == (2, 16, 1, 1)


# --- BlockQNN


def test_a_block_by_hand() -> None:
    space = BlockQNNSpace(8)
    text = "conv_3:0 max_pool_3:1 concat:0,2 add:1,3 avg_pool_3:4 conv_5:4 identity:2 terminal"
    place = CellPlace("block", 0, (3,), 4, reduction=True)
    block = unlike(BlockQNNBlock(space, space.parse(text), place))
    assert isinstance(block, BlockQNNBlock)

    def conv(module: nn.Module, x: Tensor, padding: int) -> Tensor:
        _, weights, bn = module  # type: ignore[misc]
        return normed(F.conv2d(x.relu(), weights.weight, padding=padding), bn)

    x = torch.randn(2, 3, 12, 12)
    x0 = conv(block.input, F.max_pool2d(x, 2), 0)
    x1 = conv(block.layers["1"], x0, 1)
    x2 = F.max_pool2d(x1, 3, 1, 1)
    x3 = torch.cat([x0, x2], 1)
    x4 = x3.clone()
    x4[:, :4] += x1
    x5 = F.avg_pool2d(x4, 3, 1, 1, count_include_pad=False)
    expected = torch.cat([x5, conv(block.layers["6"], x4, 2), x2], 1)
    assert block.out_channels == 8 + 4 + 4
    assert sorted(block.layers) == ["1", "2", "5", "6", "7"]
    torch.testing.assert_close(block((x,)), expected)


def test_blocks_stand_in_three_stages() -> None:
    """A conv_3 beside an identity: ``2 c`` channels come out of each block, and go into a 1x1 convolution to ``c``."""
    space = BlockQNNSpace(2)
    network = DerivedNetwork(space.parse("conv_3:0 identity:0"), space=space, channels=4, cells=2)
    shapes = [tuple(out.shape[1:]) for out in network.body.outputs(torch.randn(2, 3, 16, 16))]
    assert shapes == [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2
    expected = 27 * 4 + 8 + (9 * 16 + 8)  # stem, and the first block, whose input fits
    for before, c in ((8, 4), (8, 8), (16, 8), (16, 16), (32, 16)):
        fits = before == c
        expected += (0 if fits else before * c + 2 * c) + 9 * c * c + 2 * c
    assert count_parameters(network) == expected + 32 * 10 + 10
    assert network.reductions == 2
