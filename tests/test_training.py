"""Recipes of optimisation, the planned length of a fit, generators that travel, a stop at a loss that is not finite."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import one_line, quiet_trainer

from lightning_nas.optimizers import AdamTheta, SGDCosine
from lightning_nas.training import (
    NonFiniteLossError,
    ReproducibleModule,
    planned_epochs,
    rng_state,
    set_rng_state,
    stretch,
)


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(3))]


# --- recipes


def test_the_defaults_are_those_of_darts() -> None:
    group = SGDCosine().optimizer(parameters()).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.025, 0.9, 3e-4, False)
    group = AdamTheta().optimizer(parameters()).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)
    assert SGDCosine().clip == 5.0
    assert AdamTheta().clip is None


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_of_the_weights(nesterov: bool) -> None:
    p = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    recipe = SGDCosine(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    optimizer, w, velocity = recipe.optimizer([p]), 1.0, 0.0
    for gradient in (2.0, -1.0, 0.5):
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        step = gradient + 0.01 * w
        velocity = 0.8 * velocity + step if velocity else step
        w -= 0.1 * (step + 0.8 * velocity if nesterov else velocity)
        assert p.item() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        (SGDCosine, {"lr": 0.0}, ("lr=0.0", "lr must be positive")),
        (SGDCosine, {"lr_min": -0.1}, ("lr_min=-0.1", "must not be negative")),
        (SGDCosine, {"momentum": -0.1}, ("momentum=-0.1", "must not be negative")),
        (SGDCosine, {"weight_decay": -1.0}, ("weight_decay=-1.0", "must not be negative")),
        (SGDCosine, {"clip": 0.0}, ("clip=0.0", "None for no clipping")),
        (AdamTheta, {"lr": -1.0}, ("lr=-1.0", "must be positive")),
        (AdamTheta, {"weight_decay": -1.0}, ("weight_decay=-1.0", "must not be negative")),
        (AdamTheta, {"clip": 0.0}, ("clip=0.0", "must be positive")),
    ],
)
def test_rates_that_are_not_allowed(recipe: Any, settings: dict[str, float], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        recipe(**settings)
    one_line(caught.value, *words)


def rates(epochs: int | None, steps: int) -> list[float]:
    recipe = SGDCosine(lr=0.1, lr_min=0.01)
    optimizer = recipe.optimizer(parameters())
    scheduler = recipe.scheduler(optimizer)
    stretch(scheduler, epochs)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_a_stretched_schedule_is_the_cosine() -> None:
    want = [0.01 + 0.09 * (1 + math.cos(math.pi * epoch / 7)) / 2 for epoch in range(8)]
    assert rates(7, 8) == pytest.approx(want, rel=1e-9)


def test_without_a_length_the_rate_stays() -> None:
    assert rates(None, 50) == pytest.approx([0.1] * 50, rel=1e-9)


def test_another_schedule_is_left_alone() -> None:
    scheduler = torch.optim.lr_scheduler.StepLR(SGDCosine().optimizer(parameters()), 3)
    stretch(scheduler, 10)
    assert not hasattr(scheduler, "T_max")


# --- the planned length


def plan(max_epochs: int | None, max_steps: int, batches: float, accumulate: int = 1) -> int | None:
    steps = math.inf if max_epochs in (None, -1) else max_epochs * math.ceil(batches / accumulate)
    steps = steps if max_steps == -1 else min(steps, max_steps)
    settings = {"max_epochs": max_epochs, "max_steps": max_steps, "num_training_batches": batches}
    settings |= {"accumulate_grad_batches": accumulate, "estimated_stepping_batches": steps}
    return planned_epochs(SimpleNamespace(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "batches", "accumulate", "epochs"),
    [
        (5, -1, 10, 1, 5),
        (None, 25, 10, 1, 3),
        (-1, 30, 10, 1, 3),
        (2, 25, 10, 1, 2),
        (9, 25, 10, 1, 3),
        (None, 3, 10, 4, 1),
        (None, 7, 10, 4, 3),
    ],
)
def test_how_many_epochs_a_fit_takes(
    max_epochs: int | None, max_steps: int, batches: int, accumulate: int, epochs: int
) -> None:
    assert plan(max_epochs, max_steps, batches, accumulate) == epochs


def test_the_number_of_epochs_is_known_without_touching_the_data() -> None:
    """Loading data before a checkpoint is restored would lose the place in them."""
    bare = SimpleNamespace(max_epochs=4, max_steps=-1)
    assert planned_epochs(bare) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(("max_epochs", "max_steps", "batches"), [(-1, -1, 10), (None, -1, 10), (None, 20, math.inf)])
def test_a_length_that_nobody_knows(max_epochs: int | None, max_steps: int, batches: float) -> None:
    with pytest.warns(UserWarning, match="learning rate stays constant"):
        assert plan(max_epochs, max_steps, batches) is None


# --- generators


def draws() -> tuple[list[float], list[float], list[float]]:
    return torch.randn(3).tolist(), np.random.standard_normal(3).tolist(), [random.gauss(0, 1) for _ in range(3)]


def test_the_generators_return_to_a_state_that_went_through_a_file() -> None:
    draws()  # an odd number of normal draws leaves a second one waiting, which belongs to the state
    file = io.BytesIO()
    torch.save(rng_state(), file)
    first = draws()
    assert draws() != first
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True))
    assert draws() == first


# --- the module


class Regression(ReproducibleModule):
    """A fit with random numbers in each step."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.num_classes = num_classes
        self.drawn: list[float] = []

    def setup(self, stage: str) -> None:
        if self.num_classes:
            self.require_classes(self.num_classes)
        self.require_image_size(3)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.drawn.append(float(torch.rand(())) + random.random() + np.random.random())
        loss = self.layer(batch).square().mean()
        self.check_finite(loss, "train/loss", 0.125)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def loader(spoilt: int | None = None) -> DataLoader[Any]:
    x = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    if spoilt is not None:
        x[spoilt, 0, 0] = torch.inf
    own = torch.Generator()  # a loader without one draws from the global generator at each epoch's start
    return DataLoader(list(x), batch_size=None, generator=own)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_fit_draws_what_the_whole_one_drew(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    whole, resumed = Regression(), Regression()
    quiet_trainer(max_epochs=3, enable_checkpointing=True, callbacks=[saved]).fit(whole, loader())
    L.seed_everything(123, verbose=False)
    quiet_trainer(max_epochs=3).fit(resumed, loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert resumed.drawn == whole.drawn[5:]


@pytest.mark.parametrize("saves", [True, False], ids=["a checkpoint", "no checkpoint"])
def test_a_loss_that_is_not_finite_stops_before_the_step(saves: bool, tmp_path: Path) -> None:
    module = Regression()
    callbacks = [ModelCheckpoint(tmp_path, every_n_train_steps=2, filename="{step}")] if saves else []
    with pytest.raises(NonFiniteLossError) as caught:
        quiet_trainer(max_epochs=1, enable_checkpointing=saves, callbacks=callbacks).fit(module, loader(spoilt=3))
    one_line(caught.value, "train/loss is inf", "step 3", "learning rate 0.125", "smaller learning rate")
    one_line(caught.value, str(tmp_path / "step=2.ckpt") if saves else "none yet")
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    assert len(module.drawn) == 4


class Pictures(L.LightningDataModule):
    """Says what it holds."""

    def __init__(self, **facts: int) -> None:
        super().__init__()
        vars(self).update(facts)

    def train_dataloader(self) -> DataLoader[Any]:
        return loader()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"num_classes": 100}, ("100 classes", "10 outputs", "num_classes=100")),
        ({"image_size": 28}, ("28x28", "halves 3 times", "multiple of 8", "resize or pad")),
    ],
)
def test_data_that_do_not_fit_are_refused_before_the_first_step(facts: dict[str, int], words: tuple[str, ...]) -> None:
    module = Regression(num_classes=10)
    with pytest.raises(MisconfigurationException) as caught:
        quiet_trainer(max_epochs=1).fit(module, Pictures(**facts))
    one_line(caught.value, *words)
    assert module.drawn == []


@pytest.mark.parametrize("facts", [{}, {"num_classes": 10}, {"image_size": 32}])
def test_data_that_fit_or_say_nothing_are_taken(facts: dict[str, int]) -> None:
    module = Regression(num_classes=10)
    quiet_trainer(max_epochs=1).fit(module, Pictures(**facts))
    assert len(module.drawn) == 5
