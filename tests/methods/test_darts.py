"""DARTS in a Trainer: the steps against a plain loop, what is logged and kept, what is refused."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_nas.callbacks import GenotypeLogger
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS, AdamTheta, DifferentiableSearch, SGDCosine
from lightning_nas.training import NonFiniteLossError


def tiny(**settings: Any) -> DARTS:
    return DARTS(**{"space": "nasbench201", "channels": 4, "cells": 1, "in_channels": 1} | settings)


def digits(**settings: Any) -> BilevelDataModule:
    return BilevelDataModule(DigitsDataModule(**settings))


def trainer(**settings: Any) -> L.Trainer:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(**quiet | {"enable_checkpointing": False, "num_sanity_val_steps": 0} | settings)


class Recorder(L.Callback):
    """Keeps the batches of a fit and the learning rate of each."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def plain_loop(search: DARTS, batches: list[Any], order: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """First-order DARTS as it is written down, on the same weights and batches."""
    net, theta = search.supernet, search.relaxation.theta["cell"]
    w = torch.optim.SGD(net.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    a = torch.optim.Adam([theta], 3e-4, (0.5, 0.999), weight_decay=1e-3)

    def step(part: str, batch: Any) -> None:
        w.zero_grad()
        a.zero_grad()
        x, y = batch[part]
        weights = theta.softmax(-1)
        sample = search.relaxation()._replace(weights={"cell": weights})
        F.cross_entropy(net(x, sample), y).backward()
        if part == "w":
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            w.step()
        else:
            a.step()

    for batch in batches:
        for part in ("theta", "w") if order == "theta_first" else ("w", "theta"):
            step(part, batch)
    return [p.detach() for p in net.parameters()], [theta.detach()]


@pytest.mark.parametrize("order", ["theta_first", "w_first"])
def test_steps_equal_a_plain_loop(order: str) -> None:
    torch.manual_seed(0)
    search = tiny(order=order)
    torch.manual_seed(0)
    twin = tiny(order=order)
    recorder = Recorder()
    trainer(max_epochs=1, limit_train_batches=5, limit_val_batches=0, callbacks=[recorder]).fit(search, digits())
    assert len(recorder.batches) == 5
    w, theta = plain_loop(twin, recorder.batches, order)
    torch.testing.assert_close(list(search.supernet.parameters()), w, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(search.arch_parameters(), theta, rtol=1e-5, atol=1e-6)


def test_the_two_orders_differ() -> None:
    ends = []
    for order in ("theta_first", "w_first"):
        torch.manual_seed(0)
        search = tiny(order=order)
        trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0).fit(search, digits())
        ends.append(torch.cat([p.detach().flatten() for p in search.supernet.parameters()]))
    assert not torch.equal(*ends)


def test_each_parameter_is_in_one_optimiser() -> None:
    search = tiny()
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(search, digits())
    w, theta = search.optimizers(use_pl_optimizer=False)
    in_w = {id(p) for group in w.param_groups for p in group["params"]}
    in_theta = {id(p) for group in theta.param_groups for p in group["params"]}
    assert in_w == {id(p) for p in search.supernet.parameters()}
    assert in_theta == {id(p) for p in search.relaxation.parameters()}


def test_frozen_theta_stays() -> None:
    search = tiny()
    before = search.relaxation.theta["cell"].detach().clone()
    search.theta_frozen = True
    trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0).fit(search, digits())
    assert torch.equal(search.relaxation.theta["cell"], before)


def test_one_batch_is_one_step_and_checkpoints_follow_it(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    fit = trainer(max_steps=10, enable_checkpointing=True, callbacks=[saved])
    fit.fit(tiny(), digits())
    assert fit.global_step == 10
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=4.ckpt", "step=8.ckpt"]


def test_the_rate_follows_the_cosine_per_epoch() -> None:
    recorder = Recorder()
    search = tiny(w=SGDCosine(lr=0.1, lr_min=0.01))
    trainer(max_epochs=4, limit_train_batches=2, limit_val_batches=0, callbacks=[recorder]).fit(search, digits())
    want = [0.01 + 0.5 * 0.09 * (1 + torch.cos(torch.tensor(torch.pi * e / 4)).item()) for e in range(4)]
    assert recorder.rates == pytest.approx([rate for rate in want for _ in range(2)], rel=1e-6)


def test_what_is_logged(tmp_path: Path) -> None:
    fit = trainer(
        max_epochs=2,
        limit_train_batches=2,
        logger=CSVLogger(tmp_path, name="run", version=""),
        log_every_n_steps=1,
        callbacks=[LearningRateMonitor()],
    )
    fit.fit(tiny(), digits())
    assert {name for name in fit.callback_metrics if not name.startswith("lr-")} == {
        "train/loss",
        "arch/loss",
        "arch/entropy/cell",
        "arch/skips",
        "support/open",
        "val/loss",
        "val/acc",
    }
    assert fit.callback_metrics["support/open"] == 30
    assert fit.callback_metrics["arch/entropy/cell"] == pytest.approx(torch.log(torch.tensor(5.0)).item(), abs=1e-4)
    assert "lr-SGD" in (tmp_path / "run" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    "limits",
    [
        {"fast_dev_run": True},
        {"max_time": "00:00:00:02"},
        {"max_epochs": 1, "limit_train_batches": 0.5, "limit_val_batches": 1},
        {"max_epochs": 1, "val_check_interval": 3},
        {"max_epochs": 1, "limit_train_batches": 2, "precision": "bf16-mixed"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:neither max_epochs nor max_steps")
@pytest.mark.filterwarnings("ignore:`max_epochs` was not set")
def test_limits_of_the_trainer(limits: dict[str, Any]) -> None:
    fit = trainer(**limits)
    fit.fit(tiny(), digits())
    assert fit.global_step > 0


def test_checkpoint_holds_plain_values_and_the_genotype(tmp_path: Path) -> None:
    fit = trainer(max_epochs=1, limit_train_batches=2, enable_checkpointing=True, default_root_dir=tmp_path)
    search = tiny()
    fit.fit(search, digits())
    path = Path(fit.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    content = torch.load(path, weights_only=True)
    assert content["space"] == "nasbench201"
    assert search.space.parse(content["genotype"]) == search.genotype()
    again = DARTS.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(again.relaxation.theta["cell"], search.relaxation.theta["cell"])
    assert again.w == search.w
    assert again.genotype() == search.genotype()


def test_the_genotype_is_printed_each_epoch_once(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0).fit(tiny(), digits())
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, callbacks=[GenotypeLogger(terminal=False)]).fit(
        tiny(), digits()
    )
    assert capsys.readouterr().out.count("genotype after epoch") == 2


def one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": "dartz"}, ("'dartz'", "darts", "nasbench201")),
        ({"channels": 5}, ("channels=5", "even")),
        ({"cells": 0}, ("cells=0", "at least 1")),
        ({"order": "both"}, ("'both'", "theta_first", "w_first")),
    ],
)
def test_bad_arguments(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=words[0].replace("(", ".")) as caught:
        tiny(**settings)
    one_line(caught.value, *words)


@pytest.mark.parametrize(
    ("part", "settings"), [(SGDCosine, {"lr": 0}), (SGDCosine, {"clip": -1}), (AdamTheta, {"lr": -1})]
)
def test_bad_rates(part: type, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        part(**settings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient_clip_val": 1.0}, ("gradient_clip_val=1.0", "SGDCosine(clip=1.0)")),
        ({"accumulate_grad_batches": 2}, ("accumulate_grad_batches=2", "batch size")),
    ],
)
def test_options_that_a_search_cannot_take(options: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        trainer(max_epochs=1, **options).fit(tiny(), digits())
    one_line(caught.value, *words)


def test_data_that_do_not_fit() -> None:
    with pytest.raises(MisconfigurationException) as caught:
        trainer(max_epochs=1).fit(tiny(num_classes=7), digits())
    one_line(caught.value, "10 classes", "7 outputs", "num_classes=10")
    with pytest.raises(TypeError) as wrong:
        trainer(max_epochs=1, limit_val_batches=0).fit(tiny(), DigitsDataModule())
    one_line(wrong.value, "BilevelDataModule(datamodule)")
    search = DifferentiableSearch("nasbench201", channels=4, cells=1)
    with pytest.raises(ValueError, match="10x10") as size:
        search(torch.zeros(2, 3, 10, 10))
    one_line(size.value, "10x10", "multiples of 4")


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    class Spoil(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                batch["w"][0].fill_(float("inf"))

    search = tiny()
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=2)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer(max_epochs=1, enable_checkpointing=True, callbacks=[Spoil(), saved]).fit(search, digits())
    one_line(caught.value, "train/loss is nan", "step 3", "learning rate 0.025", "step=2.ckpt")
    assert all(bool(p.isfinite().all()) for p in search.parameters())


def test_checkpoint_of_another_space(tmp_path: Path) -> None:
    fit = trainer(max_epochs=1, limit_train_batches=1, enable_checkpointing=True, default_root_dir=tmp_path)
    fit.fit(tiny(), digits())
    path = fit.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="'nasbench201'") as caught:
        trainer(max_epochs=2).fit(tiny(space="darts", cells=2), digits(), ckpt_path=path)
    one_line(caught.value, "'nasbench201'", "'darts'", "resume")
