"""Sizes of published networks, obtained from the published model definitions (auxiliary head left out)."""

from __future__ import annotations

import pytest
import torch

from lightning_nas.derived import AuxiliaryHead, DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters

# genotype: parameters and millions of multiply-adds at 20 cells of 36 channels, parameters at 8 of 16,
# parameters and multiply-adds on ImageNet at 14 of 48
PUBLISHED = {
    "darts_v1": (3_169_414, 501.0, 232_890, 4_510_432, 505.9),
    "darts_v2": (3_349_342, 528.4, 246_106, 4_718_752, 529.9),
    "pc_darts_cifar": (3_634_678, 556.7, 335_738, 5_270_560, 571.1),
    "pc_darts_imagenet": (3_721_510, 570.5, 327_546, 5_342_464, 581.6),
    "p_darts": (3_433_798, 532.2, 292_026, 4_944_352, 542.8),
    "drnas_cifar": (4_099_294, 635.1, 360_410, 5_738_464, 633.8),
    "drnas_imagenet": (4_048_750, 617.9, 346_650, 5_726_368, 624.4),
}
published = pytest.mark.parametrize("name", list(PUBLISHED))


@published
def test_cifar_networks(name: str) -> None:
    parameters, macs, small, _, _ = PUBLISHED[name]
    with torch.device("meta"):
        network = DerivedNetwork(name)
        assert count_parameters(DerivedNetwork(name, channels=36, cells=20)) == parameters
        assert count_parameters(DerivedNetwork(name, channels=16, cells=8)) == small
    assert count_parameters(network) == parameters
    assert round(count_macs(network, (3, 32, 32)) / 1e6, 1) == macs


@published
def test_imagenet_networks(name: str) -> None:
    *_, parameters, macs = PUBLISHED[name]
    with torch.device("meta"):
        network = DerivedNetwork(name, stem="imagenet", num_classes=1000)
    assert count_parameters(network) == parameters
    assert round(count_macs(network, (3, 224, 224)) / 1e6, 1) == macs


@published
def test_the_auxiliary_head_of_cifar(name: str) -> None:
    with torch.device("meta"):
        network = DerivedNetwork(name, auxiliary=True)
    assert count_parameters(network) - PUBLISHED[name][0] == 476_426
    assert count_parameters(network, ("auxiliary",)) == PUBLISHED[name][0]
    assert round(count_macs(network, (3, 32, 32)) / 1e6, 1) == PUBLISHED[name][1]  # not executed in evaluation


def test_the_auxiliary_head_of_imagenet_leaves_its_second_normalisation_out() -> None:
    """On 768 channels: 1x1 convolution to 128 and norm, 2x2 convolution to 768, linear to 1000 classes."""
    with torch.device("meta"):
        network = DerivedNetwork("darts_v2", stem="imagenet", num_classes=1000, auxiliary=True)
    assert isinstance(network.auxiliary, AuxiliaryHead)
    assert count_parameters(network.auxiliary) == 768 * 128 + 2 * 128 + 4 * 128 * 768 + 768 * 1000 + 1000
    seen = []
    network.auxiliary.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].shape, output.shape)))
    network.forward_with_auxiliary(torch.empty(2, 3, 224, 224, device="meta"))
    assert seen == [((2, 768, 7, 7), (2, 1000))]
