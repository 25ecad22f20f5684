"""The derived network as a module: forms of genotypes, sizes, features and classifier, auxiliary head, errors."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_nas.derived import AuxiliaryHead, DerivedNetwork
from lightning_nas.spaces import GENOTYPES, DARTSSpace, NASBench201Space, load_genotype

NB = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"
both = pytest.mark.parametrize("text", ["darts_v2", NB], ids=["darts", "nasbench201"])


def small(text: str, **options: object) -> DerivedNetwork:
    return DerivedNetwork(text, **({"channels": 4, "cells": 3 if text != NB else 1} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(GENOTYPES))
def test_every_published_network_gives_logits_and_gradients(name: str) -> None:
    network = small(name, auxiliary=True, drop_path=0.1)
    logits, auxiliary = network(torch.randn(2, 3, 16, 16)), network.forward_with_auxiliary(torch.randn(2, 3, 16, 16))[1]
    (logits.sum() + auxiliary.sum()).backward()
    assert logits.shape == auxiliary.shape == (2, 10)
    assert all(p.grad is not None for p in network.parameters())


def test_a_genotype_may_be_given_in_every_form(tmp_path: Path) -> None:
    space, genotype = load_genotype("darts_v2")
    path = tmp_path / "genotype.json"
    path.write_text(space.to_json(genotype), encoding="utf-8")
    for form in ("darts_v2", GENOTYPES["darts_v2"], space.to_json(genotype), path, str(path), genotype):
        network = DerivedNetwork(form, channels=4, cells=3)
        assert network.genotype == genotype
        assert network.space.name == "darts"


def test_a_space_of_ones_own_comes_with_its_genotype() -> None:
    space = DARTSSpace("mine", ("skip_connect", "sep_conv_3x3"), nodes=2)
    genotype = space.sample(random.Random(0))
    network = DerivedNetwork(genotype, space=space, channels=4, cells=3)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    with pytest.raises(ValueError, match="unknown space 'mine'"):
        DerivedNetwork(genotype)


@pytest.mark.parametrize(
    ("text", "stem", "channels", "cells"),
    [("darts_v2", "cifar", 36, 20), ("darts_v2", "imagenet", 48, 14), (NB, "cifar", 16, 5), (NB, "imagenet", 16, 5)],
)
def test_the_published_size_is_the_default(text: str, stem: str, channels: int, cells: int) -> None:
    with torch.device("meta"):
        network = DerivedNetwork(text, stem=stem)
    assert (network.size.channels, network.size.cells) == (channels, cells)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("darts_v9", {}, "'darts_v9' is no published genotype .darts_v1"),
        ("darts_v2", {"space": NASBench201Space()}, "space 'darts' was given to space 'nasbench201'"),
        ("darts_v2", {"stem": "mnist"}, "unknown stem 'mnist'; allowed are 'cifar' and 'imagenet'"),
        ("darts_v2", {"channels": 5}, "channels=5"),
        ("darts_v2", {"cells": 0}, "cells=0"),
        ("darts_v2", {"num_classes": -1}, "num_classes=-1"),
        ("darts_v2", {"drop_path": 1.0}, "drop_path=1.0 must be at least 0 and less than 1"),
        ("darts_v2", {"drop_rate": -0.1}, "drop_rate=-0.1"),
        ("darts_v2", {"auxiliary": True, "num_classes": 0}, "an auxiliary head needs classes"),
    ],
)
def test_what_cannot_be_built_is_refused(text: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        small(text, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 18, 16), "pictures of 18x16 cannot be halved 2 times"),
        ((2, 1, 16, 16), "network of in_channels=3"),
        ((3, 16, 16), "expected .N, in_channels, H, W."),
    ],
)
@pytest.mark.parametrize("call", ["forward", "forward_features", "forward_with_auxiliary"])
def test_pictures_that_do_not_fit_are_refused(call: str, shape: tuple[int, ...], words: str) -> None:
    network = small("darts_v2", auxiliary=True)
    with pytest.raises(ValueError, match=words):
        getattr(network, call)(torch.zeros(shape))


# --- features and classifier


@both
def test_features_pooled_features_and_logits_are_steps_of_one_way(text: str) -> None:
    network = small(text, drop_rate=0.5).eval()
    x = torch.randn(2, 3, 16, 16)
    features = network.forward_features(x)
    pooled = network.forward_head(features, pre_logits=True)
    assert features.shape == (2, network.num_features, 4, 4)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(network.get_classifier()(pooled), network(x))
    torch.testing.assert_close(network.forward_head(features), network(x))
    assert network.head_hidden_size == network.num_features


@both
def test_the_classifier_can_be_replaced_and_removed(text: str) -> None:
    network = small(text, auxiliary=True).eval()
    x = torch.randn(2, 3, 16, 16)
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(7)
    assert network.num_classes == 7
    assert [out.shape for out in network.forward_with_auxiliary(x)] == [(2, 7), (2, 7)]
    network.reset_classifier(0)
    assert isinstance(network.get_classifier(), nn.Identity)
    assert network.auxiliary is None
    torch.testing.assert_close(network(x), pooled)
    network.reset_classifier(0, "")
    assert network(x).shape == (2, network.num_features, 4, 4)
    network.reset_classifier(3, "avg")
    assert network(x).shape == (2, 3)
    for wrong in ((-1, None), (3, "max"), (3, "")):
        with pytest.raises(ValueError, match="give global_pool='avg'"):
            network.reset_classifier(*wrong)


@both
def test_no_classes_give_pooled_features(text: str) -> None:
    network = small(text, num_classes=0)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, network.num_features)


def test_dropout_stands_before_the_classifier_in_training_only() -> None:
    network, features = small("darts_v2", drop_rate=0.5), torch.ones(100, 64, 1, 1)
    dropped = network.train().forward_head(features, pre_logits=True)
    assert sorted(dropped.unique().tolist()) == [0.0, 2.0]
    assert bool((network.eval().forward_head(features, pre_logits=True) == 1).all())


# --- auxiliary head


@both
def test_the_auxiliary_head_changes_nothing_but_what_it_adds(text: str) -> None:
    network = small(text, auxiliary=True).eval()
    x = torch.randn(2, 3, 16, 16)
    logits, _ = network.forward_with_auxiliary(x)
    torch.testing.assert_close(logits, network(x))
    bare = small(text).eval()
    bare.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("auxiliary.")})
    torch.testing.assert_close(bare(x), logits)
    with pytest.raises(ValueError, match="build it with auxiliary=True"):
        bare.forward_with_auxiliary(x)


@pytest.mark.parametrize(
    ("text", "cells", "block", "channels"),
    [("darts_v2", 20, 13, 64), ("darts_v2", 8, 5, 64), ("darts_v2", 1, 0, 32), (NB, 5, 11, 16), (NB, 1, 3, 16)],
)
def test_where_the_auxiliary_head_stands(text: str, cells: int, block: int, channels: int) -> None:
    network = small(text, cells=cells, auxiliary=True).eval()
    assert isinstance(network.auxiliary, AuxiliaryHead)
    assert network.auxiliary.squeeze[0].in_channels == channels
    x = torch.randn(2, 3, 16, 16)
    for index, out in enumerate(network.body.outputs(x)):
        if index == block:
            torch.testing.assert_close(network.auxiliary(out), network.forward_with_auxiliary(x)[1])


@pytest.mark.parametrize(("side", "stride"), [(8, 3), (7, 2)])
def test_the_published_geometry(side: int, stride: int) -> None:
    head, x = AuxiliaryHead(4, 10).eval(), torch.randn(2, 4, side, side)
    pooled = nn.AvgPool2d(5, stride=stride, padding=0, count_include_pad=False)(torch.relu(x))
    assert pooled.shape == (2, 4, 2, 2)
    torch.testing.assert_close(head(x), head.classifier(head.expand(head.squeeze(pooled)).flatten(1)))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6, 14, 16])
def test_the_auxiliary_head_takes_every_other_resolution(side: int) -> None:
    head, x = AuxiliaryHead(4, 10), torch.randn(2, 4, side, side + 1)
    assert head(x).shape == (2, 10)
    if side == 2:
        same = x[..., :2]
        torch.testing.assert_close(
            head.eval()(same), head.classifier(head.expand(head.squeeze(torch.relu(same))).flatten(1))
        )


def test_small_pictures_train_with_the_auxiliary_head() -> None:
    network = small("darts_v2", cells=5, in_channels=1, auxiliary=True)
    assert [out.shape for out in network.forward_with_auxiliary(torch.zeros(2, 1, 8, 8))] == [(2, 10)] * 2


# --- copies, export


@both
def test_networks_can_be_copied_pickled_and_restored(text: str) -> None:
    network = small(text, drop_path=0.3, auxiliary=True).eval()
    x = torch.randn(2, 3, 16, 16)
    expected = network(x)
    copied, pickled = copy.deepcopy(network), pickle.loads(pickle.dumps(network))
    fresh = small(text, auxiliary=True).eval()
    fresh.load_state_dict(network.state_dict())
    for other in (copied, pickled, fresh):
        assert torch.equal(other(x), expected)
    assert copied.genotype == network.genotype
    assert copied.drop_path == 0.3


@both
def test_networks_can_be_exported(text: str) -> None:
    network = small(text, auxiliary=True).eval()
    x = torch.randn(2, 3, 16, 16)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(network, (x,), dynamic_shapes={"x": {0: batch}}).module()
    for pictures in (x, torch.randn(5, 3, 16, 16)):
        torch.testing.assert_close(exported(pictures), network(pictures))


def test_the_names_of_the_supernet_are_kept_for_all_that_is_not_an_edge() -> None:
    names = set(small("darts_v2").body.state_dict())
    assert {"stem.conv.0.weight", "blocks.0.preprocess.1.1.weight", "classifier.bias"} <= names
    assert "blocks.0.edges.0.1.weight" in names
