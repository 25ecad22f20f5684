"""The exponential moving average: its closed form, when it is updated, and that it leaves choices alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas.callbacks import ExponentialMovingAverage
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.derived import DerivedTraining
from lightning_nas.methods import DARTS

NB = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"


class Line(L.LightningModule):
    """A small network with parameters, float, integer and boolean buffers; a batch of three numbers a step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.is_open: Tensor
        self.register_buffer("is_open", torch.tensor([True, True, True]))
        self.register_buffer("count", torch.tensor(0))
        self.seen: list[dict[str, Tensor]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.count += 5
        out: Tensor = self.body(batch[0]).square().mean()
        return out

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.seen.append(copy_of(self))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.3)


class History(Callback):
    """The module's state after each step; at chosen steps it closes a choice first."""

    def __init__(self, close: int | None = None) -> None:
        self.close, self.states = close, list[dict[str, Tensor]]()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if len(self.states) == self.close:
            pl_module.is_open[1] = False
        self.states.append(copy_of(pl_module))


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def trainer(*callbacks: Callback, **settings: Any) -> L.Trainer:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "max_epochs": 1}
    return L.Trainer(**quiet | settings, callbacks=list(callbacks))


def loader(batches: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(4 * batches, 3, generator=torch.Generator().manual_seed(2))), 4)


def expected(states: list[dict[str, Tensor]], decay: float, updates: list[int]) -> dict[str, Tensor]:
    """Floats: sum of the states at the updates, weighted in closed form; all else: the last state."""
    weights = [(1 - decay) * decay ** (len(updates) - 1 - i) for i in range(len(updates))]
    weights[0] = decay ** (len(updates) - 1)  # the average starts at its first state
    assert sum(weights) == pytest.approx(1)
    mean = dict(states[-1])
    for name, value in mean.items():
        if value.is_floating_point():
            mean[name] = sum((w * states[i][name] for w, i in zip(weights, updates, strict=True)), torch.zeros(()))
    return mean


def assert_states_close(state: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(state) == set(other)
    for name, value in state.items():
        assert value.dtype == other[name].dtype
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6, msg=name)


# --- closed form and schedule


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_floats_follow_the_closed_form_and_all_else_is_copied(decay: float) -> None:
    module, history = Line(), History(close=3)
    trainer(history, ExponentialMovingAverage(decay)).fit(module, loader(), loader(1))
    assert len(history.states) == 8
    assert_states_close(copy_of(module), expected(history.states, decay, list(range(8))))
    assert module.is_open.tolist() == [True, False, True]
    assert (module.count.item(), module.body[1].num_batches_tracked.item()) == (40, 8)
    if decay:
        moved = (module.body[0].weight - history.states[-1]["body.0.weight"]).abs().max()
        assert moved > 1e-4  # the average is not the last state


@pytest.mark.parametrize(
    ("every", "start", "updates"),
    [
        (1, 0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1, 5, [5, 6, 7]),
        (3, 0, [0, 3, 6]),
        (3, 2, [3, 6]),
        (2, 6, [6]),
        (100, 0, [0]),
    ],
)
def test_only_the_chosen_steps_count(every: int, start: int, updates: list[int]) -> None:
    module, history = Line(), History()
    callback = ExponentialMovingAverage(0.7, every_n_steps=every, from_step=start)
    trainer(history, callback).fit(module, loader(), loader(1))
    assert_states_close(copy_of(module), expected(history.states, 0.7, updates))


def test_the_averaged_model_itself_is_right_after_every_update() -> None:
    ema, history = ExponentialMovingAverage(0.9), History(close=3)
    found: list[dict[str, Tensor]] = []

    class Look(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            assert ema._average_model is not None
            found.append(copy_of(ema._average_model.module))

    trainer(history, ema, Look()).fit(Line(), loader(), loader(1))
    assert len(found) == 8
    for step, state in enumerate(found):
        assert_states_close(state, expected(history.states[: step + 1], 0.9, list(range(step + 1))))


def test_should_update_is_about_steps_only() -> None:
    callback = ExponentialMovingAverage(every_n_steps=2, from_step=3)
    assert [step for step in range(9) if callback.should_update(step_idx=step)] == [4, 6, 8]
    assert not callback.should_update()
    assert not callback.should_update(epoch_idx=4)


def test_validation_sees_the_average_and_training_goes_on_without_it() -> None:
    module, plain = Line(), Line()
    history, undisturbed = History(), History()
    trainer(history, ExponentialMovingAverage(0.7), max_epochs=2).fit(module, loader(), loader(1))
    trainer(undisturbed, max_epochs=2).fit(plain, loader(), loader(1))
    for state, other in zip(history.states, undisturbed.states, strict=True):
        assert_states_close(state, other)
    for epoch, seen in enumerate(module.seen, start=1):
        assert_states_close(seen, expected(history.states[: 8 * epoch], 0.7, list(range(8 * epoch))))


def test_before_the_first_update_the_average_is_the_current_model(tmp_path: Path) -> None:
    """Lightning's own callback would validate, save and leave behind the weights from before the training."""
    module, history = Line(), History()
    save = ModelCheckpoint(tmp_path, filename="last")
    callbacks = history, ExponentialMovingAverage(0.7, from_step=100), save
    trainer(*callbacks, enable_checkpointing=True).fit(module, loader(), loader(1))
    last = history.states[-1]
    assert_states_close(module.seen[0], last)
    assert_states_close(copy_of(module), last)
    assert_states_close(torch.load(save.best_model_path)["state_dict"], last)
    assert (last["body.0.weight"] - Line().body[0].weight).abs().max() > 1e-3


# --- choices


class CloseAtEpochEnd(Callback):
    """Closes a choice when no step follows any more."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.is_open[1] = False


@pytest.mark.parametrize("every", [1, 5])
def test_a_choice_that_is_closed_after_the_last_update_stays_closed(every: int, tmp_path: Path) -> None:
    module = Line()
    save = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True)
    ema = ExponentialMovingAverage(0.7, every_n_steps=every)
    trainer(CloseAtEpochEnd(), ema, save, enable_checkpointing=True).fit(module, loader(), loader(1))
    assert module.is_open.tolist() == [True, False, True]
    checkpoint = torch.load(save.best_model_path)
    assert checkpoint["state_dict"]["is_open"].tolist() == [True, False, True]
    assert checkpoint["current_model_state"]["is_open"].tolist() == [True, False, True]


def test_a_choice_that_is_closed_between_updates_is_closed_in_validation() -> None:
    module = Line()
    trainer(History(close=2), ExponentialMovingAverage(0.7, every_n_steps=100)).fit(module, loader(), loader(1))
    assert module.seen[0]["is_open"].tolist() == [True, False, True]


class CloseOne(Callback):
    """Closes the first choice of the first edge after the second batch."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == 1:
            pl_module.relaxation.support.drop("cell", 0, 0)


def search_under(callback: Callback) -> DARTS:
    search = DARTS("nasbench201", channels=4, cells=1, in_channels=1)
    fit = trainer(CloseOne(), callback, max_epochs=2, limit_train_batches=4, limit_val_batches=1)
    fit.fit(search, datamodule=BilevelDataModule(DigitsDataModule()))
    return search


def test_a_search_keeps_its_closed_choices() -> None:
    search = search_under(ExponentialMovingAverage(0.9))
    assert search.relaxation.support.mask("cell")[0].tolist() == [False, True, True, True, True]
    assert search.relaxation.support.open("cell")[0] == (1, 2, 3, 4)
    assert search.relaxation.mean()["cell"][0, 0] == 0


def test_averaging_buffers_would_open_them() -> None:
    """Why the callback is there: an average of true and false is not zero, and so is true."""
    search = search_under(EMAWeightAveraging(decay=0.9, use_buffers=True))
    assert search.relaxation.support.mask("cell").all()


def test_a_search_ends_with_averaged_weights_and_parameters() -> None:
    class Keep(Callback):
        states: list[dict[str, Tensor]]

        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.states = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            self.states.append(copy_of(pl_module))

    search, keep = DARTS("nasbench201", channels=4, cells=1, in_channels=1), Keep()
    fit = trainer(keep, ExponentialMovingAverage(0.6, every_n_steps=2), max_epochs=2, limit_train_batches=3)
    fit.fit(search, datamodule=BilevelDataModule(DigitsDataModule()))
    assert len(keep.states) == 6
    assert fit.global_step == 6  # a step is one of the weights
    mean = expected(keep.states, 0.6, [0, 2, 4])
    assert_states_close(copy_of(search), mean)
    assert not torch.equal(mean["relaxation.theta.cell"], keep.states[-1]["relaxation.theta.cell"])


# --- the derived network


def test_the_training_of_a_derived_network(tmp_path: Path) -> None:
    class Keep(Callback):
        def __init__(self) -> None:
            self.states: list[dict[str, Tensor]] = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            self.states.append(copy_of(pl_module))

    training, keep = DerivedTraining(NB, channels=4, cells=1, in_channels=1, auxiliary_weight=0.0), Keep()
    save = ModelCheckpoint(tmp_path)
    ema = ExponentialMovingAverage(0.8)
    fit = trainer(keep, ema, save, max_epochs=2, limit_train_batches=3, enable_checkpointing=True)
    fit.fit(training, datamodule=DigitsDataModule())
    mean = expected(keep.states, 0.8, list(range(6)))
    assert_states_close(copy_of(training), mean)
    loaded = DerivedTraining.load_from_checkpoint(save.best_model_path)
    assert_states_close(copy_of(loaded), mean)  # the checkpoint of the average is what one loads
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded.eval()(x), training.eval()(x))
    assert F.softmax(loaded(x), dim=-1).isfinite().all()


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
def test_a_fit_that_goes_on_ends_at_the_same_average(tmp_path: Path) -> None:
    def fit(name: str, resume: Path | None = None) -> DerivedTraining:
        torch.manual_seed(0)
        training = DerivedTraining(NB, channels=4, cells=1, in_channels=1, drop_path=0.0, auxiliary_weight=0.0)
        save = ModelCheckpoint(tmp_path / name, filename="{epoch}", save_top_k=-1)
        ema = ExponentialMovingAverage(0.8, every_n_steps=2)
        run = trainer(ema, save, max_epochs=2, limit_train_batches=3, enable_checkpointing=True)
        run.fit(training, datamodule=DigitsDataModule(), ckpt_path=resume)
        return training

    whole = fit("whole")
    resumed = fit("resumed", tmp_path / "whole" / "epoch=0.ckpt")
    assert_states_close(copy_of(resumed), copy_of(whole))


# --- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"decay": 1.0},
        {"decay": -0.1},
        {"decay": 1.5},
        {"decay": math.nan},
        {"every_n_steps": 0},
        {"every_n_steps": -2},
        {"from_step": -1},
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be in") as caught:
        ExponentialMovingAverage(**arguments)
    ((name, value),) = arguments.items()
    assert f"{name}={value}" in str(caught.value)
    assert "\n" not in str(caught.value)
