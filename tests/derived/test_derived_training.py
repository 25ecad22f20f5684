"""The training recipe in a Trainer: losses, schedules, clipping, averages, checks, checkpoints, configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.derived import DerivedNetwork, DerivedTraining
from lightning_nas.optimizers import SGDCosine
from lightning_nas.spaces import get_space, load_genotype
from lightning_nas.training import NonFiniteLossError

NB = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"


class Pictures(L.LightningDataModule):
    """Random pictures, with what a data module says of itself."""

    def __init__(self, n: int = 12, batch_size: int = 4, num_classes: int = 10, image_size: int = 8) -> None:
        super().__init__()
        self.num_classes, self.image_size, self.in_channels, self.batch_size = num_classes, image_size, 1, batch_size
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n, 1, image_size, image_size, generator=generator)
        self.set = TensorDataset(x, torch.arange(n) % num_classes)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.set, self.batch_size)

    val_dataloader = test_dataloader = train_dataloader


def training(genotype: str | None = "darts_v2", **options: Any) -> DerivedTraining:
    size = {} if "network" in options else {"channels": 4, "cells": 1 if genotype == NB else 3}
    return DerivedTraining(genotype, **({"in_channels": 1} | size | options))


def trainer(**options: Any) -> L.Trainer:
    defaults = {
        "max_epochs": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(**(defaults | options))


class Recorder(Callback):
    """Learning rate, drop-path and epoch of every batch, and the size of the gradient that was stepped on."""

    def __init__(self) -> None:
        self.lr: list[float] = []
        self.drop_path: list[float] = []
        self.epochs: list[int] = []
        self.norms: list[float] = []
        self.largest: list[float] = []

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.lr.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.epochs.append(trainer.current_epoch)
        if isinstance(pl_module, DerivedTraining) and isinstance(pl_module.network, DerivedNetwork):
            self.drop_path.append(pl_module.network.drop_path)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(nn.utils.get_total_norm(grads)))
        self.largest.append(max(float(grad.abs().max()) for grad in grads))


# --- the recipe


def test_the_published_recipe_is_the_default() -> None:
    with torch.device("meta"):
        recipe = DerivedTraining("darts_v2")
    assert recipe.w == SGDCosine(lr=0.025, lr_min=0.0, momentum=0.9, weight_decay=3e-4, clip=5.0)
    assert (recipe.auxiliary_weight, recipe.drop_path, recipe.label_smoothing) == (0.4, 0.2, 0.0)
    assert recipe.network.auxiliary is not None
    found = recipe.summary()
    assert found["parameters"] == 3_349_342
    assert round(found["macs"] / 1e6, 1) == 528.4
    assert (found["space"], found["image_size"]) == ("darts", 32)
    assert load_genotype(found["genotype"])[1] == load_genotype("darts_v2")[1]


@pytest.mark.parametrize(("weight", "smoothing"), [(0.4, 0.0), (0.4, 0.1), (0.0, 0.1)])
def test_the_loss_is_that_of_both_heads(weight: float, smoothing: float) -> None:
    module = training(auxiliary_weight=weight, label_smoothing=smoothing, drop_path=0.0)
    module.trainer = trainer()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.trainer.strategy.optimizers = [module.w.optimizer(module.network.parameters())]
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4)

    def loss(logits: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        return -((1 - smoothing) * log_p[range(4), y] + smoothing * log_p.mean(1)).mean()

    if weight:
        logits, auxiliary = module.network.forward_with_auxiliary(x)
        expected = loss(logits) + weight * loss(auxiliary)
    else:
        expected = loss(module.network(x))
        assert module.network.auxiliary is None
    torch.testing.assert_close(module.training_step((x, y), 0), expected)


@pytest.mark.parametrize("text", ["darts_v2", NB], ids=["darts", "nasbench201"])
def test_rate_falls_and_drop_path_rises_with_the_epochs(text: str) -> None:
    seen, module = Recorder(), training(text, drop_path=0.4, w=SGDCosine(lr=0.1, lr_min=0.01))
    trainer(max_epochs=4, callbacks=[seen]).fit(module, Pictures())
    assert seen.epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for epoch, lr, drop_path in zip(seen.epochs, seen.lr, seen.drop_path, strict=True):
        assert lr == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * epoch / 4)) / 2)
        assert drop_path == pytest.approx(0.4 * epoch / 4)


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"max_steps": 6, "max_epochs": None}, 2),
        ({"max_steps": 7, "max_epochs": None}, 3),
        ({"max_steps": 6, "max_epochs": 10}, 2),
        ({"max_steps": 100, "max_epochs": 3}, 3),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 3),
        ({"max_epochs": 4, "limit_train_batches": 1}, 4),
        ({"max_steps": 6, "max_epochs": None, "accumulate_grad_batches": 2}, 3),
    ],
)
def test_schedules_end_with_the_fit_however_it_is_limited(options: dict[str, Any], epochs: int) -> None:
    seen, module = Recorder(), training(w=SGDCosine(lr=0.1))
    fit = trainer(callbacks=[seen], **options)
    fit.fit(module, Pictures())
    assert max(seen.epochs) == epochs - 1
    assert seen.lr == [pytest.approx(0.05 * (1 + math.cos(math.pi * e / epochs))) for e in seen.epochs]
    assert seen.drop_path == [pytest.approx(0.2 * e / epochs) for e in seen.epochs]


def test_without_a_number_of_epochs_rate_and_drop_path_are_constant() -> None:
    class Enough(L.Callback):
        """The stop that no planned number of epochs gives."""

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 2

    seen, module = Recorder(), training(w=SGDCosine(lr=0.1))
    with pytest.warns(UserWarning, match="neither max_epochs nor max_steps"):
        trainer(callbacks=[seen, Enough()], max_epochs=-1, max_time={"hours": 1}).fit(module, Pictures())
    assert max(seen.epochs) > 1
    assert set(seen.lr) == {0.1}
    assert set(seen.drop_path) == {0.2}


@pytest.mark.parametrize(
    ("own", "of_trainer", "largest"), [(0.01, None, 0.01), (None, None, None), (0.01, 0.5, 0.5), (0.01, 0.0, None)]
)
def test_gradients_are_clipped_by_the_trainers_value_if_it_has_one(
    own: float | None, of_trainer: float | None, largest: float | None
) -> None:
    seen, module = Recorder(), training(w=SGDCosine(lr=1e-6, clip=own))
    trainer(callbacks=[seen], max_epochs=2, gradient_clip_val=of_trainer).fit(module, Pictures())
    assert len(seen.norms) == 6
    if largest is None:
        assert min(seen.norms) > 0.6
    else:
        assert seen.norms == [pytest.approx(largest, rel=1e-3)] * 6


def test_clipping_by_value_is_the_trainers() -> None:
    module, seen = training(w=SGDCosine(lr=1e-6)), Recorder()
    options = {"max_epochs": 1, "gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}
    trainer(callbacks=[seen], **options).fit(module, Pictures())
    assert seen.largest == [pytest.approx(1e-3)] * 3


def test_what_is_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run", version="")
    module = training()
    fit = trainer(max_epochs=2, logger=logger, callbacks=[LearningRateMonitor()], log_every_n_steps=1)
    fit.fit(module, Pictures())
    assert {"train/loss", "val/loss", "val/acc"} <= set(fit.callback_metrics)
    metrics = fit.test(module, Pictures(), verbose=False)[0]
    assert set(metrics) == {"test/loss", "test/acc"}
    x, y = Pictures().set.tensors
    with torch.no_grad():
        logits = module.eval()(x)
    assert metrics["test/acc"] == pytest.approx(float((logits.argmax(1) == y).float().mean()))
    assert metrics["test/loss"] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-4)
    header = (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"train/loss", "val/loss", "val/acc", "lr-SGD"} <= set(header)


def test_a_last_batch_of_one_picture_is_trained_on() -> None:
    module, fit = training(), trainer(max_epochs=1)
    fit.fit(module, Pictures(n=9, batch_size=4))
    assert fit.global_step == 3


def test_digits_are_learned() -> None:
    L.seed_everything(0, verbose=False)
    module = training(channels=8, drop_path=0.0, w=SGDCosine(lr=0.1))
    fit = trainer(max_epochs=6)
    fit.fit(module, DigitsDataModule())
    assert fit.test(module, DigitsDataModule(), verbose=False)[0]["test/acc"] > 0.9
    found = module.summary()
    assert found["image_size"] == 8
    assert found["macs"] < module.summary(image_size=16)["macs"] < 4.1 * found["macs"]


# --- what is refused before any work


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"genotype": None}, "give exactly one of them"),
        ({"network": nn.Identity()}, "give exactly one of them"),
        ({"genotype": "darts_v9"}, "'darts_v9' is no published genotype"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight=-1.0"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"channels": 5}, "channels=5"),
        ({"stem": "mnist"}, "unknown stem 'mnist'"),
        ({"w": {"lr": -1.0}}, "lr must be positive"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        training(**options)
    assert "\n" not in str(error.value)


class Untouched(Callback):
    """Fails if a step is taken."""

    def on_train_start(self, *args: object) -> None:
        raise AssertionError("work was started")

    on_sanity_check_start = on_train_start


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"num_classes": 3}, "the data has 3 classes, the network 10 outputs; pass num_classes=3"),
        ({"image_size": 10}, "10x10, which the network halves 2 times; resize or pad"),
    ],
)
def test_data_that_do_not_fit(data: dict[str, int], words: str) -> None:
    with pytest.raises(MisconfigurationException, match=words):
        trainer(callbacks=[Untouched()]).fit(training(), Pictures(**data))


def test_a_loss_that_is_not_finite_stops_the_fit_before_the_step() -> None:
    module = training()
    before = [p.clone() for p in module.parameters()]
    data = Pictures()
    data.set.tensors[0][5] = torch.nan  # in the second batch
    fit = trainer(max_epochs=1)
    with pytest.raises(NonFiniteLossError, match=r"train/loss is nan at step 1 with learning rate 0.025"):
        fit.fit(module, data)
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())
    assert any(not torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


# --- a network of the user's own


def test_a_network_of_ones_own() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    module = training(None, network=network)
    fit = trainer(max_epochs=2, enable_checkpointing=False)
    fit.fit(module, Pictures())
    assert fit.global_step == 6
    assert module.summary() == {"space": None, "genotype": None, "parameters": 650, "macs": 640, "image_size": 8}
    fit.save_checkpoint("own.ckpt")
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    loaded = DerivedTraining.load_from_checkpoint("own.ckpt", network=fresh, weights_only=True)
    assert torch.equal(fresh[1].weight, network[1].weight)
    assert loaded.num_classes == 10
    with pytest.raises(ValueError, match="give exactly one of them"):
        DerivedTraining.load_from_checkpoint("own.ckpt", weights_only=True)


def test_a_derived_network_of_ones_own_gets_the_whole_recipe() -> None:
    network = DerivedNetwork("darts_v2", channels=4, cells=3, in_channels=1, auxiliary=True)
    module, seen = training(None, network=network, drop_path=0.4), Recorder()
    before = network.auxiliary.classifier.weight.clone()
    trainer(max_epochs=2, callbacks=[seen]).fit(module, Pictures())
    assert seen.drop_path == [0.0] * 3 + [0.2] * 3
    assert not torch.equal(network.auxiliary.classifier.weight, before)
    assert module.summary()["space"] == "darts"
    with pytest.raises(ValueError, match="the network has 10 outputs; pass num_classes=10"):
        training(None, network=network, num_classes=7)


# --- averaged weights


def test_weights_are_averaged_by_lightnings_callback() -> None:
    class Trace(Callback):
        def __init__(self) -> None:
            self.weights: list[Tensor] = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
            self.weights.append(weight(pl_module).clone())

    def weight(module: L.LightningModule) -> Tensor:
        return module.get_parameter("network.body.classifier.weight").detach()

    module, trace = training(w=SGDCosine(lr=0.1)), Trace()
    trainer(max_epochs=2, callbacks=[trace, EMAWeightAveraging(decay=0.5)]).fit(module, Pictures())
    average = trace.weights[0]
    for current in trace.weights[1:]:
        average = 0.5 * average + 0.5 * current
    torch.testing.assert_close(weight(module), average)
    assert not torch.allclose(average, trace.weights[-1])


# --- checkpoints


def test_a_checkpoint_is_plain_and_complete(tmp_path: Path) -> None:
    source = tmp_path / "genotype.json"
    space, genotype = load_genotype("p_darts")
    source.write_text(space.to_json(genotype), encoding="utf-8")
    module = DerivedTraining(source, channels=4, cells=3, in_channels=1, num_classes=5, w=SGDCosine(lr=0.1))
    fit = trainer(max_epochs=1)
    fit.fit(module, Pictures(num_classes=5))
    fit.save_checkpoint("last.ckpt")
    source.unlink()
    content = torch.load("last.ckpt", weights_only=True)
    assert (content["space"], content["genotype"]) == ("darts", space.format(genotype))
    assert plain(content["hyper_parameters"])
    loaded = DerivedTraining.load_from_checkpoint("last.ckpt", weights_only=True)
    assert loaded.network.genotype == genotype
    assert loaded.w == SGDCosine(lr=0.1)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.eval()(x), module.eval()(x))
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), module.parameters(), strict=True))


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(part) for key, part in value.items())
    return value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize("space", ["darts_no_none", "nasbench201"])
def test_a_checkpoint_keeps_the_space_that_a_text_alone_would_not_tell(space: str) -> None:
    found = get_space(space)
    module = training(found.to_json(found.sample(Random(0))), cells=1)
    fit = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    fit.fit(module, Pictures())
    fit.save_checkpoint("last.ckpt")
    loaded = DerivedTraining.load_from_checkpoint("last.ckpt", weights_only=True)
    assert loaded.network.space.name == space
    assert loaded.network.genotype == module.network.genotype


@pytest.mark.parametrize(
    ("other", "words"),
    [(NB, "checkpoint has the space 'darts', the training 'nasbench201'"), ("p_darts", "checkpoint has the genotype")],
)
def test_the_checkpoint_of_another_architecture_is_refused(other: str, words: str) -> None:
    fit = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    fit.fit(training(), Pictures())
    fit.save_checkpoint("last.ckpt")
    with pytest.raises(ValueError, match=words) as error:
        trainer(callbacks=[Untouched()]).fit(training(other), Pictures(), ckpt_path="last.ckpt", weights_only=True)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    ("limits", "averaged", "steps"),
    [
        ({"max_epochs": 3}, False, range(1, 10)),
        ({"max_epochs": 3}, True, (2, 3)),
        ({"max_steps": 8, "max_epochs": None}, False, (2, 3)),
        ({"max_steps": 8, "max_epochs": None}, True, (5, 6)),
    ],
)
def test_a_resumed_fit_ends_with_the_same_bits(
    limits: dict[str, Any], averaged: bool, steps: Sequence[int], tmp_path: Path
) -> None:
    """From checkpoints within and between epochs of three steps, with drop-path and both heads."""

    def fit(seed: int, ckpt_path: Path | None = None, callbacks: tuple[Callback, ...] = ()) -> dict[str, Tensor]:
        L.seed_everything(seed, verbose=False)
        module = training(drop_path=0.3, w=SGDCosine(lr=0.1))
        average = [EMAWeightAveraging(decay=0.9)] if averaged else []
        run = trainer(callbacks=[*callbacks, *average], enable_checkpointing=bool(callbacks), **limits)
        run.fit(module, DigitsDataModule(batch_size=400), ckpt_path=ckpt_path, weights_only=True)
        assert run.global_step == limits.get("max_steps", 9)
        return module.state_dict()

    saved = ModelCheckpoint(tmp_path / "all", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    expected = fit(0, callbacks=(saved,))
    for step in steps:
        resumed = fit(99, tmp_path / "all" / f"step={step}.ckpt")
        assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.items()), step


# --- configuration


@pytest.fixture(autouse=True)
def no_other_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train"])


def cli(args: list[str]) -> LightningCLI:
    return LightningCLI(
        DerivedTraining, L.LightningDataModule, subclass_mode_data=True, run=False, args=args, save_config_callback=None
    )


OPTIONS = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--data=lightning_nas.data.DigitsDataModule"]


def test_every_argument_is_an_option() -> None:
    model = ["--model.genotype=darts_v2", "--model.channels=4", "--model.cells=3", "--model.stem=imagenet"]
    model += ["--model.w.lr=0.1", "--model.w.clip=null", "--model.drop_path=0.1", "--model.num_classes=7"]
    model += ["--model.auxiliary_weight=0", "--model.label_smoothing=0.1", "--model.in_channels=1"]
    module = cli([*OPTIONS, *model]).model
    assert module.w == SGDCosine(lr=0.1, clip=None)
    assert (module.drop_path, module.label_smoothing, module.num_classes) == (0.1, 0.1, 7)
    assert module.network.size.stem == "imagenet"
    assert module.network.auxiliary is None


def test_a_recipe_in_yaml(tmp_path: Path) -> None:
    space, genotype = load_genotype("p_darts")
    (tmp_path / "genotype.json").write_text(space.to_json(genotype), encoding="utf-8")
    recipe = "genotype: genotype.json\nchannels: 4\ncells: 3\nw: {lr: 0.1}\nin_channels: 1\n"
    (tmp_path / "model.yaml").write_text(recipe, encoding="utf-8")
    run = cli([*OPTIONS, "--model=model.yaml", "--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"])
    run.trainer.fit(run.model, run.datamodule)
    assert run.model.network.genotype == genotype
    assert load_genotype(run.model.hparams["genotype"])[1] == genotype


def test_the_configuration_prints_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli([*OPTIONS, "--model.genotype=darts_v2", "--print_config"])
    printed = capsys.readouterr().out
    for line in ("genotype: darts_v2", "auxiliary_weight: 0.4", "drop_path: 0.2", "lr: 0.025", "clip: 5.0"):
        assert line in printed


def test_pairs_of_a_search_are_refused() -> None:
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    module = DerivedTraining(NB, channels=4, cells=1, in_channels=1, auxiliary_weight=0.0)
    with pytest.raises(TypeError, match=r"not a dict of .*pass the data module itself"):
        trainer.fit(module, BilevelDataModule(DigitsDataModule()))
