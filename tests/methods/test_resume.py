"""A fit that was stopped, or killed, and resumed ends with the bits of one that was not."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_nas.data import Augment, BilevelDataModule, DigitsDataModule
from lightning_nas.derived import DerivedTraining
from lightning_nas.methods import DARTS, AdamTheta

EPOCHS, PER_EPOCH = 3, 9
CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"


def make(kind: str) -> tuple[L.LightningModule, L.LightningDataModule]:
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(augment=Augment(crop=1, cutout=2))
    if kind == "search":
        search = DARTS("nasbench201", channels=4, cells=1, in_channels=1, theta=AdamTheta(lr=0.1))
        return search, BilevelDataModule(data)
    return DerivedTraining(CELL, channels=4, cells=2, in_channels=1, drop_path=0.3, auxiliary_weight=0.4), data


def fit(
    kind: str, ckpt_path: str | None = None, callbacks: tuple[L.Callback, ...] = (), **limits: Any
) -> tuple[Any, L.Trainer]:
    module, data = make(kind)
    trainer = L.Trainer(
        **{"max_epochs": EPOCHS} | limits,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, trainer


def fingerprint(module: Any, trainer: L.Trainer) -> str:
    """A hash of weights, architecture, both optimisers, the rate, and the genotype."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            for key in sorted(state):
                value = state[key]
                digest.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
        digest.update(repr([group["lr"] for group in optimizer.param_groups]).encode())
    if hasattr(module, "space"):
        digest.update(module.space.format(module.genotype()).encode())
    return digest.hexdigest()


def saver(folder: Path, **cadence: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **cadence)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the resumed fits save nothing themselves
@pytest.mark.parametrize("kind", ["search", "derived"])
@pytest.mark.parametrize(
    ("cadence", "limits"),
    [
        ({"every_n_train_steps": 5}, {}),
        ({"every_n_epochs": 1}, {}),
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, {}),
        ({"monitor": "val/acc", "mode": "max"}, {"limit_val_batches": 1}),
        ({"every_n_train_steps": 7}, {"max_epochs": None, "max_steps": 25}),
    ],
    ids=["within an epoch", "after validation", "at the epoch's end", "best by validation", "by steps"],
)
def test_resumed_fits_end_with_the_same_bits(
    kind: str, cadence: dict[str, Any], limits: dict[str, Any], tmp_path: Path
) -> None:
    module, trainer = fit(kind, callbacks=(saver(tmp_path, **cadence),), **limits)
    whole = fingerprint(module, trainer)
    paths = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.rsplit("=", 1)[1]))
    unfinished = [path for path in paths if int(path.stem.rsplit("=", 1)[1]) < trainer.global_step]
    assert unfinished
    for path in (unfinished[0], unfinished[-1]):
        assert fingerprint(*fit(kind, ckpt_path=str(path), **limits)) == whole, path.name


class Kill(L.Callback):
    """Ends the process as a power cut would, with no chance to clean up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("kind", "step"), [("search", 14), ("derived", 30)])
def test_a_killed_fit_resumes_to_the_same_bits(kind: str, step: int, tmp_path: Path) -> None:
    """The kill comes in the middle of an epoch, two steps after the last checkpoint."""
    saved = step - 2
    for phase in ("killed", "resumed", "whole"):
        command = [sys.executable, __file__, phase, kind, str(step), str(saved), str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment())
        if phase == "killed":
            assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
        else:
            assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "resumed").read_text() == (tmp_path / "run" / "whole").read_text()


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def main(phase: str, kind: str, step: int, saved: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    if phase == "killed":
        fit(kind, callbacks=(saver(folder, every_n_train_steps=saved), Kill(step)))
    path = str(next(folder.glob("*.ckpt"))) if phase == "resumed" else None
    (folder / phase).write_text(fingerprint(*fit(kind, ckpt_path=path)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
