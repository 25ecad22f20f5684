"""Supernets of chains: published sizes, paths that equal the derived networks, searches that run."""

from __future__ import annotations

import random
import re

import lightning as L
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import HardGumbel, Pairs, one_line, quiet_trainer

from lightning_nas.arch import Genotype, Sample
from lightning_nas.derived import DerivedNetwork, DerivedTraining, DiscreteBlock
from lightning_nas.flops import count_parameters
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellNetwork, ChainSpace, ProxylessMobileSpace, get_space
from lightning_nas.supernet import MixedBlock, build_supernet, chain_supernet, evaluate_samples

NAMES = ["proxyless_mobile", "fbnet", "shufflenet"]
everywhere = pytest.mark.parametrize("name", NAMES)
seeds = pytest.mark.parametrize("seed", range(4))


def of(name: str) -> ChainSpace:
    space = get_space(name)
    assert isinstance(space, ChainSpace)
    return space


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


# --- published sizes


def test_number_of_weights_of_the_supernet_of_proxyless() -> None:
    with torch.device("meta"):
        supernet = build_supernet(of("proxyless_mobile"), num_classes=1000)
    assert count_parameters(supernet) == 16_034_168


@everywhere
def test_sixteen_channels_are_the_published_widths(name: str) -> None:
    with torch.device("meta"):
        shapes = [
            [p.shape for p in network.parameters()]
            for network in (build_supernet(of(name)), build_supernet(of(name), channels=16), chain_supernet(of(name)))
        ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("name", "affine", "eps"), [("proxyless_mobile", True, 1e-3), ("fbnet", True, 1e-5), ("shufflenet", False, 1e-5)]
)
def test_normalisation_of_supernet_and_derived_network(name: str, affine: bool, eps: float) -> None:
    supernet = build_supernet(of(name), channels=4)
    assert {(m.affine, m.eps, m.momentum, m.track_running_stats) for m in norms(supernet)} == {
        (affine, eps, 0.1, False)
    }
    assert not list(supernet.buffers())
    network = DerivedNetwork(of(name).sample(random.Random(0)), channels=4)
    assert {(m.affine, m.eps, m.momentum, m.track_running_stats) for m in norms(network)} == {(True, eps, 0.1, True)}


# --- a path is the derived network


def inherit(network: DerivedNetwork, supernet: CellNetwork) -> None:
    """Copy by name; what the supernet has not is the scale and shift of normalisation, and statistics."""
    missing, unexpected = network.body.load_state_dict(supernet.state_dict(), strict=False)
    assert all(re.match(r"blocks\.\d+\.ops\.\d+\.", name) for name in unexpected)
    own = {name for name, _ in network.body.named_parameters()} & set(missing)
    assert not own or not norms(supernet)[0].affine
    modules = dict(network.body.named_modules())
    assert all(isinstance(modules[name.rpartition(".")[0]], nn.BatchNorm2d) for name in missing)


def pair(name: str, seed: int) -> tuple[CellNetwork, DerivedNetwork, Sample, Genotype]:
    torch.manual_seed(seed)
    space = of(name)
    genotype = space.sample(random.Random(seed))
    supernet = build_supernet(space, channels=4).double()
    for module in norms(supernet):
        if module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    network = DerivedNetwork(genotype, channels=4).double()
    inherit(network, supernet)
    return supernet, network, space.vertex(genotype), genotype


@everywhere
@seeds
def test_a_vertex_computes_what_the_derived_network_computes(name: str, seed: int) -> None:
    supernet, network, vertex, genotype = pair(name, seed)
    x, y = torch.randn(6, 3, 64, 64, dtype=torch.float64), torch.arange(6)
    ours, theirs = network.train()(x), supernet.train()(x, vertex)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for logits in (ours, theirs):
        nn.functional.cross_entropy(logits, y).backward()
    others = dict(supernet.named_parameters())
    reached = {name for name, p in others.items() if p.grad is not None}
    shared = {name: p for name, p in network.body.named_parameters() if name in others}
    assert reached == set(shared)
    for parameter, p in shared.items():
        torch.testing.assert_close(p.grad, others[parameter].grad, rtol=1e-8, atol=1e-10)
    neighbor = next(of(name).neighbors(genotype))
    assert not torch.allclose(supernet(x, of(name).vertex(neighbor)), theirs)


@everywhere
@seeds
def test_a_path_has_as_many_weights_as_the_derived_network(name: str, seed: int) -> None:
    supernet, network, vertex, _ = pair(name, seed)
    supernet(torch.randn(2, 3, 32, 32, dtype=torch.float64), vertex).sum().backward()
    path = sum(p.numel() for p in supernet.parameters() if p.grad is not None)
    scales = 0 if norms(supernet)[0].affine else sum(2 * m.num_features for m in norms(network))
    assert path == count_parameters(network) - scales


@everywhere
def test_many_samples_on_one_batch(name: str) -> None:
    space, rng = of(name), random.Random(0)
    supernet, x = build_supernet(space, channels=2), torch.randn(2, 3, 32, 32)
    samples = [space.vertex(space.sample(rng)) for _ in range(3)]
    with torch.no_grad():
        wanted = torch.stack([supernet(x, sample) for sample in samples])
    assert torch.equal(evaluate_samples(supernet, x, samples), wanted)


# --- arguments


@everywhere
def test_pictures_channels_and_classes(name: str) -> None:
    space = of(name)
    genotype = space.sample(random.Random(0))
    vertex = space.vertex(genotype)
    supernet = build_supernet(space, channels=4, num_classes=7, in_channels=1)
    network = DerivedNetwork(genotype, channels=4, num_classes=7, in_channels=1)
    for h, w in [(32, 32), (64, 96)]:
        x = torch.randn(2, 1, h, w)
        assert supernet(x, vertex).shape == network(x).shape == (2, 7)
        assert network.forward_features(x).shape[2:] == (h // 32, w // 32)
    assert supernet.reductions == network.reductions == 5
    for side in (31, 33, 48, 16):
        for run in (lambda x: supernet(x, vertex), network):
            with pytest.raises(ValueError, match=f"pictures of {side}x{side} cannot be halved 5 times") as error:
                run(torch.randn(2, 1, side, side))
            one_line(error.value, "multiples of 32")


@everywhere
def test_a_stem_that_keeps_the_resolution(name: str) -> None:
    space = of(name)
    genotype = space.sample(random.Random(0))
    network = DerivedNetwork(genotype, channels=4, stem="cifar")
    supernet = chain_supernet(space, channels=4, stem="cifar")
    assert network.reductions == supernet.reductions == 4
    x = torch.randn(2, 3, 16, 16)
    assert network(x).shape == supernet(x, space.vertex(genotype)).shape == (2, 10)
    strided = DerivedNetwork(genotype, channels=4)
    assert [p.shape for p in strided.parameters()] == [p.shape for p in network.parameters()]
    assert strided.size.stem == "imagenet"


@everywhere
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cells": 2}, "one for each decision; leave cells at None"),
        ({"partial": 4}, "partial=4: .* has no partial channels"),
        ({"start_partial": 4}, "partial=4: .* has no partial channels"),
        ({"channels": 3}, "give an even number"),
        ({"channels": 0}, "give an even number"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
    ],
)
def test_arguments_that_a_chain_has_not(name: str, settings: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        build_supernet(of(name), **settings)
    one_line(error.value)
    if "cells" in settings:
        with pytest.raises(ValueError, match=words):
            DerivedNetwork(of(name).sample(random.Random(0)), cells=2)


def test_shorter_chains_are_spaces_of_their_own() -> None:
    space = ProxylessMobileSpace("tiny", stages=((24, 2, 2), (40, 1, 2)), tail=64)
    supernet = build_supernet(space, channels=4)
    assert (len(supernet.blocks), supernet.reductions) == (3, 3)
    network = DerivedNetwork(space.sample(random.Random(0)), space=space, channels=4)
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_options_reach_the_blocks() -> None:
    supernet = build_supernet(of("shufflenet"), channels=4, checkpoint=True, compile=True)
    assert all(isinstance(block, MixedBlock) and block.checkpoint for block in supernet.blocks)
    assert all(block._compiled_call_impl is not None for block in supernet.blocks)
    plain = build_supernet(of("shufflenet"), channels=4)
    assert not any(block.checkpoint or block._compiled_call_impl for block in plain.blocks)  # type: ignore[union-attr]


# --- searches


@pytest.mark.parametrize(("name", "side"), [("proxyless_mobile", 64), ("fbnet", 32), ("shufflenet", 32)])
@pytest.mark.parametrize("relaxation", [Softmax, HardGumbel])
def test_a_search_moves_weights_and_architecture(name: str, side: int, relaxation: type[Softmax]) -> None:
    search = DifferentiableSearch(name, relaxation=relaxation, channels=4, num_classes=5)
    before = {key: p.detach().clone() for key, p in search.named_parameters()}
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(search, Pairs(2, (3, side, side), batch_size=4, classes=5))
    assert trainer.global_step == 2
    after = dict(search.named_parameters())
    moved = {key for key, p in after.items() if not torch.equal(p, before[key])}
    assert "relaxation.theta.blocks" in moved
    rows = {int(key.split(".")[2]) for key in moved if key.startswith("supernet.blocks.")}
    assert len(rows) >= len(search.supernet.blocks) - (relaxation is HardGumbel) * 8  # sampled blocks may be skipped
    assert relaxation is HardGumbel or moved == set(after)
    assert search.space.parse(search.space.format(search.genotype())) == search.genotype()


# --- training what was found


class Pictures(L.LightningDataModule):
    """Two random batches."""

    image_size = 64

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        batches = [(torch.randn(4, 3, 64, 64), torch.arange(4)) for _ in range(2)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    val_dataloader = test_dataloader = train_dataloader


@everywhere
@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
def test_a_derived_network_trains(name: str, auxiliary: float) -> None:
    text = of(name).format(of(name).sample(random.Random(0)))
    training = DerivedTraining(text, channels=4, auxiliary_weight=auxiliary, drop_path=0.2)
    trainer = quiet_trainer(max_epochs=2)
    assert training.summary()["image_size"] == 224
    trainer.fit(training, Pictures())
    assert trainer.global_step == 4
    assert training.summary()["image_size"] == 64
    assert training.hparams["stem"] == "imagenet"
    blocks = [block for block in training.network.body.blocks if isinstance(block, DiscreteBlock)]
    assert {block.drop_path for block in blocks} == {0.1}


@pytest.mark.parametrize("name", ["proxyless_mobile", "fbnet"])
def test_drop_path_leaves_the_shortcut(name: str) -> None:
    space = of(name)
    genotype = space.from_names([next(iter(space.ops))] * len(space.rows))
    keeps, changes = (DiscreteBlock(space, genotype, space.places[row]) for row in (2, 1 if name == "fbnet" else 0))
    x = torch.randn(64, 24, 4, 4)
    whole = keeps((x,)) - x
    keeps.drop_path = changes.drop_path = 0.5
    torch.manual_seed(0)
    dropped = keeps((x,)) - x
    gone = dropped.flatten(1).abs().amax(1) == 0
    assert 16 < int(gone.sum()) < 48
    torch.testing.assert_close(dropped[~gone], 2 * whole[~gone], rtol=1e-4, atol=1e-5)
    x = torch.randn(64, 16, 4, 4)
    assert torch.equal(changes((x,)), changes((x,)))
    assert torch.equal(keeps.eval()((torch.ones(1, 24, 4, 4),)), keeps((torch.ones(1, 24, 4, 4),)))


@everywhere
def test_an_entry_of_timm(name: str) -> None:
    text = of(name).format(of(name).sample(random.Random(0)))
    network = timm.create_model("nas_from_genotype", genotype=text, channels=4, num_classes=3, in_chans=1)
    first = network.get_submodule(network.default_cfg["first_conv"])
    assert first is next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == 1
    assert network.default_cfg["input_size"] == (1, 224, 224)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 3)
