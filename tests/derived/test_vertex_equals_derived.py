"""A supernet at a vertex computes what the network built from the genotype computes, weight for weight."""

from __future__ import annotations

import random
from itertools import chain

import pytest
import torch
from torch import nn

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork, DiscreteCell
from lightning_nas.spaces import CellNetwork, CellSpace, get_space
from lightning_nas.supernet import MixedCell, build_supernet

SEEDS = range(6)
POOLS = ("max_pool_3x3", "avg_pool_3x3")


def inherit(network: DerivedNetwork, supernet: CellNetwork, space: CellSpace, genotype: Genotype) -> None:
    """Copy the weights of the kept operations by name; everything the supernet does not have stays fresh."""
    state = dict(supernet.state_dict())
    for index, block in enumerate(supernet.blocks):
        if isinstance(block, MixedCell):
            prefix = f"blocks.{index}.edges."
            kept = space.kept_rows(genotype, block.kind)
            for name in [name for name in state if name.startswith(prefix)]:
                row, choice, rest = name.removeprefix(prefix).split(".", 2)
                tensor = state.pop(name)
                if kept.get(int(row)) == int(choice):
                    state[f"{prefix}{row}.{rest}"] = tensor
    missing, unexpected = network.body.load_state_dict(state, strict=False)
    assert not unexpected
    parameters = {name for name, _ in network.body.named_parameters()}
    affine = {
        f"{n}.{kind}"
        for n, m in network.body.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert parameters & set(missing) <= affine


def normalise_pools(network: DerivedNetwork) -> int:
    """Put the norm behind each pooling that the supernet has and the published network has not."""
    count = 0
    for cell in network.body.blocks:
        for row, op in cell.edges.items() if isinstance(cell, DiscreteCell) else ():
            if isinstance(op, (nn.MaxPool2d, nn.AvgPool2d)):
                channels = cell.out_channels // cell.topology.nodes
                cell.edges[row] = nn.Sequential(op, nn.BatchNorm2d(channels, affine=False))
                count += 1
    return count


def pair(name: str, seed: int, pools: bool) -> tuple[CellSpace, Genotype]:
    """A random genotype with poolings or without."""
    space = get_space(name)
    assert isinstance(space, CellSpace)
    rng = random.Random(seed)
    while True:
        genotype = space.sample(rng)
        ops = {space.op_name(kind, r, k) for kind in space.kinds for r, k in space.kept_rows(genotype, kind).items()}
        if bool(ops & set(POOLS)) == pools:
            return space, genotype


def networks(space: CellSpace, genotype: Genotype) -> tuple[CellNetwork, DerivedNetwork]:
    size = {"channels": 4, "cells": 3 if space.name.startswith("darts") else 1}
    supernet = build_supernet(space, **size)
    network = DerivedNetwork(genotype, space=space, **size)
    inherit(network, supernet, space, genotype)
    return supernet.double(), network.double()


def assert_equal(supernet: CellNetwork, network: DerivedNetwork, space: CellSpace, genotype: Genotype) -> None:
    """Outputs, and the gradients of everything that both have."""
    x, y = torch.randn(8, 3, 16, 16, dtype=torch.float64), torch.arange(8) % 10
    ours, theirs = network.train()(x), supernet.train()(x, space.vertex(genotype))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for logits in (ours, theirs):
        nn.functional.cross_entropy(logits, y).backward()
    pairs = [(network.body.classifier.weight, supernet.classifier.weight)]
    pairs += list(zip(network.body.stem.parameters(), supernet.stem.parameters(), strict=True))
    for mine, his in pairs:
        torch.testing.assert_close(mine.grad, his.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["darts", "darts_no_none", "nasbench201"])
def test_without_poolings_they_are_equal(name: str, seed: int) -> None:
    space, genotype = pair(name, seed, pools=False)
    supernet, network = networks(space, genotype)
    assert_equal(supernet, network, space, genotype)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["darts", "darts_no_none"])
def test_with_poolings_they_are_equal_once_the_norms_are_kept_in_both(name: str, seed: int) -> None:
    space, genotype = pair(name, seed, pools=True)
    supernet, network = networks(space, genotype)
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64)
    assert not torch.allclose(network.train()(x), supernet.train()(x, space.vertex(genotype)))
    assert normalise_pools(network) > 0
    network.double()
    assert_equal(supernet, network, space, genotype)


@pytest.mark.parametrize("seed", SEEDS)
def test_poolings_of_nasbench201_have_no_norm_in_either(seed: int) -> None:
    space, genotype = pair("nasbench201", seed, pools=True)
    supernet, network = networks(space, genotype)
    assert_equal(supernet, network, space, genotype)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_another_genotype_computes_something_else(name: str) -> None:
    space, genotype = pair(name, 0, pools=False)
    other = next(g for g in space.neighbors(genotype))
    supernet, network = networks(space, genotype)
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64)
    assert not torch.allclose(network.train()(x), supernet.train()(x, space.vertex(other)))


def test_fresh_norms_start_as_if_they_had_no_scale() -> None:
    network = DerivedNetwork("darts_v2", channels=4, cells=3)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.affine and m.track_running_stats for m in norms)
    assert all(bool((m.weight == 1).all()) and bool((m.bias == 0).all()) for m in norms)
    assert len(list(chain.from_iterable(m.parameters() for m in norms))) == 2 * len(norms)
