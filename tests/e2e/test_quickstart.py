"""The quickstart on the smallest scale: what it leaves, what it says, and that its figures are true."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import pytest
import yaml

from lightning_nas.cli import main
from lightning_nas.data import DigitsDataModule
from lightning_nas.derived import DerivedTraining
from lightning_nas.flops import count_parameters
from lightning_nas.quickstart import quickstart
from lightning_nas.spaces import load_genotype

SMALL = {"search_epochs": 1, "train_epochs": 1, "search_channels": 4, "train_channels": 4}
SMALL |= {"search_cells": 1, "train_cells": 1}


def run(folder: str = "runs/quickstart", space: str = "nasbench201", seed: int = 0) -> None:
    quickstart(folder, space=space, seed=seed, **SMALL)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_leaves_and_says_all(capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    main(["quickstart", "--space=nasbench201", "--seed=3", *options])
    folder = Path("runs/quickstart")
    left = files(folder)
    wanted = {"genotype.json", "cell.svg", "cell.png", "summary.json", "config.yaml", "search.png", "train.png"}
    wanted |= {f"{part}/{name}" for part in ("search", "train") for name in ("last.ckpt", "metrics.csv")}
    assert wanted <= left
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {
        "run_dir": "runs/quickstart", "space": "nasbench201", "seed": 3, **SMALL,
    }  # fmt: skip

    space, genotype = load_genotype(folder / "genotype.json")
    summary = json.loads((folder / "summary.json").read_text())
    names = {"genotype", "space", "parameters", "macs", "image_size", "search_seconds", "train_seconds"}
    assert set(summary) == names | {"test_accuracy", "test_pictures", "seed"}
    assert summary["genotype"] == space.format(genotype)
    assert (summary["space"], summary["test_pictures"], summary["seed"]) == ("nasbench201", 360, 3)
    assert summary["image_size"] == 8

    out = capsys.readouterr().out
    for said in (
        summary["genotype"],
        f"{summary['parameters']:,}",
        f"{summary['macs']:,}",
        f"{summary['search_seconds']} s",
        f"{summary['train_seconds']} s",
        f"{summary['test_accuracy']:.2%} of 360 held-out pictures",
    ):
        assert said in out
    listed = out.split(f"files in {folder}:\n")[1]
    assert {line.split("  ")[-1] for line in listed.strip().splitlines()} == left


def test_its_accuracy_is_that_of_the_checkpoint() -> None:
    run()
    folder = Path("runs/quickstart")
    summary = json.loads((folder / "summary.json").read_text())
    training = DerivedTraining.load_from_checkpoint(folder / "train" / "last.ckpt").eval()
    assert count_parameters(training.network, ("auxiliary",)) == summary["parameters"]
    data = DigitsDataModule(seed=0)
    data.setup("test")
    right = sum(int((training(x).argmax(1) == y).sum()) for x, y in data.test_dataloader())
    assert summary["test_accuracy"] == pytest.approx(right / 360, abs=1e-6)
    assert summary["test_pictures"] == sum(len(y) for _, y in data.test_dataloader())


def test_the_same_seed_gives_the_same_result_and_another_another() -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(folder, seed=seed)
    a, b, c = (json.loads((Path(folder) / "summary.json").read_text()) for folder in "abc")
    kept = ("genotype", "parameters", "test_accuracy")
    assert [a[name] for name in kept] == [b[name] for name in kept]
    assert [a[name] for name in kept] != [c[name] for name in kept]


def test_an_earlier_run_is_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: (_ for _ in ()).throw(ValueError("stopped here")))
    folder = Path("runs/quickstart")
    for number, kept in enumerate([{"quickstart"}, {"quickstart", "quickstart.1"}]):
        with pytest.raises(ValueError, match="stopped here"):
            run(seed=number)
        assert {path.name for path in folder.parent.iterdir()} == kept
    with pytest.raises(ValueError, match="stopped here"):
        run(seed=2)
    seeds = [yaml.safe_load((path / "config.yaml").read_text())["seed"] for path in sorted(folder.parent.iterdir())]
    assert seeds == [2, 0, 1]  # quickstart, quickstart.1, quickstart.2
    assert capsys.readouterr().out.splitlines() == [
        "an earlier run is kept in runs/quickstart.1",
        "an earlier run is kept in runs/quickstart.2",
    ]


def test_a_mistake_leaves_an_earlier_run_alone() -> None:
    folder = Path("runs/quickstart")
    folder.mkdir(parents=True)
    (folder / "mine.txt").touch()
    with pytest.raises(ValueError, match="unknown space"):
        run(space="nope")
    with pytest.raises(ValueError, match="builds no networks of 'nasbench1shot1_1'; run 'lightning-nas search'"):
        run(space="nasbench1shot1_1")  # before the search, not after it
    assert files(Path("runs")) == {"quickstart/mine.txt"}


def test_the_darts_space_works_too() -> None:
    quickstart("here", **(SMALL | {"search_cells": 3, "train_cells": 3}))
    assert load_genotype(Path("here/genotype.json"))[0].name == "darts"
