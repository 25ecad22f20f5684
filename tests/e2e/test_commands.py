"""The command line as people use it: what it leaves, what it prints, and how it says no."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lightning_nas.cli import main
from lightning_nas.spaces import GENOTYPES, SPACES, load_genotype

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]


def search(project: Path, *options: str) -> None:
    main(["search", "--config", str(project / "recipes/search/digits_nasbench201.yaml"), *SHORT, *options])


def run_folder() -> Path:
    (folder,) = Path("runs/search-digits-nasbench201").iterdir()
    return folder


def test_search_then_train(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search(project)
    folder = run_folder()
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"genotype.json", "cell.svg", "cell.png", "summary.json", "config.yaml", "metrics.csv", "curves.png"} <= left
    assert "checkpoints/last.ckpt" in left
    printed = capsys.readouterr().out
    assert all(name in printed for name in left)
    space, genotype = load_genotype(folder / "genotype.json")
    assert space.format(genotype) in printed
    assert json.loads((folder / "summary.json").read_text())["genotype"] == space.format(genotype)

    recipe = str(project / "recipes/derived/digits.yaml")
    small = ["--model.channels=4", "--model.cells=1"]
    main(["train", "--config", recipe, "--genotype", str(folder / "genotype.json"), *small, *SHORT])
    (trained,) = Path("runs/derived-digits").iterdir()
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["genotype"] == space.format(genotype)
    assert 0 <= summary["metrics"]["test/acc"] <= 1
    assert "test/acc" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resume_ends_as_the_uninterrupted_run(project: Path) -> None:
    keep = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.every_n_train_steps=9"]
    keep += ["--trainer.callbacks.filename=each-{epoch}", "--trainer.max_epochs=3", "--trainer.limit_train_batches=1.0"]
    search(project, *keep, "--trainer.logger.name=whole")
    whole = Path("runs/whole/version_0")
    search(project, *keep, "--trainer.logger.name=again", f"--ckpt_path={whole}/checkpoints/each-epoch=0.ckpt")
    again = Path("runs/again/version_0")
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (whole, again)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert (whole / "genotype.json").read_text() == (again / "genotype.json").read_text()


def test_print_config_is_a_recipe(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        search(project, "--model.w.lr=0.07", "--data.val_fraction=0.4", "--print_config")
    assert done.value.code == 0
    printed = capsys.readouterr().out
    recipe = yaml.safe_load(printed)
    assert recipe["model"]["init_args"]["w"]["lr"] == 0.07
    assert recipe["data"]["init_args"]["val_fraction"] == 0.4
    assert {"space", "channels", "cells", "theta", "order", "seed"} <= set(recipe["model"]["init_args"])
    Path("again.yaml").write_text(printed)
    main(["search", "--config", "again.yaml"])
    assert (run_folder() / "genotype.json").is_file()


def test_show_and_list(capsys: pytest.CaptureFixture[str], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["show", "darts_v2"])
    printed = capsys.readouterr().out
    assert "parameters 3,349,342" in printed
    assert "MACs 528,359,040" in printed
    assert Path("darts_v2.svg").stat().st_size
    assert Path("darts_v2.png").stat().st_size
    main(["show", "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", "--out", "pictures/mine"])
    assert Path("pictures/mine.png").is_file()
    monkeypatch.chdir(project)
    main(["list"])
    printed = capsys.readouterr().out
    for name in ["DARTS", *SPACES, *GENOTYPES, "recipes/search/digits.yaml"]:
        assert name in printed


@pytest.mark.parametrize("command", [[], ["search"], ["train"], ["show"], ["list"], ["quickstart"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    assert "usage" in capsys.readouterr().out


def write_npz(path: str, classes: int = 3, side: int = 8, count: int = 240) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8), np.arange(count) % classes
    np.savez(path, x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])


NPZ = ["--data.datamodule=lightning_nas.data.NPZDataModule", "--data.datamodule.path=x.npz"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.space=dartz"], ["unknown space 'dartz'", "darts", "nasbench201"]),
        (["--model.channels=5"], ["channels=5", "even"]),
        (["--data.val_fraction=2"], ["val_fraction=2", "between 0 and 1"]),
        (["--trainer.gradient_clip_val=1"], ["gradient_clip_val=1", "SGDCosine(clip=1)"]),
        (["--trainer.logger.save_dir=a-file"], ["a-file", "cannot write", "another folder"]),
        (["--model.w.lr=1e30"], ["nan", "step", "learning rate", "checkpoint"]),
        ([*NPZ, "--data.datamodule.path=missing.npz"], ["missing.npz"]),
        ([*NPZ, "--data.datamodule.path=one.npz"], ["class"]),
        ([*NPZ, "--data.datamodule.path=ten.npz"], ["10x10", "multiple of 4"]),
        (["--data.datamodule=lightning_nas.data.CIFAR10DataModule"], ["CIFAR10", "download"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_mistakes_end_in_one_line(
    options: list[str], words: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a-file").write_text("not a folder")
    write_npz("one.npz", classes=1)
    write_npz("ten.npz", side=10)
    with pytest.raises(SystemExit) as done:
        search(project, *options)
    assert done.value.code == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error:")]
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("genotype", "words"),
    [
        ("nope", ["'nope'", "darts_v2", "no file"]),
        ("|foo~0|+|none~0|none~1|+|none~0|none~1|none~2|", ["'foo'", "nor_conv_3x3"]),
        ("Genotype(normal=[('sep_conv_9x9', 0)])", ["normal must be a list of 8"]),
        ('{"space": "mars", "picks": {}}', ["'mars'", "nasbench201"]),
    ],
)
def test_bad_genotypes(genotype: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", genotype])
    line = capsys.readouterr().err.strip()
    assert line.startswith("error:")
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_a_data_module_of_ones_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mydata.py").write_text(
        "import lightning as L, torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "class Mine(L.LightningDataModule):\n"
        "    num_classes = 4\n"
        "    in_channels = 2\n"
        "    def train_dataloader(self):\n"
        "        data = TensorDataset(torch.randn(64, 2, 8, 8), torch.arange(64) % 4)\n"
        "        return DataLoader(data, batch_size=8)\n"
    )
    monkeypatch.syspath_prepend(".")
    search(project, "--data.datamodule=mydata.Mine")
    state = torch.load(run_folder() / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["supernet.classifier.weight"].shape[0] == 4
    assert state["supernet.stem.conv.0.weight"].shape[1] == 2
