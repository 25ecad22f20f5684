"""Training every cell of a small space from scratch: how the tables of micro-benchmarks are made."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
from rich.progress import track

from lightning_nas.arch import Genotype
from lightning_nas.flops import count_parameters
from lightning_nas.micro.runs import append, read
from lightning_nas.micro.setting import MicroSetting
from lightning_nas.micro.table import write_table
from lightning_nas.quiet import QUIET_TRAINER, quiet

__all__ = ["build_micro", "train_cell"]


def train_cell(setting: MicroSetting, genotype: Genotype, data_path: str, seed: int) -> dict[str, Any]:
    """Train one cell's network once and measure it after its last epoch.

    Args:
        setting: Size, data and schedule.
        genotype: A cell of the setting's space.
        data_path: The ``.npz`` file with the pictures.
        seed: Seed of weights, order and augmentation.

    Returns:
        Plain values: the cell as text, its number in the space, seed, validation and test accuracy (fractions),
        parameters, seconds.
    """
    space = setting.network_space
    L.seed_everything(seed, verbose=False)
    data = setting.data(data_path, seed)
    training = setting.training(genotype, data.num_classes, data.in_channels)
    trainer = L.Trainer(max_epochs=setting.epochs, limit_val_batches=0, num_sanity_val_steps=0, **QUIET_TRAINER)
    start = time.perf_counter()
    trainer.fit(training, data)
    seconds = time.perf_counter() - start
    judge = L.Trainer(**QUIET_TRAINER)
    val = judge.validate(training, data, verbose=False)[0]["val/acc"]
    test = judge.test(training, data, verbose=False)[0]["test/acc"]
    return {
        "cell": space.format(genotype),
        "seed": seed,
        "val": round(val, 5),
        "test": round(test, 5),
        "parameters": count_parameters(training.network),
        "seconds": round(seconds, 2),
    }


def build_micro(
    data: str,
    out: str,
    space: str = "small_sep",
    seeds: int = 3,
    epochs: int | None = None,
    channels: int | None = None,
    cells: int | None = None,
) -> None:
    """Train every cell of a small space with several seeds and write the table; a run that was killed goes on.

    Each training is kept in a file beside the table the moment it ends; what is there is not trained again.

    Args:
        data: Pictures, an .npz file with x_train, y_train, x_test, y_test.
        out: Where to write the table, a .csv file.
        space: Name of the small space.
        seeds: Trainings of each cell.
        epochs: Epochs of a training; None for those of the setting.
        channels: Channels of the first stage; None for those of the setting.
        cells: Cells of a network; None for those of the setting.
    """
    given = {"epochs": epochs, "channels": channels, "cells": cells}
    setting = MicroSetting(space, **{name: value for name, value in given.items() if value is not None})
    if seeds < 1:
        raise ValueError(f"seeds={seeds} must be at least 1")
    network_space, path = setting.network_space, Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".jsonl")
    own = asdict(setting)
    done = {(record["cell"], record["seed"]) for record in read(log, own)}
    # seed by seed, so that a run cut short has all cells with fewer seeds
    todo = [(cell, seed) for seed in range(seeds) for cell in network_space.distinct()]
    todo = [(cell, seed) for cell, seed in todo if (network_space.format(cell), seed) not in done]
    with quiet():
        for cell, seed in track(todo, description=f"training {len(todo)} networks of {space}"):
            append(log, train_cell(setting, cell, data, seed) | {"setting": own})
    write_table(path, setting, read(log, own))
    print(f"{path}\n{log}")
