"""What a search refuses: in one line that says what was given, what is allowed and what to do, before long work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from toys import AtBatch, Pairs, one_line, quiet_trainer

from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS, AdamTheta, DifferentiableSearch, SGDCosine
from lightning_nas.training import NonFiniteLossError


def tiny(**settings: Any) -> DARTS:
    torch.manual_seed(3)
    return DARTS(**{"space": "nasbench201", "channels": 4, "cells": 1, "in_channels": 1} | settings)


def pairs(count: int = 4) -> Pairs:
    return Pairs(count, shape=(1, 8, 8))


class Untouched(Callback):
    """Fails if a batch is reached, in training or in the sanity check."""

    def on_train_batch_start(self, *args: object, **named: object) -> None:
        raise AssertionError("work was started")

    on_validation_batch_start = on_train_batch_start


def refuse(
    search: L.LightningModule, data: Any, error: type[Exception], *words: str, ckpt_path: Any = None, **options: Any
) -> None:
    """Fit and check the message, that no batch was reached, and that not one bit of the search has moved."""
    before = {name: value.clone() for name, value in search.state_dict().items()}
    with pytest.raises(error) as caught:
        trainer = quiet_trainer(**{"max_epochs": 1, "callbacks": [Untouched()], "num_sanity_val_steps": 2} | options)
        trainer.fit(search, data, ckpt_path=ckpt_path)
    one_line(caught.value, *words)
    assert all(torch.equal(value, before[name]) for name, value in search.state_dict().items())


# --- arguments


@pytest.mark.parametrize("method", [DARTS, DifferentiableSearch])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": "dart"}, ("unknown space 'dart'", "darts", "nasbench201", "pass a Space")),
        ({"space": ""}, ("unknown space ''", "darts", "nasbench201")),
        ({"channels": 5}, ("channels=5", "even number of at least 2")),
        ({"channels": 0}, ("channels=0", "even number of at least 2")),
        ({"channels": -4}, ("channels=-4", "even number of at least 2")),
        ({"cells": 0}, ("cells=0", "at least 1")),
        ({"in_channels": 0}, ("in_channels=0", "at least 1")),
        ({"num_classes": -1}, ("num_classes=-1", "at least 0")),
        ({"order": "alternating"}, ("'alternating'", "'theta_first'", "'w_first'")),
        ({"order": None}, ("None", "'theta_first'", "'w_first'")),
        ({"w": {"lr": -1.0}}, ("lr=-1.0", "lr must be positive")),
        ({"theta": {"lr": 0.0}}, ("lr=0.0", "must be positive")),
    ],
    ids=str,
)
def test_arguments_that_are_not_allowed(method: Any, settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        method(**{"space": "nasbench201", "channels": 4, "cells": 1, "in_channels": 1} | settings)
    one_line(caught.value, *words)


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(("recipe", "name"), [(SGDCosine, "lr"), (SGDCosine, "clip"), (AdamTheta, "lr")])
def test_values_that_must_be_positive_and_finite(recipe: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}")) as caught:
        recipe(**{name: value})
    one_line(caught.value, f"{name}={value}", "positive")


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("recipe", "name"),
    [(SGDCosine, "lr_min"), (SGDCosine, "momentum"), (SGDCosine, "weight_decay"), (AdamTheta, "weight_decay")],
)
def test_values_that_must_not_be_negative(recipe: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}")) as caught:
        recipe(**{name: value})
    one_line(caught.value, f"{name}={value}", "not be negative")


@pytest.mark.parametrize("betas", [(1.0, 0.999), (0.5, 1.0), (-0.1, 0.999), (float("nan"), 0.999)])
def test_decays_of_moments_lie_between_0_and_1(betas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="betas") as caught:
        AdamTheta(betas=betas)
    one_line(caught.value, str(betas[0]), "less than 1")


def test_nesterov_without_momentum_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="nesterov") as caught:
        SGDCosine(momentum=0.0, nesterov=True)
    one_line(caught.value, "momentum=0.0", "nesterov=True", "nesterov=False")


# --- data that do not fit


def test_other_classes_than_the_data() -> None:
    words = ("10 classes", "7 outputs", "pass num_classes=10")
    refuse(tiny(num_classes=7), BilevelDataModule(DigitsDataModule()), MisconfigurationException, *words)


def test_pictures_that_cannot_be_halved_by_the_size_the_data_say() -> None:
    data = pairs()
    data.image_size = 10  # type: ignore[attr-defined]
    refuse(tiny(), data, MisconfigurationException, "10x10", "halves 2 times", "multiple of 4", "resize or pad")


@pytest.mark.parametrize("shape", [(1, 10, 8), (1, 8, 6)])
def test_pictures_that_cannot_be_halved_by_the_batch(shape: tuple[int, int, int]) -> None:
    search = tiny()
    with pytest.raises(ValueError, match=f"{shape[1]}x{shape[2]}") as caught:
        quiet_trainer(max_epochs=1).fit(search, Pairs(2, shape=shape))
    one_line(caught.value, f"{shape[1]}x{shape[2]}", "halved 2 times", "multiples of 4", "resize or pad")


@pytest.mark.parametrize("kind", ["a data module", "a loader", "w alone"])
def test_batches_that_are_no_pairs(kind: str) -> None:
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
    data: Any = {
        "a data module": DigitsDataModule(),
        "a loader": DataLoader(TensorDataset(x, y), 4),
        "w alone": DataLoader([{"w": (x, y)}], batch_size=None),  # type: ignore[arg-type]
    }[kind]
    held_out = None if kind == "a data module" else pairs().val_dataloader()
    search = tiny()
    before = [p.detach().clone() for p in search.parameters()]
    with pytest.raises(TypeError) as caught:
        quiet_trainer(max_epochs=1).fit(search, data, held_out)
    one_line(caught.value, "{'w': (x, y), 'theta': (x, y)}", "BilevelDataModule(datamodule)")
    assert all(torch.equal(p, q) for p, q in zip(search.parameters(), before, strict=True))


# --- options of the Trainer


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient_clip_val": 1}, ("gradient_clip_val=1", "remove it", "w=SGDCosine(clip=1)")),
        (
            {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
            ("gradient_clip_val=0.5", "w=SGDCosine(clip=0.5)"),
        ),
        ({"accumulate_grad_batches": 2}, ("accumulate_grad_batches=2", "not supported", "batch size")),
    ],
    ids=str,
)
def test_options_that_do_not_reach_a_search(options: dict[str, Any], words: tuple[str, ...]) -> None:
    refuse(tiny(), pairs(), MisconfigurationException, *words, **options)


# --- losses that are not finite


@pytest.mark.parametrize("order", ["theta_first", "w_first"])
@pytest.mark.parametrize(("part", "name"), [("w", "train/loss"), ("theta", "arch/loss")])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite_stops_with_all_values_finite(
    part: str, name: str, value: float, order: Any, tmp_path: Path
) -> None:
    """Spoilt is the fourth batch of the second epoch of five, where the rate has left its start."""

    def spoil(search: Any, batch: dict[str, tuple[Tensor, Tensor]]) -> None:
        if search.current_epoch == 1:
            batch[part][0].fill_(value)

    search, saved = tiny(order=order, w=SGDCosine(lr=0.2)), ModelCheckpoint(tmp_path, every_n_train_steps=3)
    data = pairs(5)
    trainer = quiet_trainer(
        max_epochs=2, limit_val_batches=0, enable_checkpointing=True, callbacks=[AtBatch(3, spoil), saved]
    )
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(search, data)
    step = 9 if (part, order) == ("theta", "w_first") else 8  # the weights of that batch may have had their step
    last = saved.best_model_path
    one_line(caught.value, f"{name} is nan", f"at step {step}", "learning rate 0.1;", last, "smaller")
    assert last.endswith("step=6.ckpt")
    assert all(bool(value.isfinite().all()) for value in search.state_dict().values())
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            assert all(bool(entry.isfinite().all()) for entry in state.values() if isinstance(entry, Tensor))


def test_without_a_checkpoint_the_message_says_so() -> None:
    def spoil(search: Any, batch: Any) -> None:
        batch["w"][0].fill_(float("inf"))

    with pytest.raises(NonFiniteLossError) as caught:
        quiet_trainer(max_epochs=1, callbacks=[AtBatch(0, spoil)]).fit(tiny(), pairs())
    one_line(caught.value, "train/loss is nan", "step 0", "learning rate 0.025", "none yet")


# --- checkpoints of something else


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(tiny(), pairs(1))
    trainer.save_checkpoint(tmp_path / "search.ckpt")
    return tmp_path / "search.ckpt"


def test_the_checkpoint_of_another_space(checkpoint: Path) -> None:
    other = tiny(space="darts", cells=2)
    words = ("'nasbench201'", "'darts'", "resume it with the space it was made with")
    refuse(other, pairs(), ValueError, *words, ckpt_path=checkpoint, max_epochs=2)
    with pytest.raises(ValueError, match="'nasbench201'") as caught:
        DARTS.load_from_checkpoint(checkpoint, weights_only=True, space="darts", cells=2)
    one_line(caught.value, *words)


def test_a_checkpoint_of_no_search(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["space"]
    torch.save(content, checkpoint)
    refuse(tiny(), pairs(), ValueError, "space None", "'nasbench201'", ckpt_path=checkpoint, max_epochs=2)
