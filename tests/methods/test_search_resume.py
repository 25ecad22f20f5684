"""A search that was stopped, wherever, and resumed goes on as if nothing had happened: each loss, rate and bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from toys import quiet_trainer

from lightning_nas.data import Augment, BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS, AdamTheta, SGDCosine

PER_EPOCH = 3  # pairs of batches of 200 from 1,257 pictures
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


class Noting(DARTS):
    """Keeps each loss with the rate at which it was met and the number of steps before its batch."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.met: list[tuple[int, str, float, float]] = []
        self.before = 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.before = self.global_step
        super().training_step(batch, batch_idx)

    def _report(self, name: str, loss: Tensor) -> None:
        super()._report(name, loss)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.met.append((self.before, name, float(loss.detach()), rate))


class Stop(Callback):
    """Ends a fit after a step, wherever in an epoch that is."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        trainer.should_stop = trainer.global_step >= self.step


def fit(
    ckpt_path: Path | None = None, callbacks: Sequence[Callback] = (), order: Any = "theta_first", **limits: Any
) -> tuple[Noting, L.Trainer]:
    """A fit; one that resumes starts from other weights and generators, so that it owes nothing to the seed."""
    L.seed_everything(0 if ckpt_path is None else 99, verbose=False)
    recipes = {"w": SGDCosine(lr=0.1, lr_min=0.01), "theta": AdamTheta(lr=0.1)}
    search = Noting(space="nasbench201", channels=4, cells=1, in_channels=1, order=order, **recipes)
    data = BilevelDataModule(DigitsDataModule(batch_size=200, augment=Augment(crop=1, cutout=2)))
    options = {"max_epochs": 3, "callbacks": list(callbacks), "enable_checkpointing": bool(callbacks)} | limits
    trainer = quiet_trainer(**options)
    trainer.fit(search, data, ckpt_path=ckpt_path, weights_only=True)
    return search, trainer


def everything(search: Noting, trainer: L.Trainer) -> dict[str, Any]:
    """All that a fit ends with, by name."""
    found: dict[str, Any] = {f"module {name}": value for name, value in search.state_dict().items()}
    for number, optimizer in enumerate(trainer.optimizers):
        content = optimizer.state_dict()
        for index, state in content["state"].items():
            found |= {f"optimiser {number} {index} {name}": value for name, value in state.items()}
        found[f"optimiser {number} groups"] = content["param_groups"]
    schedule: Any = trainer.lr_scheduler_configs[0].scheduler
    found |= {"schedule": (schedule.last_epoch, schedule.T_max, schedule.get_last_lr())}
    found |= {"genotype": search.space.format(search.genotype()), "step": trainer.global_step}
    found |= {"epoch": trainer.current_epoch}
    return found


def same(resumed: tuple[Noting, L.Trainer], whole: tuple[Noting, L.Trainer], from_step: int) -> None:
    """Check every loss and rate on the way, and every bit at the end."""
    assert resumed[0].met == [entry for entry in whole[0].met if entry[0] >= from_step]
    left, right = everything(*resumed), everything(*whole)
    assert left.keys() == right.keys()
    assert sum(name.startswith("optimiser 0") for name in left) > 10  # momentum of each weight
    for name, value in right.items():
        equal = torch.equal(left[name], value) if isinstance(value, Tensor) else left[name] == value
        assert equal, f"{name} differs after a resume at step {from_step}"


def saver(folder: Path, **cadence: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **cadence)


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step=")) for path in folder.glob("step=*.ckpt"))


# --- checkpoints of a fit that went on


@pytest.mark.parametrize("order", ["theta_first", "w_first"])
def test_from_every_step(order: Any, tmp_path: Path) -> None:
    whole = fit(callbacks=[saver(tmp_path, every_n_train_steps=1)], order=order)
    assert steps_of(tmp_path) == list(range(1, 3 * PER_EPOCH + 1))
    start = [value for name, value in fit(order=order, max_epochs=0)[0].state_dict().items() if "theta" in name]
    assert not torch.equal(start[0], whole[0].relaxation.theta["cell"])  # or equal bits would say nothing
    for step in range(1, 3 * PER_EPOCH):
        same(fit(tmp_path / f"step={step}.ckpt", order=order), whole, step)


@pytest.mark.parametrize(
    ("cadence", "limits", "steps"),
    [
        ({"every_n_epochs": 1}, {}, [3, 6]),
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, {}, [3, 6]),
        ({"monitor": "val/acc", "mode": "max"}, {}, [3, 6]),
        ({"monitor": "val/acc", "mode": "max"}, {"val_check_interval": 2}, [2, 5, 8]),
        (
            {"monitor": "val/acc", "mode": "max", "save_on_train_epoch_end": False},
            {"val_check_interval": 1},
            [1, 2, 3, 4, 5, 6, 7, 8],
        ),
        ({"every_n_train_steps": 2}, {"max_epochs": -1, "max_steps": 8}, [2, 4, 6]),
        ({"every_n_train_steps": 2}, {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 0}, [2, 4]),
    ],
    ids=str,
)
def test_from_the_checkpoints_that_people_keep(
    cadence: dict[str, Any], limits: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    whole = fit(callbacks=[saver(tmp_path, **cadence)], **limits)
    assert [step for step in steps_of(tmp_path) if step < whole[1].global_step] == steps
    for step in steps:
        same(fit(tmp_path / f"step={step}.ckpt", **limits), whole, step)


# --- fits that were really stopped


@pytest.mark.parametrize(("stop", "saved"), [(5, 4), (4, 4), (8, 8), (3, 2)])
def test_stopped_within_the_fit(stop: int, saved: int, tmp_path: Path) -> None:
    stopped = fit(callbacks=[saver(tmp_path, every_n_train_steps=2), Stop(stop)])
    assert stopped[1].global_step == stop
    assert max(steps_of(tmp_path)) == saved
    same(fit(tmp_path / f"step={saved}.ckpt"), fit(), saved)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resumed_again_and_again(tmp_path: Path) -> None:
    whole, path, met = fit(), None, []
    for step in (2, 4, 7):
        search, trainer = fit(path, callbacks=[saver(tmp_path / str(step), every_n_train_steps=1), Stop(step)])
        assert trainer.global_step == step
        met += search.met
        path = tmp_path / str(step) / f"step={step}.ckpt"
    last = fit(path)
    same(last, whole, 7)
    assert met + last[0].met == whole[0].met


def test_an_ended_fit_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = fit(callbacks=[saver(tmp_path, every_n_epochs=1)])
    again = fit(tmp_path / "step=9.ckpt")
    assert again[0].met == []
    assert all(torch.equal(p, q) for p, q in zip(again[0].parameters(), whole[0].parameters(), strict=True))


# --- killed


SCRIPT = '''
import hashlib, os, signal, sys, warnings
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning_nas.data import Augment, BilevelDataModule, DigitsDataModule
from lightning_nas.derived import DerivedTraining
from lightning_nas.methods import DARTS, AdamTheta

warnings.simplefilter("ignore")
CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"


class Kill(Callback):
    """In a search, this is after the step of the architecture and before that of the weights."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(seed, callbacks, ckpt_path=None):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(batch_size=200, augment=Augment(crop=1, cutout=2))
    if kind == "search":
        module = DARTS("nasbench201", channels=4, cells=1, in_channels=1, theta=AdamTheta(lr=0.1))
        data = BilevelDataModule(data)
    else:
        module = DerivedTraining(CELL, channels=4, cells=2, in_channels=1, drop_path=0.5, auxiliary_weight=0.0)
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, enable_checkpointing=bool(callbacks),
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            for name, value in sorted(state.items()):
                digest.update(name.encode() + torch.as_tensor(value).numpy().tobytes())
    return digest.hexdigest()


phase, kind, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
saved = ModelCheckpoint("saved", every_n_train_steps=4, save_last=True)
if phase == "first":
    fit(0, [saved, Kill()])
else:
    print("resumed", fit(99, [saved], "last"))
    print("whole", fit(0, []))
'''


@pytest.mark.parametrize(("kind", "step", "saved"), [("search", 5, 4), ("derived", 10, 8)])
def test_killed_within_a_step(kind: str, step: int, saved: int, tmp_path: Path) -> None:
    """The second process is told nothing but "last"; epochs end after 3 (search) and 6 (training) steps."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")

    def run(phase: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "script.py", phase, kind, str(step)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    first = run("first")
    assert first.returncode == -signal.SIGKILL, first.stderr[-2000:]
    assert torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)["global_step"] == saved
    second = run("second")
    assert second.returncode == 0, second.stderr[-2000:]
    found = dict(line.split() for line in second.stdout.splitlines() if line.startswith(("resumed ", "whole ")))
    assert found["resumed"] == found["whole"]
