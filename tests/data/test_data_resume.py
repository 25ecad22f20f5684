"""Real trainers stopped at every kind of place: no batch may be trained on twice, or lost, after the resume."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas.data import (
    ArrayDataModule,
    Augment,
    BilevelDataModule,
    PairLoader,
    ResumableLoader,
    StatefulLoader,
    TensorLoader,
)

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")

LENGTH = 5  # batches of an epoch, for all loaders here
EPOCHS = 3
IMAGES = torch.randint(0, 256, (48, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(48) % 3
Step = tuple[int, int, float]


def tensor_loader(start: int = 0, stop: int = 30, seed: int = 0) -> TensorLoader:
    return TensorLoader(IMAGES[start:stop], LABELS[start:stop], 6, augment=Augment(crop=1, flip=True), seed=seed)


def pair_loader() -> PairLoader:
    return PairLoader(tensor_loader(), tensor_loader(30, 48, seed=1))  # 5 and 3 batches


def resumable_loader(workers: int = 0) -> ResumableLoader:
    dataset = TensorDataset(IMAGES[:30].float(), LABELS[:30])
    return ResumableLoader(DataLoader(dataset, 6, shuffle=True, num_workers=workers), seed=2)


def validation() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(4, 1)), batch_size=2)


class Following(pl.LightningDataModule):
    """A data module whose loader follows the trainer, as those of the package do."""

    def __init__(self, make: Callable[[], StatefulLoader[Any]]) -> None:
        super().__init__()
        self.make = make

    def train_dataloader(self) -> StatefulLoader[Any]:
        return self.make().follow(self.trainer)

    def val_dataloader(self) -> DataLoader[Any]:
        return validation()


class TorchData(pl.LightningDataModule):
    """A user's data module."""

    def __init__(self, workers: int = 0) -> None:
        super().__init__()
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Any]:
        dataset = TensorDataset(IMAGES.float(), LABELS)
        return DataLoader(dataset, 6, shuffle=True, drop_last=True, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return validation()


DATA: dict[str, Callable[[], Any]] = {
    "tensor": lambda: Following(tensor_loader),
    "pair": lambda: Following(pair_loader),
    "resumable": lambda: Following(resumable_loader),
    "arrays": lambda: ArrayDataModule((IMAGES, LABELS), batch_size=8, val_fraction=0.125, augment=Augment(crop=1)),
    "bilevel": lambda: BilevelDataModule(
        ArrayDataModule((IMAGES, LABELS), batch_size=4, val_fraction=0.125, augment=Augment(crop=1)), val_fraction=0.45
    ),
    "bilevel of torch": lambda: BilevelDataModule(TorchData(), val_fraction=0.3),
    "tensor alone": tensor_loader,  # passed to fit as a loader, so it knows no trainer
    "pair alone": pair_loader,
    "resumable alone": resumable_loader,
    "resumable with workers": lambda: Following(lambda: resumable_loader(2)),
    "bilevel of torch with workers": lambda: BilevelDataModule(TorchData(2), val_fraction=0.3),
}
IN_PROCESS = [name for name in DATA if "workers" not in name]

RUNS: dict[str, dict[str, Any]] = {
    "epochs": {"max_epochs": EPOCHS},
    "steps": {"max_epochs": -1, "max_steps": 14},
    "no validation": {"max_epochs": EPOCHS, "limit_val_batches": 0},
    "validation in the epoch": {"max_epochs": EPOCHS, "val_check_interval": 2},
    "validation in the epoch, steps": {"max_epochs": -1, "max_steps": 14, "val_check_interval": 2},
    "validation over epochs": {"max_epochs": EPOCHS, "val_check_interval": 4, "check_val_every_n_epoch": None},
    "limited": {"max_epochs": EPOCHS, "limit_train_batches": 3},
    "limited, steps": {"max_epochs": -1, "max_steps": 9, "limit_train_batches": 3},
}

PLACES = [
    ("on_train_batch_end", 3),  # in the first epoch
    ("on_train_batch_end", LENGTH),  # the last batch of an epoch
    ("on_train_batch_end", LENGTH + 2),
    ("on_validation_end", 1),
    ("on_validation_end", 2),
    ("on_train_epoch_end", 1),
    ("on_train_epoch_end", 2),
]


def fingerprint(batch: Any) -> float:
    """A number that tells batches apart, whatever their structure."""
    if isinstance(batch, dict):
        return sum((place + 1) * fingerprint(part) for place, part in enumerate(batch.values()))
    if isinstance(batch, list | tuple):
        return fingerprint(dict(enumerate(batch)))
    weights = torch.linspace(1, 2, batch.numel(), dtype=torch.float64)
    return float((batch.double().flatten() * weights).sum())


class Recorder(pl.LightningModule):
    """Writes down (epoch, number, fingerprint) of every batch that it trained on."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[Step] = []
        self.interrupt: tuple[int, BaseException] | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        if self.interrupt is not None and len(self.seen) == self.interrupt[0]:
            raise self.interrupt[1]
        self.seen.append((self.current_epoch, batch_idx, fingerprint(batch)))
        loss = self.weight**2
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        self.manual_backward(loss)
        optimizer.step()  # type: ignore[union-attr]
        return None

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.weight.detach())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Save(pl.Callback):
    """Saves a checkpoint at the given call of a hook, and notes how many steps were finished then."""

    def __init__(self, hook: str, call: int, path: Path) -> None:
        self.call, self.path, self.finished, self.calls = call, path, -1, 0
        setattr(self, hook, self.save)

    def save(self, trainer: pl.Trainer, module: Recorder, *_: Any) -> None:
        self.calls += not trainer.sanity_checking
        if self.calls == self.call and self.finished < 0:
            self.finished = len(module.seen)
            trainer.save_checkpoint(self.path)


class Raise(pl.Callback):
    """Raises at the given call of a hook."""

    def __init__(self, hook: str, call: int, error: BaseException) -> None:
        self.call, self.error, self.calls = call, error, 0
        setattr(self, hook, self.stop)

    def stop(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.call:
            raise self.error


def fit(
    data: Any,
    *callbacks: pl.Callback,
    module: Recorder | None = None,
    ckpt_path: Path | str | None = None,
    **options: Any,
) -> list[Step]:
    """The steps of one fit by a new trainer."""
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    module = module or Recorder()
    loaders = {"datamodule": data} if isinstance(data, pl.LightningDataModule) else {"train_dataloaders": data}
    if "datamodule" not in loaders:
        loaders["val_dataloaders"] = validation()
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True, **loaders)
    return module.seen


@cache
def straight(data: str, run: str) -> list[Step]:
    """The steps of the run that is never stopped."""
    return fit(DATA[data](), **RUNS[run])


@pytest.mark.parametrize(
    ("data", "run"),
    [("bilevel", run) for run in RUNS]
    + [("pair alone", run) for run in RUNS]
    + [(data, run) for data in IN_PROCESS for run in ("epochs", "limited") if data not in ("bilevel", "pair alone")]
    + [("bilevel of torch", "steps"), ("bilevel of torch", "validation in the epoch, steps")],
)
def test_resumed_at_any_place(data: str, run: str, tmp_path: Path) -> None:
    tried = 0
    for hook, call in PLACES:
        if data.endswith("alone") and hook == "on_train_epoch_end" and run == "validation in the epoch, steps":
            continue  # Lightning asks for a batch before it starts the epoch; only the trainer's count can tell
        save = Save(hook, call, tmp_path / "place.ckpt")
        fit(DATA[data](), save, **RUNS[run])
        if save.finished >= 0:
            tried += 1
            resumed = fit(DATA[data](), ckpt_path=save.path, **RUNS[run])
            assert resumed == straight(data, run)[save.finished :], (hook, call)
    assert tried >= 4


@pytest.mark.parametrize("data", ["resumable with workers", "bilevel of torch with workers"])
@pytest.mark.parametrize("place", [("on_train_batch_end", 3), ("on_train_batch_end", LENGTH), ("on_validation_end", 1)])
def test_resumed_with_worker_processes(data: str, place: tuple[str, int], tmp_path: Path) -> None:
    run = {"max_epochs": 2}
    save = Save(*place, tmp_path / "place.ckpt")
    assert fit(DATA[data](), save, **run) == straight(data.removesuffix(" with workers"), "epochs")[: 2 * LENGTH]
    resumed = fit(DATA[data](), ckpt_path=save.path, **run)
    assert resumed == straight(data.removesuffix(" with workers"), "epochs")[save.finished : 2 * LENGTH]


@pytest.mark.parametrize("run", ["epochs", "steps", "validation in the epoch"])
@pytest.mark.parametrize("place", PLACES)
def test_resumed_with_manual_optimization(place: tuple[str, int], run: str, tmp_path: Path) -> None:
    save = Save(*place, tmp_path / "place.ckpt")
    whole = fit(DATA["bilevel"](), save, module=Recorder(manual=True), **RUNS[run])
    assert whole == straight("bilevel", run)
    resumed = fit(DATA["bilevel"](), module=Recorder(manual=True), ckpt_path=save.path, **RUNS[run])
    assert resumed == whole[save.finished :]


@pytest.mark.parametrize("data", ["tensor", "bilevel", "bilevel of torch"])
@pytest.mark.parametrize("finished", [0, 2, LENGTH - 1, LENGTH, LENGTH + 1])
@pytest.mark.parametrize("where", ["step", "on_train_batch_start", "on_before_optimizer_step"])
def test_interrupted_within_a_step(data: str, finished: int, where: str, tmp_path: Path) -> None:
    """The batch of the unfinished step is trained on after the resume."""
    save, module = Save("on_exception", 1, tmp_path / "interrupted.ckpt"), Recorder()
    error, callbacks = RuntimeError("interrupted"), [save]
    if where == "step":
        module.interrupt = (finished, error)
    else:
        callbacks.append(Raise(where, finished + 1, error))
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(DATA[data](), *callbacks, module=module, **RUNS["epochs"])
    resumed = fit(DATA[data](), ckpt_path=save.path, **RUNS["epochs"])
    assert resumed == straight(data, "epochs")[finished:]


@pytest.mark.parametrize("finished", [2, LENGTH, LENGTH + 1])
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_start", "on_train_epoch_end"])
def test_interrupted_between_steps(hook: str, finished: int, tmp_path: Path) -> None:
    save = Save("on_exception", 1, tmp_path / "interrupted.ckpt")
    call = finished if hook == "on_train_batch_end" else max(finished // LENGTH, 1)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(
            DATA["bilevel"](),
            save,
            Raise(hook, call, RuntimeError("interrupted")),
            num_sanity_val_steps=0,
            **RUNS["epochs"],
        )
    resumed = fit(DATA["bilevel"](), ckpt_path=save.path, num_sanity_val_steps=0, **RUNS["epochs"])
    assert resumed == straight("bilevel", "epochs")[save.finished :]


def test_control_c(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    checkpoint, module = ModelCheckpoint(tmp_path, save_on_exception=True, every_n_epochs=100), Recorder()
    module.interrupt = (LENGTH + 2, KeyboardInterrupt())
    try:
        with pytest.raises(SystemExit):
            fit(DATA["bilevel"](), checkpoint, module=module, **RUNS["epochs"])
    finally:
        signal.signal(signal.SIGINT, before)
    (path,) = tmp_path.glob("*.ckpt")
    resumed = fit(DATA["bilevel"](), ckpt_path=path, **RUNS["epochs"])
    assert resumed == straight("bilevel", "epochs")[LENGTH + 2 :]


@pytest.mark.parametrize("data", ["tensor", "tensor alone", "pair alone", "resumable", "bilevel"])
@pytest.mark.parametrize("every", [3, LENGTH])
def test_stopped_by_max_steps_and_resumed_from_a_step_checkpoint(data: str, every: int, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=every, save_top_k=-1, filename="{step}")
    assert fit(DATA[data](), checkpoint, max_steps=8, max_epochs=-1) == straight(data, "epochs")[:8]
    last = 8 // every * every
    resumed = fit(DATA[data](), ckpt_path=tmp_path / f"step={last}.ckpt", **RUNS["epochs"])
    assert resumed == straight(data, "epochs")[last:]


@pytest.mark.parametrize("data", ["tensor", "pair alone", "bilevel", "bilevel of torch"])
@pytest.mark.parametrize("at_train_end", [True, False])
def test_resumed_from_the_checkpoint_of_an_epoch(data: str, at_train_end: bool, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, save_on_train_epoch_end=at_train_end, save_top_k=-1, filename="{epoch}")
    fit(DATA[data](), checkpoint, max_epochs=2)
    for epoch in range(2):
        resumed = fit(DATA[data](), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", **RUNS["epochs"])
        assert resumed == straight(data, "epochs")[(epoch + 1) * LENGTH :]


def test_resumed_twice(tmp_path: Path) -> None:
    first, second = (
        Save("on_train_batch_end", 3, tmp_path / "1.ckpt"),
        Save("on_train_batch_end", 4, tmp_path / "2.ckpt"),
    )
    fit(DATA["bilevel"](), first, **RUNS["epochs"])
    fit(DATA["bilevel"](), second, ckpt_path=first.path, **RUNS["epochs"])
    assert fit(DATA["bilevel"](), ckpt_path=second.path, **RUNS["epochs"]) == straight("bilevel", "epochs")[7:]


def test_what_is_in_the_checkpoint(tmp_path: Path) -> None:
    save = Save("on_train_batch_end", 7, tmp_path / "place.ckpt")
    fit(DATA["bilevel"](), save, **RUNS["epochs"])
    content = torch.load(save.path, weights_only=True)
    assert content["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 1, "position": 2}]


def test_reloading_loaders_every_epoch_changes_nothing() -> None:
    for data in ("tensor", "bilevel"):
        assert fit(DATA[data](), reload_dataloaders_every_n_epochs=1, **RUNS["epochs"]) == straight(data, "epochs")


def test_a_second_fit_starts_again() -> None:
    data = DATA["bilevel"]()
    assert fit(data, **RUNS["epochs"]) == fit(data, **RUNS["epochs"]) == straight("bilevel", "epochs")


def test_epochs_differ() -> None:
    for data in IN_PROCESS:
        prints = [batch for _, _, batch in straight(data, "epochs")]
        assert len(prints) == EPOCHS * LENGTH
        assert len(set(prints)) == len(prints)
