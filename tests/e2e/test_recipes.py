"""Every recipe below recipes/search and recipes/derived runs through the command line, on a few small batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
import yaml

from lightning_nas.cli import main
from lightning_nas.spaces import load_genotype

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
COMMANDS = {"search": "search", "derived": "train"}
FILES = sorted(path for kind in COMMANDS for path in (RECIPES / kind).rglob("*.yaml"))
BATCH = 8
CELLS = {"nasbench201": 1}  # a stage; in other spaces so many that there are reduction cells
FIXED_DEPTH = ("proxyless_mobile", "fbnet", "shufflenet")
STEPS = {"cifar10_darts_pt": ["--model.start_epoch=0", "--model.every_n_epochs=1", "--trainer.max_epochs=18"]}
STEPS["cifar10_drnas_progressive"] = ["--model.channels=24", "--model.stages.stages=[{epoch: 1, keep: 4, partial: 4}]"]
STEPS["cifar10_drnas_progressive"] += ["--trainer.max_epochs=2"]
WIDE = {"cifar10_drnas": ["--model.channels=12"], "cifar10_few_shot": ["--model.split_epoch=0"]}
SAMPLES = {
    "cifar10_enas": "draws",
    "cifar10_few_shot": "samples",
    "cifar10_random_ws": "samples",
    "cifar10_spos": "samples",
}
STEPS["cifar10_p_darts"] = ["--stages=[{cells: 3, skip_dropout: 0.1, keep: 5}, {cells: 4, skip_dropout: 0.4}]"]
CHANGED = {"val_size", "start_epoch", "every_n_epochs", "stages", "draws", "samples", "split_epoch"}
SMALL = ["--model.channels=4", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
QUIET = ["--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


WEIGHTS_ONLY = ("RandomSearchWS", "FewShotNAS", "SPOS")


def resting(recipe: dict[str, Any]) -> bool:
    """Whether the architecture parameters rest in the first epochs."""
    settings = recipe["model"].get("init_args", {})
    return "warmup" in settings or "stages" in settings


class FewPictures:
    """Stands in for torchvision's CIFAR data sets."""

    classes = 10
    side = 16

    def __init__(self, root: str, train: bool, download: bool) -> None:
        if download:
            raise OSError("a recipe must not download unasked")
        self.data = np.random.default_rng(train).integers(0, 256, (200, self.side, self.side, 3), np.uint8)
        self.targets = [index % self.classes for index in range(200)]


class FewPicturesOf100(FewPictures):
    classes = 100


def parts(node: Any) -> list[dict[str, Any]]:
    """Every class of a configuration: each node with a class_path."""
    if isinstance(node, list):
        return [found for child in node for found in parts(child)]
    if not isinstance(node, dict):
        return []
    own = [node] if "class_path" in node else []
    return own + [found for child in node.values() for found in parts(child)]


def data_option(recipe: dict[str, Any]) -> str:
    """The option of the data module that has a batch size: the inner one of bilevel pairs."""
    return "--data.datamodule" if "datamodule" in recipe["data"].get("init_args", {}) else "--data"


def test_there_are_recipes_of_both_kinds() -> None:
    assert {path.parent.name for path in FILES} >= set(COMMANDS)


@pytest.mark.filterwarnings("ignore:.*val_dataloader.*")
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FewPictures)
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", FewPicturesOf100)
    recipe = yaml.safe_load(path.read_text())
    space = recipe["model"].get("init_args", {}).get("space")
    monkeypatch.setattr(FewPictures, "side", 32 if space in FIXED_DEPTH else 16)
    for part in parts(recipe["data"]):
        if part["class_path"].endswith("NPZDataModule"):
            file = Path(part["init_args"]["path"])
            assert not file.is_absolute()
            file.parent.mkdir(parents=True, exist_ok=True)
            images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8)
            labels = np.arange(200) % 10
            np.savez(file, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    kind = path.relative_to(RECIPES).parts[0]
    args = [COMMANDS[kind], f"--config={path}", f"{data_option(recipe)}.batch_size={BATCH}", *SMALL, *QUIET]
    if kind == "derived":
        space = load_genotype(recipe["genotype"])[0].name
    if space not in FIXED_DEPTH and path.stem != "cifar10_p_darts":
        args.append(f"--model.cells={CELLS.get(space, 3)}")
    if recipe["data"].get("init_args", {}).get("datamodule", {}).get("init_args", {}).get("val_size"):
        args.append("--data.datamodule.val_size=20")
    args += STEPS.get(path.stem, []) + WIDE.get(path.stem, [])
    args += [f"--model.{SAMPLES[path.stem]}=4"] if path.stem in SAMPLES else []
    main(args)

    logger = recipe["trainer"]["logger"]["init_args"]
    folder = Path(logger["save_dir"], logger["name"], "version_0")
    assert f"artefacts in {folder}:" in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    metrics = summary["metrics"]
    assert {"train/loss"} <= set(metrics)
    single_loss = recipe["model"].get("class_path", "").rsplit(".", 1)[-1] in ("SNAS", "DSNAS", *WEIGHTS_ONLY)
    if not (kind == "search" and (single_loss or resting(recipe))):
        assert {"search": "arch/loss", "derived": "test/acc"}[kind] in metrics
    if kind == "search":
        assert load_genotype(folder / "genotype.json")[0].name == space == summary["space"]
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert (folder / "metrics.csv").is_file()
    # all that the recipe itself says was used, but for what was made small here
    used = yaml.safe_load((folder / "config.yaml").read_text())
    made_small = {"channels", "cells", "max_epochs", "batch_size"} | CHANGED
    assert differences(recipe, used, made_small) == []


def differences(wanted: Any, found: Any, but: set[str], at: str = "") -> list[str]:
    """Where a configuration does not say what a recipe says."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        names = [name for name in wanted if name not in but]
        return [text for name in names for text in differences(wanted[name], found.get(name), but, f"{at}.{name}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [text for number, (a, b) in pairs for text in differences(a, b, but, f"{at}[{number}]")]
    return [] if wanted == found else [f"{at}: {wanted!r} became {found!r}"]
