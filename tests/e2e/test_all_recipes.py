"""Every recipe and sweep of the project is executed."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torchvision
import wandb
import yaml

from lightning_nas.cli import main

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "sweeps")
SWEEPS = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes/sweeps").glob("*.yaml"))
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
    pytest.mark.filterwarnings("ignore:There is a wandb run already in progress"),
]


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR in memory, and the file that recipes for a CPU name."""

    def cifar(root: str, train: bool = True, download: bool = False, **_: Any) -> SimpleNamespace:
        data, targets = pictures(400 if train else 40)
        return SimpleNamespace(data=data, targets=list(targets))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar)
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", cifar)
    Path("data").mkdir()
    (x, y), (x_test, y_test) = pictures(400), pictures(40)
    np.savez("data/cifar10_small.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.usefixtures("small_data")
def test_recipe_runs(recipe: Path) -> None:
    command = {"search": "search", "derived": "train"}[recipe.parent.name]
    small = ["--model.channels=4", f"--model.cells={1 if 'nasbench201' in recipe.name else 3}"]
    limits = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
    main([command, "--config", str(ROOT / recipe), *small, *limits, "--trainer.max_epochs=1"])
    (run,) = [path for path in Path("runs").glob("*/*") if path.is_dir()]
    assert (run / "summary.json").is_file()
    assert (run / "config.yaml").is_file()


@pytest.mark.parametrize("sweep", SWEEPS, ids=str)
def test_two_points_of_a_sweep(sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load((ROOT / sweep).read_text())
    assert content["method"] in {"grid", "random", "bayes"}
    assert set(content["metric"]) == {"name", "goal"}
    assert content["metric"]["goal"] in {"maximize", "minimize"}
    assert content["command"][0] == "lightning-nas"
    assert content["command"][-1] == "${args}"
    names, values = zip(*[(name, spec["values"]) for name, spec in content["parameters"].items()], strict=True)
    points = list(product(*values))
    Path("recipes").symlink_to(ROOT / "recipes")
    short = ["--model.channels=4", "--model.cells=2", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    for point in (points[0], points[-1]):
        arguments = [f"--{name}={value}" for name, value in zip(names, point, strict=True)]
        main([*content["command"][1:-1], *arguments, *short])
        assert "genotype.json" in capsys.readouterr().out
        wandb.finish()
    assert len(list(Path().rglob("offline-run-*"))) == 2
