"""Real training as an oracle: one Trainer for each trial, resumable."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork, DerivedTraining
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.oracles.batches import needed, seeded
from lightning_nas.oracles.checkpoints import read_checkpoint, settings_digest
from lightning_nas.oracles.zero_cost import network_seed
from lightning_nas.query.trial import Oracle, Result, Trial
from lightning_nas.quiet import QUIET_TRAINER, quiet
from lightning_nas.spaces import Space, get_space

__all__ = ["TrainingOracle"]


class TrainingOracle(Oracle):
    """Trains the network of each trial by a Trainer of its own and says its validation accuracy after the last epoch.

    A trial that continues another with the same genotype goes on from its checkpoint, optimiser and schedule included;
    with another genotype it takes over the weights whose shapes agree, and begins a training of the epochs that are
    left. A training that was killed goes on from its last whole epoch. The seed of a training belongs to its genotype,
    so that all its rungs, and all processes, agree. The name of a checkpoint has a digest of all settings that a
    training depends on, so that searches with others, in the same folder, neither go on from it nor write over it.

    Args:
        space: Name of a search space, or a space.
        data: Data module; its batches are ``(x, y)``. Each trial gets a copy.
        epochs: Epochs of full training.
        folder: Where checkpoints are kept; on a cluster one that all machines see.
        channels: Channels of the networks' first stage; ``None`` for the published number.
        cells: Their number of cells, or of cells a stage; ``None`` for the published number.
        training: Arguments of `DerivedTraining`; without any, no drop-path and no auxiliary head.
        build: Or a function from a genotype to a LightningModule of your own.
        schedule: ``"full"`` for one learning-rate schedule over `epochs`, of which a smaller budget sees the beginning;
            ``"rung"`` for one that ends with each budget; a trial that continues another takes over its weights, and
            the schedule begins again for the epochs that are left.
        monitor: The metric that is the score.
        scale: What it is multiplied with; -1 for a loss.
        test: Metric of a test that follows each training, for reports alone; ``None`` for no test.
        threads: Threads of torch in a training; the same number gives the same result to the bit.
        seed: Seed of all trainings.
        trainer: Further arguments of the Trainers; each trial gets a copy of the callbacks.

    Raises:
        ValueError: If `epochs` is not positive or the schedule unknown.

    Example:
        >>> import random, tempfile
        >>> from lightning_nas.data import DigitsDataModule
        >>> few = {"limit_train_batches": 2, "limit_val_batches": 1}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     oracle = TrainingOracle("nasbench201", DigitsDataModule(), 1, folder, channels=4, cells=1, trainer=few)
        ...     result = oracle(Trial(0, oracle.space.sample(random.Random(0))))
        >>> result.source, result.epochs
        ('training', 1.0)
    """

    def __init__(
        self,
        space: str | Space,
        data: L.LightningDataModule | None = None,
        epochs: int = 20,
        folder: str | Path = "runs/query/trainings",
        channels: int | None = None,
        cells: int | None = None,
        training: Mapping[str, Any] | None = None,
        build: Callable[[Genotype], L.LightningModule] | None = None,
        schedule: Literal["full", "rung"] = "full",
        monitor: str = "val/acc",
        scale: float = 100.0,
        test: str | None = None,
        threads: int = 1,
        seed: int = 0,
        trainer: Mapping[str, Any] | None = None,
    ) -> None:
        if epochs < 1 or threads < 1 or schedule not in ("full", "rung"):
            raise ValueError(
                f"epochs={epochs}, threads={threads}, schedule={schedule!r}: give at least 1, 'full' or 'rung'"
            )
        self.space, self.data, self.epochs, self.folder = get_space(space), data, epochs, Path(folder)
        self.channels, self.cells, self.build = channels, cells, build
        self.training = {"auxiliary_weight": 0.0, "drop_path": 0.0} if training is None else dict(training)
        self.schedule, self.monitor, self.scale, self.test = schedule, monitor, scale, test
        self.threads, self.seed, self.options = threads, seed, dict(trainer or {})
        self._digest: tuple[L.LightningDataModule | None, str] | None = None

    def __call__(self, trial: Trial) -> Result:
        """Train and validate; the cost is the time it takes."""
        start = time.perf_counter()
        epochs = self.epochs if trial.budget is None else max(round(trial.budget), 1)
        if self.schedule == "full" and epochs > self.epochs:
            raise ValueError(
                f"a budget of {epochs} epochs is more than epochs={self.epochs} of full training; give the oracle as"
                " many, or schedule='rung'"
            )
        text = self.space.format(trial.genotype)
        identity: dict[str, Any] = {"genotype": text, "seed": self.seed, "full": self.epochs}
        identity["asked"] = [epochs, trial.continues]
        seed, saved = network_seed(self.seed, text), self._saved(trial)
        with quiet(), _threads(self.threads), seeded(seed):
            data = copy.deepcopy(needed(self.data))
            module = self._module(trial.genotype, data)
            resumed, inherits = self._resumed(trial, identity, module, saved)
            if inherits:
                epochs = max(epochs - round(trial.trained), 1)
            trainer = self._trainer(trial, epochs, identity | {"inherits": inherits})
            trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
            judge = L.Trainer(**QUIET_TRAINER | self._options())
            with seeded(seed):  # for operations that draw
                found = judge.validate(module, data, verbose=False)[0]
                tested = judge.test(module, data, verbose=False)[0] if self.test else {}
            figures = {"parameters": float(count_parameters(module)), **_operations(module, data)}
        if self.monitor not in found or (self.test and self.test not in tested):
            names = f"monitor={self.monitor!r}, test={self.test!r}"
            raise ValueError(f"{names}: the module logs only {sorted(found)} in validation, {sorted(tested)} in test")
        seconds = time.perf_counter() - start
        score = self.scale * found[self.monitor]
        spent = epochs if inherits else epochs - trial.trained
        test = self.scale * tested[self.test] if self.test else None
        return Result(trial, score, seconds, spent, "training", test, figures)

    def _module(self, genotype: Genotype, data: L.LightningDataModule) -> L.LightningModule:
        if self.build is not None:
            return self.build(genotype)
        sizes = {name: getattr(data, name) for name in ("num_classes", "in_channels") if hasattr(data, name)}
        auxiliary = self.training.get("auxiliary_weight", 0.4) > 0
        network = DerivedNetwork(
            genotype, space=self.space, channels=self.channels, cells=self.cells, auxiliary=auxiliary, **sizes
        )
        return DerivedTraining(network=network, **sizes | self.training)

    def _path(self, number: int) -> Path:
        """The checkpoint of a trial under these settings, described once: a set up data module knows more of itself."""
        if self._digest is None or self._digest[0] is not self.data:
            own = {"space": self.space.name, "seed": self.seed, "epochs": self.epochs, "schedule": self.schedule}
            own |= {"channels": self.channels, "cells": self.cells, "build": self.build, "training": self.training}
            self._digest = self.data, settings_digest(own | {"data": self.data, "trainer": self.options})
        return self.folder / f"trial-{number:06d}-{self._digest[1]}.ckpt"

    def _saved(self, trial: Trial) -> dict[int, dict[str, Any]]:
        """What there is of a trial itself and of the one that it continues."""
        numbers = [number for number in (trial.number, trial.continues) if number is not None]
        return {number: state for number in numbers if (state := read_checkpoint(self._path(number))) is not None}

    def _resumed(
        self, trial: Trial, identity: dict[str, Any], module: L.LightningModule, saved: Mapping[int, dict[str, Any]]
    ) -> tuple[Path | None, bool]:
        """The checkpoint to go on from; of a relative the weights are taken at once, and whether it is one."""
        for number, state in saved.items():
            mark: dict[str, Any] = state.get("trial", {})
            own = number == trial.number
            loose: dict[str, Any] = {"inherits": False} if own else {"asked": None}
            if (own or self.schedule == "full") and mark | loose == identity | {"inherits": False} | loose:
                return self._path(number), own and mark["inherits"]
            if not own:
                new = module.state_dict()
                fit = {k: w for k, w in state["state_dict"].items() if k in new and new[k].shape == w.shape}
                module.load_state_dict(new | fit)
                return None, True
        if trial.continues is not None:
            raise ValueError(
                f"trial {trial.number} continues trial {trial.continues}, and {self.folder} has no readable"
                f" {self._path(trial.continues).name}; keep the folder of a search with its history, and its settings"
            )
        return None, False

    def _options(self) -> dict[str, Any]:
        return self.options | {"callbacks": copy.deepcopy(list(self.options.get("callbacks", ())))}

    def _trainer(self, trial: Trial, epochs: int, identity: Mapping[str, Any]) -> L.Trainer:
        keep = ModelCheckpoint(
            self.folder,
            self._path(trial.number).stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        own: dict[str, Any] = QUIET_TRAINER | {"limit_val_batches": 0, "num_sanity_val_steps": 0}
        ends = identity["inherits"] or self.schedule == "rung"
        own |= self._options() | {"max_epochs": epochs if ends else self.epochs, "enable_checkpointing": True}
        own["callbacks"] = [_Rung(epochs, identity), keep, *own.get("callbacks", ())]
        return L.Trainer(**own | {"limit_val_batches": 0})


class _Rung(Callback):
    """Ends a fit after some epochs, and writes into its checkpoints whose they are."""

    def __init__(self, epochs: int, identity: Mapping[str, Any]) -> None:
        self.epochs, self.identity = epochs, dict(identity)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further than a checkpoint that has all epochs."""
        trainer.should_stop = trainer.current_epoch >= self.epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop, if it is time."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the identity."""
        checkpoint["trial"] = self.identity


def _operations(module: L.LightningModule, data: L.LightningDataModule) -> dict[str, float]:
    """Two for each multiply-add of a derived network, where the data module says how large its pictures are."""
    side, channels = getattr(data, "image_size", None), getattr(data, "in_channels", None)
    if side is None or channels is None or not isinstance(module, DerivedTraining):
        return {}
    return {"flops": 2.0 * count_macs(module, (int(channels), int(side), int(side)))}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
