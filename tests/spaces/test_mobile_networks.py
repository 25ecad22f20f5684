"""Derived networks of the mobile spaces against timm's builder, formulas in plain functions and published sizes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from lightning_nas.derived import DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.ops.mobile import FBNET_OPS, PROXYLESS_OPS, BlockSpec, MBConv, Norm
from lightning_nas.ops.shufflenet import SHUFFLENET_OPS, ShuffleBlock
from lightning_nas.spaces import ChainSpace, FBNetSpace, ProxylessMobileSpace, ShuffleNetSpace

# --- published sizes

FBNETS = {  # blocks as released, channels of the last convolution; parameters and multiply-adds in millions
    "A": (
        "skip k3_e3 k3_e1 skip skip k5_e6 k3_e3 k5_e1 k3_e3 k5_e6 k5_e3 k5_e1_g2 k5_e6"
        " k3_e6 k5_e1_g2 k5_e1 k3_e1_g2 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6",
        1504,
        4.3,
        249,
    ),
    "B": (
        "k3_e1 k3_e6 k5_e1 k3_e1 k3_e1 k5_e6 k5_e3 k3_e6 k5_e6 k5_e6 k5_e1 skip k5_e3"
        " k5_e6 k3_e1 k5_e1 k5_e3 k5_e6 k5_e1 k5_e6 k5_e6 k3_e6",
        1984,
        4.5,
        295,
    ),
    "C": (
        "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6"
        " k5_e6 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k3_e6",
        1984,
        5.5,
        375,
    ),
}


def derived(space: ChainSpace, names: list[str], **settings: int) -> DerivedNetwork:
    with torch.device("meta"):
        return DerivedNetwork(space.from_names(names), space=space, num_classes=1000, **settings)


@pytest.mark.parametrize("name", FBNETS)
def test_sizes_of_fbnet_are_near_the_published_ones(name: str) -> None:
    """Within 7 %: the released block lists do not give the paper's numbers exactly."""
    blocks, tail, parameters, macs = FBNETS[name]
    network = derived(FBNetSpace(tail=tail), blocks.split())
    assert count_parameters(network) / 1e6 == pytest.approx(parameters, rel=0.07)
    assert count_macs(network, (3, 224, 224)) / 1e6 == pytest.approx(macs, rel=0.07)


def test_the_largest_and_the_smallest_network_of_proxyless() -> None:
    space = ProxylessMobileSpace()
    largest = ["7x7_MBConv6"] * 21
    smallest = ["Zero" if "Zero" in row.choices else "3x3_MBConv3" for row in space.rows]
    assert [count_parameters(derived(space, names)) for names in (largest, smallest)] == [5_103_336, 2_154_984]


def test_the_published_network_of_single_path_one_shot() -> None:
    """323M multiply-adds and 3.5M parameters."""
    space, ops = ShuffleNetSpace(), list(SHUFFLENET_OPS)
    picks = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)
    network = derived(space, [ops[k] for k in picks])
    assert round(count_macs(network, (3, 224, 224)) / 1e6) == 323
    assert 3_500_000 < count_parameters(network) < 3_600_000


# --- the same networks from timm's builder


def timm_network(space: ChainSpace, names: tuple[str, ...]) -> nn.Module:
    """The network that timm's own words for blocks describe; skipped blocks are left out."""
    blocks = []
    for place, name in zip(space.places, names, strict=True):
        ending = f"s{place.stride}_c{place.out_channels}"
        if name in ("skip", "Zero"):
            blocks += [] if place.keeps_shape else [[f"cn_r1_k1_{ending}_noskip"]]
        else:
            kernel, expand = (name[0], name[-1]) if "MBConv" in name else (name[1], name[4])
            blocks.append([f"ir_r1_k{kernel}_{ending}_e{expand}"])
    proxyless = isinstance(space, ProxylessMobileSpace)
    if proxyless:
        blocks.insert(0, ["ds_r1_k3_s1_c16"])
    return EfficientNet(
        decode_arch_def(blocks),
        num_classes=7,
        num_features=space.tail,
        stem_size=32 if proxyless else 16,
        fix_stem=True,
        act_layer=nn.ReLU6 if proxyless else nn.ReLU,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3 if proxyless else 1e-5),
        round_chs_fn=int,
    )


def randomise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("space", [ProxylessMobileSpace(), FBNetSpace()], ids=lambda space: space.name)
def test_a_network_computes_what_timm_builds_from_the_same_blocks(space: ChainSpace, seed: int) -> None:
    rng = random.Random(seed)
    names = list(space.names(space.sample(rng)))
    names = [name.removesuffix("_g2") for name in names]  # timm has no groups with a shuffle
    network = DerivedNetwork(space.from_names(names), space=space, num_classes=7).double()
    randomise(network)
    other = timm_network(space, tuple(names)).double()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert ours.shape == theirs.shape
        theirs.data.copy_(ours.data)
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(x), other.train(mode)(x), rtol=1e-9, atol=1e-9)


def test_fbnet_c_is_that_of_timm() -> None:
    network = derived(FBNetSpace(), FBNETS["C"][0].split())
    with torch.device("meta"):
        other = timm.create_model("fbnetc_100")
    assert count_parameters(network) == count_parameters(other)
    assert count_macs(network, (3, 224, 224)) == count_macs(other, (3, 224, 224))


# --- blocks as formulas


def normalised(x: Tensor, parameters: Iterator[Tensor]) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    scale, shift = next(parameters).view(1, -1, 1, 1), next(parameters).view(1, -1, 1, 1)
    return scale * (x - mean) / (var + 1e-5).sqrt() + shift


def conv(x: Tensor, parameters: Iterator[Tensor], stride: int = 1, groups: int = 1) -> Tensor:
    """Convolution and normalisation from the next three parameters."""
    weight = next(parameters)
    assert weight.shape[1] == x.shape[1] // groups
    return normalised(F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups), parameters)


def deep(x: Tensor, parameters: Iterator[Tensor], stride: int = 1) -> Tensor:
    return conv(x, parameters, stride, groups=x.shape[1])


def shuffle_block(x: Tensor, parameters: list[Tensor], name: str, stride: int) -> Tensor:
    """The block as published, its first branch the even channels or a depthwise and a pointwise convolution."""
    passed, main = (x, x) if stride == 2 else (x[:, 0::2], x[:, 1::2])
    rest = iter(parameters)
    if name == "xception_3x3":
        main = conv(deep(main, rest, stride), rest).clamp(min=0)
        for _ in range(2):
            main = conv(deep(main, rest), rest).clamp(min=0)
    else:
        main = conv(main, rest).clamp(min=0)
        main = conv(deep(main, rest, stride), rest).clamp(min=0)
    if stride == 2:
        passed = conv(deep(passed, rest, stride), rest).clamp(min=0)
    assert not list(rest)
    return torch.cat([passed, main], dim=1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", SHUFFLENET_OPS)
def test_shuffle_blocks_are_the_formula(name: str, stride: int) -> None:
    block = SHUFFLENET_OPS[name](BlockSpec(8, 8 * stride, stride)).double()
    randomise(block)
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    kernels = {p.shape[-1] for p in block.parameters() if p.ndim == 4}
    assert kernels == {1, int(name[-1])}
    torch.testing.assert_close(block(x), shuffle_block(x, list(block.parameters()), name, stride))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_grouped_blocks_of_fbnet_are_the_formula(kernel: int, stride: int) -> None:
    """1x1 in two groups, the halves interleaved, depthwise, 1x1 in two groups."""
    block = FBNET_OPS[f"k{kernel}_e1_g2"](BlockSpec(8, 12, stride)).double()
    randomise(block)
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    parameters = block.parameters()
    hidden = conv(x, parameters, groups=2).clamp(min=0)
    hidden = hidden[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    hidden = deep(hidden, parameters, stride).clamp(min=0)
    torch.testing.assert_close(block(x), conv(hidden, parameters, groups=2))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_of_channels_are_interleaved_after_the_first_convolution(groups: int) -> None:
    """Channel `k` of group `g` of `G` moves to place ``k * G + g``; one group needs no shuffle."""
    x, block = torch.randn(2, 12, 3, 3), MBConv(BlockSpec(12, 12), expand=1, groups=groups, always_expand=True)
    shuffles = [part for part in block if isinstance(part, nn.ChannelShuffle)]
    assert len(shuffles) == (groups > 1)
    order = [g * (12 // groups) + k for k in range(12 // groups) for g in range(groups)]
    assert torch.equal(shuffles[0](x) if shuffles else x, x[:, order])


def test_normalisation_is_as_asked_for() -> None:
    for name, ops in [("3x3_MBConv6", PROXYLESS_OPS), ("k3_e1_g2", FBNET_OPS), ("xception_3x3", SHUFFLENET_OPS)]:
        for affine in (True, False):
            block = ops[name](BlockSpec(4, 8, 2, Norm(affine, 1e-3)))
            norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
            assert {(m.affine, m.eps, m.momentum) for m in norms} == {(affine, 1e-3, 0.1)}
            assert len(norms) == sum(isinstance(module, nn.Conv2d) for module in block.modules())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (BlockSpec(5, 10, 2), "cannot take 5 channels to 10"),
        (BlockSpec(8, 8, 2), "more than before with stride 2"),
        (BlockSpec(8, 12, 1), "equal with stride 1"),
    ],
)
def test_widths_that_a_shuffle_block_has_not(spec: BlockSpec, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ShuffleBlock(spec)
    with pytest.raises(ValueError, match="3 groups do not divide"):
        MBConv(BlockSpec(8, 12), groups=3)
