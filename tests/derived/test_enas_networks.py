"""The networks of ENAS genotypes: what the supernet computes at a vertex, with the supernet's weights."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.enas import DiscreteENASLayers, discrete_part
from lightning_nas.flops import count_parameters
from lightning_nas.spaces import CellGraph, CellNetwork, CellPlace, ENASMacroSpace, NetworkSize, get_space
from lightning_nas.spaces.enas import ENASSpace
from lightning_nas.spaces.skeleton import CellFactory
from lightning_nas.supernet import build_supernet

PUBLISHED = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"


def pictures() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def load(network: nn.Module, supernet: CellNetwork) -> None:
    """Give a network the supernet's weights: each of its convolutions finds them under its own name."""
    state = dict(supernet.named_parameters())
    norms = {
        f"{path}.{name}"
        for path, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, _ in module.named_parameters(recurse=False)
    }
    with torch.no_grad():
        for path, p in network.named_parameters():
            if path in state:
                p.copy_(state[path])
            else:
                assert path in norms, path


@pytest.mark.parametrize("cells", [1, 3, 4])
def test_a_vertex_of_the_micro_supernet_is_the_network(cells: int) -> None:
    space = get_space("enas_micro")
    torch.manual_seed(0)
    supernet = build_supernet(space, channels=4, cells=cells).double()
    seen = []
    for seed in range(3):
        genotype = space.sample(random.Random(seed))
        network = DerivedNetwork(genotype, channels=4, cells=cells).double()
        load(network.body, supernet)
        seen.append(network(pictures()))
        torch.testing.assert_close(seen[-1], supernet(pictures(), space.vertex(genotype)), rtol=0, atol=1e-10)
    assert not torch.allclose(seen[0], seen[1])


@pytest.mark.parametrize("layers", [3, 5, 12])
def test_a_vertex_of_the_macro_supernet_is_the_network(layers: int) -> None:
    space = ENASMacroSpace(layers)
    torch.manual_seed(0)
    supernet = build_supernet(space, channels=4).double()
    for seed in range(3):
        genotype = space.sample(random.Random(seed))
        network = space.network(
            lambda place, g=genotype: DiscreteENASLayers(space, g, place, grow=False),  # type: ignore[misc]
            NetworkSize(4, layers),
        ).double()
        load(network, supernet)
        wanted = supernet(pictures(), space.vertex(genotype))
        torch.testing.assert_close(network(pictures()), wanted, rtol=0, atol=1e-10)


def test_every_weight_of_a_network_is_used() -> None:
    for name, size in (("enas_micro", {"cells": 4}), ("enas_macro", {})):
        space = get_space(name)
        for seed in range(3):
            network = DerivedNetwork(space.sample(random.Random(seed)), channels=4, **size)  # type: ignore[arg-type]
            network(torch.randn(4, 3, 16, 16)).square().sum().backward()
            assert [path for path, p in network.named_parameters() if p.grad is None] == []


def test_channels_of_the_macro_network_double_at_its_thirds() -> None:
    space = ENASMacroSpace(3)
    network = DerivedNetwork(space.parse("0  3 1  4 0 1"), space=space, channels=4, num_classes=7)
    assert network.forward_features(torch.randn(2, 3, 16, 16)).shape == (2, 16, 4, 4)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 7)
    stem, head = 3 * 9 * 4 + 8, 16 * 7 + 7
    first = 4 * 4 + 8 + 9 * 16 + 8
    second = 4 * 8 + 16 + (64 + 16) + (25 * 8 + 64 + 16) + 2 * 64 + 16  # halved, 1x1, 5x5 separable, join of two
    third = 8 * 16 + 32 + 256 + 32 + 2 * 256 + 32  # of layer 1 only, 1x1 and pooling, join of two
    assert count_parameters(network) == stem + first + second + third + head


def test_the_published_network_has_the_published_depth_and_takes_its_string() -> None:
    network = DerivedNetwork(f"enas_micro: {PUBLISHED}", auxiliary=True, drop_path=0.4)
    assert [part.out_channels for part in network.body.blocks] == [36] * 5 + [72] * 6 + [144] * 6
    assert network.num_features == 4 * 36
    assert all(part.drop_path == 0.4 for part in network.body.blocks)


@pytest.mark.parametrize(("name", "cells"), [("enas_micro", 3), ("enas_macro", None)])
def test_drop_path_and_the_auxiliary_head_work(name: str, cells: int | None) -> None:
    space = get_space(name)
    network = DerivedNetwork(space.sample(random.Random(0)), channels=4, cells=cells, auxiliary=True)
    x = torch.randn(4, 3, 32, 32)
    logits, auxiliary = network.forward_with_auxiliary(x)
    assert logits.shape == auxiliary.shape == (4, 10)
    plain = network(x)
    torch.testing.assert_close(network(x), plain)
    network.set_drop_path(0.5)
    assert not torch.allclose(network(x), plain)
    network.eval()
    torch.testing.assert_close(network(x), network(x))


class Other(ENASSpace):
    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        return {}

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        raise NotImplementedError


def test_a_project_s_own_space_of_this_kind_has_no_parts() -> None:
    other = Other("mine", {"ops": (Decision("op", ("a", "b")),)}, ("op",))
    assert other.format(other.parse("1")) == "mine: 1"
    with pytest.raises(ValueError, match="'mine' is neither the micro nor the macro space") as caught:
        discrete_part(other, other.parse("1"), CellPlace("cell", 0, (4,), 4))
    assert "\n" not in str(caught.value)
