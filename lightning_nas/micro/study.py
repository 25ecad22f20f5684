"""Search methods on a micro-benchmark: every method, several seeds, everything that their claims are about."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import track

from lightning_nas.callbacks import GenotypeLogger
from lightning_nas.callbacks.validation import logits_of
from lightning_nas.callbacks.watching import Watched, measure_sharpness
from lightning_nas.data import BilevelDataModule
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.micro.contestants import CONTESTANTS, Schedule
from lightning_nas.micro.report import report_study
from lightning_nas.micro.runs import append, read
from lightning_nas.micro.setting import MicroSetting
from lightning_nas.quiet import QUIET_TRAINER, quiet
from lightning_nas.spaces import SmallSpace

__all__ = ["Recorder", "run_contestant", "run_study"]


class Recorder(Callback):
    """Keeps, for each epoch, the genotype, the mean weights, and every other epoch the dominant eigenvalue.

    Args:
        every: Epochs between two eigenvalues.
    """

    def __init__(self, every: int = 2) -> None:
        self.every = every
        self.epochs: list[dict[str, Any]] = []
        self._batch: Any = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch: the eigenvalue is that of the last one."""
        self._batch = batch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the epoch."""
        search: Watched = pl_module  # type: ignore[assignment]
        record: dict[str, Any] = {"epoch": trainer.current_epoch, "genotype": search.space.format(search.genotype())}
        record["mean"] = {group: rows.tolist() for group, rows in search.relaxation.mean().items()}
        if trainer.current_epoch % self.every == 0 and search.relaxation.theta:
            record["lambda_max"] = measure_sharpness(search, self._batch, expected=True).value
        self.epochs.append(record)


def run_contestant(name: str, setting: MicroSetting, data_path: str, seed: int, epochs: int) -> dict[str, Any]:
    """Run one method with one seed.

    Returns:
        Plain values: the genotype as text, the history by epoch, accuracies of the supernet before and after it was
        discretised, those of every cell in it, selection scores, seconds.
    """
    contestant = CONTESTANTS[name]
    L.seed_everything(seed, verbose=False)
    data = BilevelDataModule(setting.data(data_path, seed), val_fraction=0.5, seed=seed)
    batches = len(data.train_dataloader())
    schedule = Schedule(epochs, batches)
    common = {"space": setting.network_space, "channels": setting.channels, "cells": setting.cells, "seed": seed}
    common |= {"num_classes": data.num_classes, "in_channels": data.in_channels}
    search = contestant.make(common, schedule)
    recorder = Recorder()
    callbacks = [*contestant.callbacks(schedule), recorder, GenotypeLogger(terminal=False, every_n_epochs=10**6)]
    whole = contestant.epochs(schedule, setting)
    trainer = L.Trainer(
        max_epochs=whole, check_val_every_n_epoch=whole, num_sanity_val_steps=0, callbacks=callbacks, **QUIET_TRAINER
    )
    start = time.perf_counter()
    trainer.fit(search, data)
    seconds = time.perf_counter() - start
    scores = {type(c).__name__: h for c in trainer.callbacks if (h := getattr(c, "history", None))}  # type: ignore[attr-defined]
    return {
        "method": name,
        "seed": seed,
        "genotype": search.space.format(search.genotype()),
        "seconds": round(seconds, 1),
        "epochs": recorder.epochs,
        "scores": scores,
    } | _judged(search, data)


@torch.no_grad()
def _judged(search: DifferentiableSearch, data: BilevelDataModule) -> dict[str, Any]:
    """Validation accuracies of the supernet: under the mean weights, at its genotype, and at every cell.

    All with the statistics of each batch, which a supernet always uses.
    """
    search.eval()
    space: SmallSpace = search.space  # type: ignore[assignment]
    cells = space.distinct()
    vertices = [space.vertex(cell) for cell in cells]
    mixed, right, count = 0.0, torch.zeros(len(cells), dtype=torch.float64), 0
    for x, y in data.val_dataloader():
        mixed += float((search(x).argmax(-1) == y).sum())
        right += (logits_of(search.supernet, x, vertices).argmax(-1) == y).sum(-1)
        count += len(y)
    found = dict(zip(map(space.format, cells), (right / count).tolist(), strict=True))
    own = space.format(space.canonical(search.genotype()))
    return {"supernet_acc": mixed / count, "vertex_acc": found[own], "cells": found}


def run_study(
    data: str,
    out: str = "runs/study",
    space: str = "small_sep",
    epochs: int = 20,
    seeds: int = 3,
    methods: list[str] | None = None,
    table: str | None = None,
) -> None:
    """Run every method with several seeds on a micro-benchmark and write tables and pictures; it resumes.

    Args:
        data: Pictures, an .npz file with x_train, y_train, x_test, y_test: those the table was made with.
        out: Folder for the results.
        space: Name of the micro-benchmark.
        epochs: Epochs of a search, before any selection that follows it.
        seeds: Runs of each method.
        methods: Names of methods; None for all.
        table: File of a table; None for the one that ships with the package.
    """
    unknown = set(methods or ()) - set(CONTESTANTS)
    if unknown:
        raise ValueError(f"unknown methods {sorted(unknown)}; known are {', '.join(CONTESTANTS)}")
    setting = MicroSetting(space)
    own, folder = asdict(setting) | {"search_epochs": epochs}, Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "runs.jsonl"
    done = {(record["method"], record["seed"]) for record in read(log, own)}
    todo = [(name, seed) for seed in range(seeds) for name in methods or CONTESTANTS if (name, seed) not in done]
    with quiet():
        for name, seed in track(todo, description=f"{len(todo)} searches in {space}"):
            append(log, run_contestant(name, setting, data, seed, epochs) | {"setting": own})
    report_study(log, own, table or space, folder)
