"""A search under what a Trainer offers: counters, limits, callbacks, loggers, precision, checkpoints."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from toys import quiet_trainer

from lightning_nas.callbacks import ExponentialMovingAverage, GenotypeLogger
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS, AdamTheta, SGDCosine

PER_EPOCH = 9  # pairs of batches of 64 from 1,257 pictures
LOGGED = {
    "train/loss",
    "arch/loss",
    "arch/entropy/cell",
    "arch/skips",
    "support/open",
    "val/loss",
    "val/acc",
}


def tiny(**settings: Any) -> DARTS:
    torch.manual_seed(3)
    return DARTS(**{"space": "nasbench201", "channels": 4, "cells": 1, "in_channels": 1} | settings)


def digits(**settings: Any) -> BilevelDataModule:
    return BilevelDataModule(DigitsDataModule(**settings))


class Counter(Callback):
    """Counts batches and validations, and notes when they happen."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.validated_at: list[int] = []
        self.val_batches = 0

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        self.steps.append(trainer.global_step)

    def on_validation_batch_end(self, *args: object) -> None:
        self.val_batches += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated_at.append(trainer.global_step)


def fit(search: DARTS | None = None, **settings: Any) -> tuple[L.Trainer, Counter]:
    counter = Counter()
    trainer = quiet_trainer(**settings | {"callbacks": [*settings.get("callbacks", ()), counter]})
    trainer.fit(tiny() if search is None else search, digits())
    return trainer, counter


# --- counters and limits


@pytest.mark.parametrize("order", ["theta_first", "w_first"])
def test_the_trainer_counts_one_step_a_batch(order: Any) -> None:
    trainer, counter = fit(tiny(order=order), max_epochs=2)
    assert counter.steps == list(range(1, 2 * PER_EPOCH + 1))
    assert trainer.current_epoch == 2
    assert counter.validated_at == [PER_EPOCH, 2 * PER_EPOCH]


@pytest.mark.parametrize(
    ("limits", "steps", "validated_at"),
    [
        ({"max_steps": 11}, 11, [9]),
        ({"max_steps": 9}, 9, [9]),
        ({"max_epochs": 5, "max_steps": 4}, 4, []),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6, [3, 6]),
        ({"max_epochs": 1, "limit_train_batches": 0.5}, 4, [4]),
        ({"max_epochs": 1, "val_check_interval": 4}, 9, [4, 8]),
        ({"max_epochs": 1, "val_check_interval": 0.34}, 9, [3, 6, 9]),
        ({"max_epochs": 4, "limit_train_batches": 1, "check_val_every_n_epoch": 2}, 4, [2, 4]),
        ({"max_epochs": 1, "limit_val_batches": 0}, 9, []),
        ({"fast_dev_run": 2}, 2, [2]),
        ({"max_epochs": 1, "overfit_batches": 2}, 2, [2]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_limits_mean_what_they_say(limits: dict[str, Any], steps: int, validated_at: list[int]) -> None:
    trainer, counter = fit(**limits)
    assert counter.steps == list(range(1, steps + 1))
    assert trainer.global_step == steps
    assert counter.validated_at == validated_at


@pytest.mark.parametrize(("limit", "batches"), [(1, 1), (2, 2), (0.5, 2), (1.0, 4)])
def test_validation_is_limited(limit: Any, batches: int) -> None:
    """Of 180 pictures in batches of 50."""
    counter = Counter()
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=limit, callbacks=[counter])
    trainer.fit(tiny(), digits(eval_batch_size=50))
    assert counter.val_batches == batches
    assert {"val/loss", "val/acc"} <= set(trainer.callback_metrics)


def test_max_time_ends_a_fit() -> None:
    with pytest.warns(UserWarning, match="learning rate stays constant"):
        trainer, counter = fit(max_epochs=-1, max_time={"seconds": 1}, limit_val_batches=0)
    assert counter.steps == list(range(1, trainer.global_step + 1))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.025
    assert "Timer" in {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]


# --- Lightning's callbacks


def test_early_stopping_follows_the_validation_accuracy() -> None:
    """Nothing reaches an improvement of 2, so the second check after the first stops."""
    stop = EarlyStopping("val/acc", mode="max", patience=2, min_delta=2.0)
    trainer, _ = fit(max_epochs=20, limit_train_batches=1, callbacks=[stop])
    assert trainer.current_epoch == 3
    assert stop.stopped_epoch == 2


def test_the_monitored_rate_is_the_cosine(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run", version="")
    search = tiny(w=SGDCosine(lr=0.1, lr_min=0.02), theta=AdamTheta(lr=0.004))
    monitor = LearningRateMonitor("step")
    fit(search, max_epochs=4, limit_train_batches=2, logger=logger, log_every_n_steps=1, callbacks=[monitor])
    rows = [row for row in table(tmp_path) if row["lr-SGD"]]
    assert [int(row["step"]) for row in rows] == list(range(8))
    want = [0.02 + 0.04 * (1 + math.cos(math.pi * (step // 2) / 4)) for step in range(8)]
    assert [float(row["lr-SGD"]) for row in rows] == pytest.approx(want, rel=1e-6)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("cadence", "steps"),
    [
        ({"every_n_train_steps": 1}, list(range(1, 19))),
        ({"every_n_train_steps": 4}, [4, 8, 12, 16]),
        ({"every_n_epochs": 1}, [9, 18]),
    ],
    ids=str,
)
def test_checkpoints_are_written_at_the_right_steps(cadence: dict[str, int], steps: list[int], tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **cadence)
    fit(max_epochs=2, enable_checkpointing=True, callbacks=[saved])
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {f"step={step}.ckpt" for step in steps}
    for step in steps:
        assert torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)["global_step"] == step


def test_a_checkpoint_within_an_epoch_holds_the_weights_of_its_step(tmp_path: Path) -> None:
    class Keep(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: object) -> None:
            kept[trainer.global_step] = {name: value.clone() for name, value in pl_module.state_dict().items()}

    kept: dict[int, dict[str, Tensor]] = {}
    saved = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=2)
    fit(max_epochs=1, enable_checkpointing=True, callbacks=[Keep(), saved])
    for step in (2, 4, 6, 8):
        state = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)["state_dict"]
        assert state.keys() == kept[step].keys()
        assert all(torch.equal(value, kept[step][name]) for name, value in state.items() if "val_acc" not in name)


def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path: Path) -> None:
    class Accuracies(Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen.append(float(trainer.callback_metrics["val/acc"]))

    seen: list[float] = []
    best = ModelCheckpoint(tmp_path, monitor="val/acc", mode="max", filename="{epoch}")
    fit(max_epochs=4, limit_train_batches=3, enable_checkpointing=True, callbacks=[best, Accuracies()])
    assert len(set(seen)) > 1
    assert float(best.best_model_score) == max(seen)  # type: ignore[arg-type]
    assert best.best_model_path == str(tmp_path / f"epoch={seen.index(max(seen))}.ckpt")


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
def test_progress_bars_show_the_losses(bar: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, _ = fit(max_epochs=1, limit_train_batches=2, callbacks=[bar()], enable_progress_bar=True)
    assert {"train/loss", "arch/loss", "val/acc"} <= set(trainer.progress_bar_metrics)
    assert capsys.readouterr().out.count("genotype after epoch 0") == 1


@pytest.mark.parametrize(
    "average",
    [
        EMAWeightAveraging(decay=0.5),
        EMAWeightAveraging(decay=0.5, use_buffers=False),
        ExponentialMovingAverage(decay=0.5),
    ],
    ids=["with buffers", "without buffers", "floating only"],
)
def test_weights_and_architecture_are_averaged(average: Callback) -> None:
    class Trace(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: object) -> None:
            trace.append([p.detach().clone() for p in pl_module.parameters()])

    trace: list[list[Tensor]] = []
    search = tiny(theta=AdamTheta(lr=0.1))
    fit(search, max_epochs=2, limit_train_batches=3, callbacks=[Trace(), average])
    mean = trace[0]
    for current in trace[1:]:
        mean = [0.5 * m + 0.5 * c for m, c in zip(mean, current, strict=True)]
    torch.testing.assert_close(list(search.parameters()), mean, rtol=1e-5, atol=1e-6)
    assert not all(torch.allclose(m, last) for m, last in zip(mean, trace[-1], strict=True))
    assert search.relaxation.support.mask("cell").all()


# --- what is logged


def test_exactly_these_values_are_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run", version="")
    trainer, _ = fit(max_epochs=2, limit_train_batches=2, logger=logger, log_every_n_steps=1)
    assert set(trainer.callback_metrics) == LOGGED
    assert set(table(tmp_path)[0]) == LOGGED | {"epoch", "step"}
    for name in LOGGED:
        assert sum(bool(row[name]) for row in table(tmp_path)) == 2, name


def test_logged_values_are_those_of_the_search() -> None:
    losses: dict[str, list[float]] = {"train/loss": [], "arch/loss": []}

    class Noting(DARTS):
        def _report(self, name: str, loss: Tensor) -> None:
            super()._report(name, loss)
            losses[name].append(float(loss.detach()))

    torch.manual_seed(3)
    search = Noting("nasbench201", channels=4, cells=1, in_channels=1, theta=AdamTheta(lr=0.1))
    trainer, _ = fit(search, max_epochs=1, limit_train_batches=4)
    logged = trainer.callback_metrics
    for name, values in losses.items():
        assert len(values) == 4
        assert float(logged[name]) == pytest.approx(sum(values) / 4, rel=1e-5)
    p = search.relaxation.theta["cell"].detach().softmax(-1)
    assert float(logged["arch/entropy/cell"]) == pytest.approx(float(-(p * p.log()).sum(-1).mean()), rel=1e-5)
    choices = [row.choices for row in search.space.decisions["cell"]]
    skips = sum(names[k] == "skip_connect" for names, k in zip(choices, p.argmax(-1).tolist(), strict=True))
    assert float(logged["arch/skips"]) == skips
    assert float(logged["support/open"]) == 30
    data = digits()
    data.setup("fit")
    batches = list(data.val_dataloader())
    with torch.no_grad():
        right = sum(int((search(x).argmax(1) == y).sum()) for x, y in batches)
        loss = sum(float(torch.nn.functional.cross_entropy(search(x), y, reduction="sum")) for x, y in batches)
    count = sum(len(y) for _, y in batches)
    assert float(logged["val/acc"]) == pytest.approx(right / count)
    assert float(logged["val/loss"]) == pytest.approx(loss / count, rel=1e-5)


def test_validation_and_test_take_no_step() -> None:
    search = tiny()
    before = {name: value.clone() for name, value in search.state_dict().items()}
    trainer = quiet_trainer()
    found = trainer.validate(search, digits(), verbose=False)[0]
    assert set(found) == {"val/loss", "val/acc"}
    assert set(trainer.test(search, digits(), verbose=False)[0]) == {"test/loss", "test/acc"}
    assert all(torch.equal(value, before[name]) for name, value in search.state_dict().items() if "acc" not in name)


# --- precision


def test_mixed_precision_keeps_parameters_in_full() -> None:
    search, full = tiny(), tiny()
    dtypes: set[torch.dtype] = set()
    search.supernet.register_forward_hook(lambda module, inputs, out: dtypes.add(out.dtype))
    trainer, _ = fit(search, max_epochs=1, limit_train_batches=3, precision="bf16-mixed")
    reference, _ = fit(full, max_epochs=1, limit_train_batches=3)
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in search.parameters()} == {torch.float32}
    assert all(bool(p.isfinite().all()) for p in search.parameters())
    assert {state["exp_avg"].dtype for state in trainer.optimizers[1].state.values()} == {torch.float32}
    for name in ("train/loss", "arch/loss"):
        assert float(trainer.callback_metrics[name]) == pytest.approx(float(reference.callback_metrics[name]), rel=0.05)
        assert trainer.callback_metrics[name] != reference.callback_metrics[name]


# --- checkpoints and the genotype


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(part) for part in value)
    return value is None or type(value) in (str, int, float, bool)


def test_a_checkpoint_brings_back_the_search(tmp_path: Path) -> None:
    settings = {"w": SGDCosine(lr=0.1, clip=None), "theta": AdamTheta(lr=0.1), "order": "w_first", "num_classes": 10}
    search = tiny(**settings)
    trainer, _ = fit(search, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (content["space"], content["genotype"]) == ("nasbench201", search.space.format(search.genotype()))
    assert plain(content["hyper_parameters"])
    loaded = DARTS.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert (loaded.w, loaded.theta, loaded.order) == (search.w, search.theta, "w_first")
    assert loaded.genotype() == search.genotype()
    assert loaded.genotype() != tiny(**settings).genotype()  # the fit has moved it
    for name, value in search.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(loaded(x), search(x))


def test_own_hyperparameters_win_over_those_of_a_checkpoint(tmp_path: Path) -> None:
    trainer, _ = fit(max_epochs=1, limit_train_batches=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = DARTS.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True, w=SGDCosine(lr=0.5))
    assert loaded.w == SGDCosine(lr=0.5)
    assert loaded.theta == AdamTheta()


class Silent(GenotypeLogger):
    """A logger of the user's own."""


@pytest.mark.parametrize("own", [GenotypeLogger(terminal=False), Silent(terminal=False)], ids=["same", "derived"])
def test_the_users_genotype_logger_is_the_only_one(own: GenotypeLogger, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, _ = fit(max_epochs=1, limit_train_batches=1, callbacks=[own])
    assert [c for c in trainer.callbacks if isinstance(c, GenotypeLogger)] == [own]  # type: ignore[attr-defined]
    assert "genotype after epoch" not in capsys.readouterr().out


def test_a_search_brings_one_genotype_logger_however_often_it_is_fitted() -> None:
    search = tiny()
    trainer, _ = fit(search, max_epochs=1, limit_train_batches=1)
    for _ in range(2):
        trainer.fit_loop.max_epochs += 1  # type: ignore[operator]
        trainer.fit(search, digits())
        assert sum(isinstance(c, GenotypeLogger) for c in trainer.callbacks) == 1  # type: ignore[attr-defined]
