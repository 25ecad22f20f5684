"""The networks as timm knows them."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from lightning_nas.derived import DerivedNetwork, timm_entry
from lightning_nas.spaces import GENOTYPES, load_genotype

SMALL = {"channels": 4, "cells": 3}
NB = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"


def test_every_published_genotype_is_in_the_registry() -> None:
    names = {f"nas_{name}" for name in GENOTYPES} | {"nas_from_genotype"}
    assert set(timm.list_models("nas_*")) >= names
    assert names < set(timm_entry.__all__)
    for name in names:
        assert timm.is_model(name)
        assert not timm.models.is_model_pretrained(name)
        entry = timm.models.model_entrypoint(name)
        assert getattr(timm_entry, name) is entry
        assert (entry.__name__, entry.__module__) == (name, "lightning_nas.derived.timm_entry")
        assert entry.__doc__


@pytest.mark.parametrize("name", list(GENOTYPES))
def test_a_published_network_by_name(name: str) -> None:
    network = timm.create_model(f"nas_{name}", num_classes=7, **SMALL)
    assert isinstance(network, DerivedNetwork)
    assert network.genotype == load_genotype(name)[1]
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 7)


def test_the_published_size_and_ten_classes_are_the_default() -> None:
    with torch.device("meta"):
        network = timm.create_model("nas_darts_v2")
    assert (network.size.channels, network.size.cells, network.num_classes) == (36, 20, 10)
    assert sum(p.numel() for p in network.parameters()) == 3_349_342


def test_any_genotype(tmp_path: Path) -> None:
    space, genotype = load_genotype("p_darts")
    path = tmp_path / "genotype.json"
    path.write_text(space.to_json(genotype), encoding="utf-8")
    for source in (path, str(path), space.to_json(genotype), space.format(genotype), "p_darts", genotype):
        assert timm.create_model("nas_from_genotype", genotype=source, **SMALL).genotype == genotype
    network = timm.create_model("nas_from_genotype", genotype=NB, cells=1)
    assert network.space.name == "nasbench201"


def test_timms_arguments() -> None:
    network = timm.create_model("nas_darts_v2", in_chans=1, drop_rate=0.3, drop_path_rate=0.2, auxiliary=True, **SMALL)
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    assert (network.drop_rate, network.drop_path) == (0.3, 0.2)
    assert network.auxiliary is not None
    assert timm.create_model("nas_darts_v2", drop_path_rate=None, num_classes=None, **SMALL).num_classes == 10
    imagenet = timm.create_model("nas_darts_v2", stem="imagenet", channels=4, cells=3, num_classes=5)
    assert imagenet(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_timms_features() -> None:
    x = torch.zeros(2, 3, 16, 16)
    network = timm.create_model("nas_darts_v2", num_classes=0, **SMALL)
    assert network(x).shape == (2, network.num_features)
    assert network.forward_features(x).shape == (2, network.num_features, 4, 4)
    unpooled = timm.create_model("nas_darts_v2", num_classes=0, global_pool="", **SMALL)
    assert unpooled(x).shape == (2, network.num_features, 4, 4)
    network.reset_classifier(3)
    assert network(x).shape == (2, 3)
    assert isinstance(network.get_classifier(), nn.Linear)


def test_timms_view_of_the_data() -> None:
    network = timm.create_model("nas_darts_v2", **SMALL)
    config = timm.data.resolve_model_data_config(network)
    assert config["input_size"] == (3, 32, 32)
    assert config["mean"] == (0.4914, 0.4822, 0.4465)
    for name in (network.pretrained_cfg["first_conv"], network.pretrained_cfg["classifier"]):
        assert isinstance(network.get_submodule(name), (nn.Conv2d, nn.Linear))
    assert network.default_cfg["architecture"] == "nas_darts_v2"
    imagenet = timm.create_model("nas_darts_v2", stem="imagenet", **SMALL)
    assert timm.data.resolve_model_data_config(imagenet)["input_size"] == (3, 224, 224)
    assert isinstance(imagenet.get_submodule(imagenet.pretrained_cfg["first_conv"]), nn.Conv2d)
    grey = timm.create_model("nas_darts_v2", in_chans=1, **SMALL)
    assert timm.data.resolve_model_data_config(grey)["input_size"] == (1, 32, 32)
    overlaid = timm.create_model("nas_darts_v2", pretrained_cfg_overlay={"crop_pct": 0.5}, **SMALL)
    assert overlaid.pretrained_cfg["crop_pct"] == 0.5


def test_timm_reads_a_checkpoint(tmp_path: Path) -> None:
    trained = timm.create_model("nas_darts_v2", **SMALL).eval()
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    network = timm.create_model("nas_darts_v2", checkpoint_path=str(tmp_path / "weights.pth"), **SMALL).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(network(x), trained(x))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nas_darts_v2", {"pretrained": True}, "no pretrained weights of 'nas_darts_v2'"),
        ("nas_darts_v2.in1k", {}, "leave out the tag 'in1k'"),
        ("nas_darts_v2", {"widht": 3}, "'nas_darts_v2' takes no widht; allowed are num_classes, channels"),
        ("nas_darts_v2", {"features_only": True}, "takes no features_only"),
        ("nas_darts_v2", {"genotype": "p_darts"}, "takes no genotype"),
        ("nas_darts_v2", {"channels": 5}, "channels=5"),
        ("nas_darts_v2", {"global_pool": "max"}, "give global_pool='avg'"),
        ("nas_from_genotype", {}, "needs genotype="),
        ("nas_from_genotype", {"genotype": "darts_v9"}, "'darts_v9' is no published genotype"),
    ],
)
def test_errors_are_one_line(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        timm.create_model(name, **options)
    assert "\n" not in str(error.value)
