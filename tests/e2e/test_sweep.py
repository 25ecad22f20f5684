"""The sweeps below recipes/sweeps: valid files, whose command lines run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from lightning_nas.cli import main

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "recipes" / "sweeps").rglob("*.yaml"))
KEYS = {"name", "description", "program", "project", "entity", "method", "metric", "parameters", "command"}
KEYS |= {"early_terminate", "run_cap"}
TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SMALL = ["--model.channels=4"]


def grid(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Every point of a grid, in the order of the file."""
    names = list(sweep["parameters"])
    values = [entry["values"] if "values" in entry else [entry["value"]] for entry in sweep["parameters"].values()]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def command_line(sweep: dict[str, Any], point: dict[str, Any]) -> list[str]:
    """The words that an agent would start for a point: macros put in, ``${args}`` as ``--name=value``."""
    words: list[str] = []
    for word in sweep["command"]:
        if word == "${args}":
            words += [f"--{name}={value}" for name, value in point.items()]
        elif word == "${env}":
            words.append("/usr/bin/env")
        else:
            words.append(word)
    return words


@pytest.fixture
def own_service() -> Iterator[None]:
    """A W&B service of this test's own: it resolves relative paths in the folder where it was started."""
    wandb.finish()
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


def test_there_is_a_sweep() -> None:
    assert SWEEPS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_is_valid(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert {"method", "parameters", "command"} <= set(sweep) <= KEYS
    assert sweep["method"] in ("grid", "random", "bayes")
    assert set(sweep["metric"]) == {"name", "goal"}
    assert sweep["metric"]["goal"] in ("maximize", "minimize")
    for name, entry in sweep["parameters"].items():
        assert set(entry) & {"value", "values", "min", "distribution"}, name
        if sweep["method"] == "grid":
            assert set(entry) <= {"value", "values"}, f"{name}: a grid has values"
    assert sweep["command"].count("${args}") == 1
    assert sweep["command"][:2] in (["lightning-nas", "search"], ["lightning-nas", "train"])
    assert any("WandbLogger" in word for word in sweep["command"])  # or the sweep sees no metric


@pytest.mark.usefixtures("own_service")
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_two_points_run(path: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")  # an agent runs at the root of the project
    sweep = yaml.safe_load(path.read_text())
    points = grid(sweep)
    folders: set[Path] = set()
    for point in (points[0], points[-1]):
        program, *args = command_line(sweep, point)
        assert program == "lightning-nas"
        main([*args, *SMALL, *TINY, *QUIET])
        logged = dict(wandb.run.summary) if wandb.run is not None else {}
        wandb.finish()
        assert sweep["metric"]["name"] in logged
        (folder,) = {file.parent for file in tmp_path.glob("runs/**/genotype.json")} - folders
        folders.add(folder)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        for name, value in point.items():
            found = config
            for part in name.split("."):
                found = found[part]
            assert found == value, name
        assert (folder / "summary.json").is_file()
    assert len(points) > 1
    assert len(folders) == 2
