"""The command line as a user meets it: what runs leave, which options there are, and what a mistake ends in."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml

from lightning_nas.cli import main
from lightning_nas.data import BilevelDataModule, DigitsDataModule, NPZDataModule
from lightning_nas.derived import DerivedTraining
from lightning_nas.methods import DARTS, DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine
from lightning_nas.spaces import GENOTYPES, SPACES, load_genotype

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *QUIET]
NB201 = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"


@pytest.fixture
def search(project: Path) -> list[str]:
    """A search of two batches."""
    return ["search", f"--config={project}/recipes/search/digits_nasbench201.yaml", "--model.channels=4", *TINY]


@pytest.fixture
def train(project: Path) -> list[str]:
    """A training of two batches."""
    recipe = f"--config={project}/recipes/derived/digits.yaml"
    return ["train", recipe, "--model.channels=4", "--model.cells=3", *TINY]


SEARCHED = Path("runs/search-digits-nasbench201")
TRAINED = Path("runs/derived-digits")


def printed_config(args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*args, "--print_config"])
    assert end.value.code == 0
    config: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return config


def checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def same(first: Any, second: Any) -> bool:
    """Whether nested values are equal to the bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(first == second)


# --- what runs leave


def test_search_leaves_what_it_lists(search: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(search)
    out = capsys.readouterr().out
    folder = SEARCHED / "version_0"
    left = files(folder)
    wanted = {"genotype.json", "cell.svg", "cell.png", "summary.json", "config.yaml", "metrics.csv", "curves.png"}
    assert wanted | {"checkpoints/last.ckpt", "checkpoints/epoch=0-step=2.ckpt"} <= left
    listed = out.split(f"artefacts in {folder}:\n")[1].split("\n\n")[0]
    assert {line.split("  ")[-1] for line in listed.splitlines()} == left
    assert files(Path()) == {str(folder / name) for name in left}  # and nothing lies anywhere else

    space, genotype = load_genotype(folder / "genotype.json")
    text = space.format(genotype)
    summary = json.loads((folder / "summary.json").read_text())
    assert text in out
    assert (summary["space"], summary["genotype"]) == ("nasbench201", text)
    assert {"val/acc", "val/loss", "train/loss", "arch/loss", "arch/skips"} <= set(summary["metrics"])
    assert checkpoint(folder / "checkpoints/last.ckpt")["genotype"] == text
    assert "genotype after epoch 0" in out
    assert (folder / "cell.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "cell.svg").read_text()


def test_train_starts_from_the_searched_genotype_and_tests_once(
    search: list[str], train: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(search)
    found = SEARCHED / "version_0" / "genotype.json"
    tested: list[L.LightningModule] = []
    original = L.Trainer.test

    def test(self: L.Trainer, model: Any, *rest: Any, **named: Any) -> Any:
        tested.append(model)
        return original(self, model, *rest, **named)

    monkeypatch.setattr(L.Trainer, "test", test)
    capsys.readouterr()
    main([*train, f"--genotype={found}"])
    assert len(tested) == 1
    space, genotype = load_genotype(found)
    folder = TRAINED / "version_0"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["space"], summary["genotype"]) == ("nasbench201", space.format(genotype))
    assert {"parameters", "macs", "train_seconds"} <= set(summary)
    assert {"test/acc", "test/loss", "val/acc"} <= set(summary["metrics"])
    assert {"summary.json", "config.yaml", "metrics.csv", "checkpoints/last.ckpt"} <= files(folder)
    assert "artefacts in" in capsys.readouterr().out
    for name, value in tested[0].state_dict().items():  # tested with the last weights
        assert torch.equal(value, checkpoint(folder / "checkpoints/last.ckpt")["state_dict"][name])


def test_fast_dev_run_leaves_nothing(search: list[str], train: list[str]) -> None:
    main([*search, "--trainer.fast_dev_run=true"])
    main([*train, "--trainer.fast_dev_run=true"])
    assert not [name for name in files(Path()) if not name.endswith(".ckpt")]  # Lightning itself keeps its last


def test_without_logger_the_default_folder_is_used(search: list[str]) -> None:
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": {"save_last": True}}]  # no LearningRateMonitor
    Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    main([*search, "--config=callbacks.yaml", "--trainer.logger=false", "--trainer.default_root_dir=here"])
    Path("callbacks.yaml").unlink()
    assert {"genotype.json", "config.yaml", "summary.json", "checkpoints/last.ckpt"} <= files(Path("here"))
    assert files(Path()) == {f"here/{name}" for name in files(Path("here"))}


# --- configuration


def test_printed_and_left_configuration_run_again(search: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = printed_config(search, capsys)
    Path("printed.yaml").write_text(yaml.safe_dump(config))
    main(search)
    main(["search", "--config=printed.yaml"])
    left = SEARCHED / "version_0" / "config.yaml"
    main(["search", f"--config={left}"])
    runs = [SEARCHED / f"version_{run}" for run in range(3)]
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    assert configs[0] == configs[1] == configs[2]
    ends = [checkpoint(run / "checkpoints" / "last.ckpt") for run in runs]
    assert same(ends[0]["state_dict"], ends[1]["state_dict"])
    assert same(ends[0]["state_dict"], ends[2]["state_dict"])


def arguments(*functions: Any) -> set[str]:
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return names - {"self", "settings", "num_classes", "in_channels"}  # the last two come from the data


def test_every_constructor_argument_of_a_search_is_an_option(
    search: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed_config(search, capsys)
    model = config["model"]["init_args"]
    # a method fixes its parts; all else is open
    assert set(model) == arguments(DARTS.__init__, DifferentiableSearch.__init__) - {"relaxation", "hypergradient"}
    assert set(model["w"]) == arguments(SGDCosine)
    assert set(model["theta"]) == arguments(AdamTheta)
    data = config["data"]["init_args"]
    assert set(data) == arguments(BilevelDataModule.__init__)
    assert set(data["datamodule"]["init_args"]) == arguments(DigitsDataModule.__init__)
    assert arguments(L.Trainer.__init__) == set(config["trainer"])
    assert {"seed_everything", "ckpt_path"} <= set(config)


def test_every_constructor_argument_of_a_training_is_an_option(
    train: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed_config([*train, "--data=NPZDataModule", "--data.path=x.npz"], capsys)
    assert set(config["model"]) == arguments(DerivedTraining.__init__) - {"genotype"}
    assert config["genotype"] == "darts_v2"
    assert set(config["data"]["init_args"]) == arguments(NPZDataModule.__init__) | {"num_classes"}


def test_options_reach_the_run(search: list[str]) -> None:
    options = {
        "model.w.lr": 0.5,
        "model.w.clip": 1.5,
        "model.w.nesterov": True,
        "model.theta.lr": 0.25,
        "model.order": "w_first",
        "model.relax_inputs": False,
        "model.seed": 3,
        "model.space": "darts_no_none",
        "model.cells": 3,
    }
    given = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    main([*search, *given, "--data.val_fraction=0.25", "--data.datamodule.batch_size=16"])
    folder = SEARCHED / "version_0"
    kept = checkpoint(folder / "checkpoints" / "last.ckpt")["hyper_parameters"]
    for name, value in options.items():
        found = kept
        for part in name.split(".")[1:]:
            found = found[part]
        assert found == value, name
    data = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
    assert (data["val_fraction"], data["datamodule"]["init_args"]["batch_size"]) == (0.25, 16)


def write_npz(path: str, side: int = 16, number: int = 64, classes: int = 4, channels: int = 3) -> None:
    images = np.random.default_rng(0).integers(0, 256, (number, side, side, channels), np.uint8)
    labels = np.arange(number) % classes
    np.savez(path, x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize(("classes", "channels"), [(4, 1), (7, 3)])
def test_network_fits_the_data(command: str, classes: int, channels: int, request: pytest.FixtureRequest) -> None:
    write_npz("data.npz", classes=classes, channels=channels)
    inner = {"search": "--data.datamodule", "train": "--data"}[command]
    args = [f"{inner}=NPZDataModule", f"{inner}.path=data.npz", f"{inner}.batch_size=8"]
    main([*request.getfixturevalue(command), *args])
    folder = {"search": SEARCHED, "train": TRAINED}[command] / "version_0"
    kept = checkpoint(folder / "checkpoints/last.ckpt")["hyper_parameters"]
    assert (kept["num_classes"], kept["in_channels"]) == (classes, channels)


OWN_DATA = """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

class {name}(L.LightningDataModule):
    def __init__(self, pictures: int = 64):
        super().__init__()
        self.set = TensorDataset(torch.randn(pictures, 3, 8, 8), torch.arange(pictures) % 4)

    def train_dataloader(self):
        return DataLoader(self.set, batch_size=8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.set, batch_size=8)

    test_dataloader = val_dataloader
"""


def test_own_data_module(search: list[str], train: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_pictures.py").write_text(OWN_DATA.format(name="MyPictures"))
    monkeypatch.syspath_prepend(str(tmp_path))
    own = "my_own_pictures.MyPictures"
    for args in ([*search, f"--data.datamodule={own}", "--data.datamodule.pictures=32"], [*train, f"--data={own}"]):
        with pytest.warns(UserWarning, match="MyPictures has no attribute") as said:
            main(args)
        texts = [str(warning.message) for warning in said]
        for told in ("num_classes: the network is built for num_classes=10", "in_channels: the network is built for"):
            assert any(told in text for text in texts), texts
    for folder in (SEARCHED, TRAINED):
        kept = checkpoint(folder / "version_0" / "checkpoints/last.ckpt")["hyper_parameters"]
        assert (kept["num_classes"], kept["in_channels"]) == (10, 3)


# --- resume


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("command", ["search", "train"])
def test_resume_ends_where_the_whole_run_ends(command: str, request: pytest.FixtureRequest) -> None:
    keep_all = {"class_path": "ModelCheckpoint", "init_args": {"save_top_k": -1, "filename": "{epoch}"}}
    Path("keep.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [keep_all]}}))
    args = [*request.getfixturevalue(command), "--config=keep.yaml", "--trainer.max_epochs=3"]
    folder = {"search": SEARCHED, "train": TRAINED}[command]
    main(args)
    main([*args, f"--ckpt_path={folder}/version_0/checkpoints/epoch=0.ckpt"])
    whole, resumed = (checkpoint(folder / f"version_{run}" / "checkpoints/epoch=2.ckpt") for run in (0, 1))
    first = checkpoint(folder / "version_0" / "checkpoints/epoch=0.ckpt")
    assert (folder / "version_1" / "checkpoints/epoch=1.ckpt").is_file()
    assert not (folder / "version_1" / "checkpoints/epoch=0.ckpt").exists()
    assert not same(first["state_dict"], whole["state_dict"])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "genotype", "epoch", "global_step"):
        assert same(whole[part], resumed[part]), part


# --- show, list, help


@pytest.mark.parametrize("form", ["name", "text", "text file", "json file"])
def test_show(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    space, genotype = load_genotype("darts_v2")
    text, named = space.format(genotype), "darts_v2"
    if form == "text":
        named = text
    elif form.endswith("file"):
        named = f"mine.{form.split()[0]}"
        Path(named).write_text(text if form == "text file" else space.to_json(genotype))
    main(["show", named])
    stem = {"name": "darts_v2", "text": "cell"}.get(form, "mine")
    out = capsys.readouterr().out
    assert text in out
    assert "parameters 3,349,342 " in out
    assert {f"{stem}.svg", f"{stem}.png"} <= files(Path())
    assert f"{stem}.svg" in out
    assert Path(f"{stem}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", GENOTYPES)
def test_show_knows_every_published_genotype(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", name, "--out=drawings/it", "--channels=4", "--cells=3", "--image_size=16"])
    space, genotype = load_genotype(name)
    assert space.format(genotype) in capsys.readouterr().out
    assert files(Path()) == {"drawings/it.svg", "drawings/it.png"}


def test_list(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    main(["list"])
    parts: dict[str, list[str]] = {}
    title = ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  "):
            parts[title].append(line.strip())
        else:
            title = line.rstrip(":")
            parts[title] = []
    assert "DARTS" in parts["methods"]
    assert not {"AdamTheta", "SGDCosine", "SearchModule"} & set(parts["methods"])
    assert parts["spaces"] == list(SPACES)
    assert parts["genotypes"] == list(GENOTYPES)
    assert parts["recipes"] == sorted(str(path.relative_to(project)) for path in project.glob("recipes/*/*.yaml"))


def test_list_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    assert "none below the present folder" in capsys.readouterr().out


HELP = {
    "": ("quickstart", "search", "train", "show", "list"),
    "quickstart": ("--run_dir", "--search_epochs", "Epochs of the search"),
    "search": ("--config", "--model", "--data", "--trainer.max_epochs", "--ckpt_path", "lightning-nas search"),
    "train": ("--genotype", "--model.w.lr", "--model.drop_path", "--ckpt_path", "lightning-nas train"),
    "show": ("genotype", "--out", "--image_size"),
    "list": ("usage: lightning-nas",),
}


@pytest.mark.parametrize("command", HELP)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for word in HELP[command]:
        assert word in out


def test_help_of_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["search", "--model.help=DARTS"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for name in ("space", "channels", "cells", "w.lr", "theta", "order", "regularizers", "selection"):
        assert f"--model.init_args.{name}" in out or f"--model.{name}" in out


# --- mistakes


def mistake(args: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """Run a command that fails and return its one line of error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == code
    errors = [line for line in capsys.readouterr().err.splitlines() if not _chatter(line)]
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    return errors[0]


def _chatter(line: str) -> bool:
    """Whether Lightning says this in every run."""
    return line.startswith(("Seed set", "GPU available", "TPU available", "💡 Tip", "Restoring states", "`Trainer."))


@pytest.fixture
def spoiled() -> None:
    """Files that are not what they should be."""
    write_npz("odd.npz", side=10)
    write_npz("one.npz", classes=1)
    write_npz("empty.npz", number=0)
    np.savez("keys.npz", x_train=np.zeros((4, 8, 8), np.uint8), y_train=np.arange(4))
    Path("text.npz").write_text("no arrays")
    Path("file").touch()
    Path("empty.json").write_text("{}")
    Path("operation.txt").write_text(NB201.replace("nor_conv_1x1", "nor_conv_7x7"))
    space, genotype = load_genotype(NB201)
    Path("other.json").write_text(space.to_json(genotype).replace("nasbench201", "darts"))


NPZ = {
    "search": "--data.datamodule=NPZDataModule --data.datamodule.path=",
    "train": "--data=NPZDataModule --data.path=",
}

BOTH = [
    ("--model.channels=5", "channels=5", "even"),
    ("--model.w.lr=-1", "lr=-1", "must be positive"),
    ("NPZ=odd.npz", "10x10", "multiple of 4"),
    ("NPZ=one.npz", "class 0", "at least two classes"),
    ("NPZ=empty.npz", "empty.npz: train pictures is empty", "at least one picture"),
    ("NPZ=keys.npz", "keys.npz lacks x_test, y_test", "holds x_train, y_train"),
    ("NPZ=text.npz", "text.npz is not an .npz file", "numpy.savez"),
    ("NPZ=missing.npz", "no file 'missing.npz'", "give path"),
    ("--trainer.logger.save_dir=file", "cannot write to the folder 'file/", "choose another"),
    ("--trainer.logger.save_dir=file/below", "cannot write to the folder 'file/below", "choose another"),
    ("--trainer.logger=false --trainer.default_root_dir=file/x", "cannot write to the folder 'file/x'", "choose an"),
    ("--ckpt_path=none.ckpt", "none.ckpt", "not found"),
]
SEARCH_ONLY = [
    ("--model.space=nope", "unknown space 'nope'", "darts, darts_no_none, nasbench101, nasbench201"),
    ("--data.datamodule.image_size=12", "image_size=12", "multiple of 8"),
    ("--data.val_fraction=2", "val_fraction=2.0", "between 0 and 1"),
    ("--data.datamodule.batch_size=1000", "less than a batch of 1000", "lower batch_size"),
    ("--data.datamodule=CIFAR10DataModule --data.datamodule.root=nowhere", "'nowhere'", "set download=true"),
    ("--trainer.gradient_clip_val=1", "gradient_clip_val=1", "w=SGDCosine(clip=1)"),
    ("--trainer.accumulate_grad_batches=2", "accumulate_grad_batches=2", "choose the batch size"),
    ("--trainer.logger=WandbLogger --trainer.logger.save_dir=file/x", "the folder 'file/x'", "choose another"),
    ("--data=DigitsDataModule", "{'w': (x, y), 'theta': (x, y)}, not tuple", "BilevelDataModule(datamodule)"),
]
TRAIN_ONLY = [
    ("--genotype=nope", "'nope' is no published genotype (darts_v1, ", "no file"),
    ("--genotype=none.json", "'none.json' is no published genotype", "no file"),
    ("--genotype=empty.json", "not a genotype: '{}'", "JSON with space and picks"),
    ("--genotype=operation.txt", "unknown operation 'nor_conv_7x7'", "'nor_conv_3x3'"),
    ("--genotype=other.json", "darts", ""),
    ("--model.drop_path=2", "drop_path=2", "less than 1"),
    ("--data=CIFAR10DataModule --data.root=nowhere", "cannot read CIFAR10 at root='nowhere'", "set download=true"),
]


@pytest.mark.usefixtures("spoiled")
@pytest.mark.parametrize(
    ("command", "options", "given", "remedy"),
    [("search", *row) for row in BOTH + SEARCH_ONLY] + [("train", *row) for row in BOTH + TRAIN_ONLY],
)
def test_mistake_ends_in_one_line_before_any_step(
    command: str,
    options: str,
    given: str,
    remedy: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for model in (DifferentiableSearch, DerivedTraining):
        monkeypatch.setattr(model, "on_before_optimizer_step", lambda *_: pytest.fail("work had begun"))
    args = options.replace("NPZ=", NPZ[command]).split()
    error = mistake([*request.getfixturevalue(command), *args], capsys)
    assert given in error
    assert remedy in error


@pytest.mark.usefixtures("spoiled")
@pytest.mark.parametrize(
    ("args", "given", "remedy"),
    [
        ("show nope", "'nope' is no published genotype", "darts_v2"),
        ("show operation.txt", "unknown operation 'nor_conv_7x7'", "nor_conv_3x3"),
        ("show darts_v2 --channels=5", "channels=5", "even number"),
        ("show darts_v2 --image_size=30", "30x30", "multiples of 4"),
        ("show darts_v2 --out=file/x", "cannot write to the folder 'file'", "choose another"),
        ("quickstart --run_dir=file/x", "cannot write to the folder 'file/x'", "choose another"),
        ("quickstart --run_dir=file", "cannot write to the folder 'file'", "choose another"),
        ("quickstart --space=nope", "unknown space 'nope'", "nasbench201"),
        ("quickstart --search_channels=5", "channels=5", "even number"),
        ("quickstart --train_channels=5", "channels=5", "even number"),
        ("quickstart --train_cells=0", "cells=0", "at least 1"),
        ("quickstart --search_epochs=-1", "search_epochs=-1", "at least 1"),
    ],
)
def test_mistake_in_show_and_quickstart(
    args: str, given: str, remedy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: pytest.fail("work had begun"))
    error = mistake(args.split(), capsys)
    assert given in error
    assert remedy in error


@pytest.mark.parametrize(
    ("command", "option", "said"),
    [
        ("search", "--model.order=x", "\"order\": Expected a typing.Literal['theta_first', 'w_first']. Got value: x"),
        ("search", "--model.nope=1", "Option 'nope' is not accepted"),
        ("search", "--model.w.lr=x", "\"w.lr\": Expected a <class 'float'>. Got value: x"),
        ("search", "--nope=1", "unrecognized arguments: --nope=1"),
        ("search", "--data.datamodule=NPZDataModule", "path"),
        ("search", "--config=none.yaml", "File does not exist"),
        ("train", "--model.stem=x", "Expected a typing.Literal['cifar', 'imagenet']"),
        ("train", "--model.channels=x", '"model.channels"'),
    ],
)
def test_unreadable_option_is_one_line_too(
    command: str, option: str, said: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    error = mistake([*request.getfixturevalue(command), option], capsys, code=2)
    assert said in error
    assert error.endswith(f"see lightning-nas {command} --help")


@pytest.mark.parametrize("args", ["", "nope", "show"])
def test_unreadable_command(args: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(args.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("command", ["search", "train"])
def test_loss_that_is_not_finite(
    command: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model.w.lr=1e30", "--trainer.max_epochs=3", "--trainer.limit_train_batches=8"]
    error = mistake([*request.getfixturevalue(command), *args], capsys)
    for word in ("loss is nan at step", "learning rate 1e+30", "last good checkpoint: none yet", "smaller learning ra"):
        assert word in error


def test_loss_that_is_not_finite_after_a_checkpoint(
    search: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz("data.npz")
    original = DARTS.on_train_epoch_start

    def spoil(self: DARTS) -> None:
        original(self)
        if self.current_epoch == 1:
            self.weights()[0].data.fill_(float("nan"))

    monkeypatch.setattr(DARTS, "on_train_epoch_start", spoil)
    error = mistake([*search, "--trainer.max_epochs=3"], capsys)
    last = error.split("last good checkpoint: ")[1].split(";")[0]
    content = checkpoint(Path(last))
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())
    assert content["epoch"] == 0


def test_checkpoint_of_another_space(search: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(search)
    last = SEARCHED / "version_0" / "checkpoints" / "last.ckpt"
    error = mistake([*search, "--model.space=darts", "--model.cells=3", f"--ckpt_path={last}"], capsys)
    assert "the checkpoint is of space 'nasbench201', the search of 'darts'" in error


def test_checkpoint_of_another_genotype(train: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(train)
    last = TRAINED / "version_0" / "checkpoints" / "last.ckpt"
    error = mistake([*train, "--genotype=darts_v1", f"--ckpt_path={last}"], capsys)
    assert "the checkpoint has the genotype" in error


def test_trace_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_NAS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="is no published genotype"):
        main(["show", "nope"])


@pytest.mark.e2e
def test_the_installed_command() -> None:
    command = Path(sys.executable).with_name("lightning-nas")
    done = subprocess.run([command, "show", "darts_v2"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "parameters 3,349,342 " in done.stdout
    done = subprocess.run([command, "show", "nope"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: 'nope' is no published genotype")
