"""Epochs in which the architecture parameters rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import ResumablePairs
from toys import one_line, quiet_trainer

from lightning_nas.callbacks import ArchitectureWarmup
from lightning_nas.methods import DifferentiableSearch


class Moves(L.Callback):
    """Whether theta moved in each step."""

    def __init__(self) -> None:
        self.moved: list[bool] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.before = [theta.detach().clone() for theta in pl_module.relaxation.theta.values()]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        pairs = zip(self.before, pl_module.relaxation.theta.values(), strict=True)
        self.moved.append(any(not torch.equal(before, now) for before, now in pairs))


def fit(*callbacks: L.Callback, ckpt_path: Path | None = None, **more: Any) -> list[bool]:
    moves = Moves()
    search = DifferentiableSearch("nasbench201", channels=4, cells=1)
    trainer = quiet_trainer(max_epochs=4, limit_val_batches=0, callbacks=[*callbacks, moves], **more)
    trainer.fit(search, ResumablePairs(2), ckpt_path=ckpt_path)
    return moves.moved


@pytest.mark.parametrize(
    ("warmup", "epochs"),
    [
        (ArchitectureWarmup(0), [True, True, True, True]),
        (ArchitectureWarmup(2), [False, False, True, True]),
        (ArchitectureWarmup(1, stages=(0, 2)), [False, True, False, True]),
    ],
)
def test_theta_rests_in_the_first_epochs_of_each_stage(warmup: ArchitectureWarmup, epochs: list[bool]) -> None:
    assert fit(warmup) == [moves for moves in epochs for _ in range(2)]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resume_in_the_middle_of_the_warmup_goes_on_resting(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    fit(ArchitectureWarmup(2), saved, enable_checkpointing=True)
    assert fit(ArchitectureWarmup(2), ckpt_path=tmp_path / "step=3.ckpt") == [False, True, True, True, True]


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError) as error:
        ArchitectureWarmup(-1)
    one_line(error.value, "epochs=-1", "negative")
