"""What every oracle promises. A new one is covered by a line in `ORACLES`."""

from __future__ import annotations

import inspect
import math
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas import oracles
from lightning_nas.arch import Genotype
from lightning_nas.benchmarks import NASBench201
from lightning_nas.benchmarks.base import Benchmark, Record
from lightning_nas.flops import count_parameters
from lightning_nas.oracles import (
    FunctionOracle,
    OwnTable,
    RoutedOracle,
    SupernetOracle,
    TableOracle,
    TrainingOracle,
    ZeroCostOracle,
)
from lightning_nas.query import Evaluator, Oracle, SuccessiveHalving, Trial
from lightning_nas.spaces import NB201_OPS, get_space
from lightning_nas.supernet import build_supernet

SPACE = get_space("nasbench201")
GENOTYPES = [SPACE.sample(random.Random(seed)) for seed in range(4)]
SMALL: dict[str, Any] = {"channels": 4, "cells": 1}


class Drawing(L.LightningDataModule):
    """Pictures in plain loaders, which draw from torch's global generator, with noise from NumPy and Python."""

    num_classes, in_channels = 4, 3

    def _loader(self, shuffle: bool) -> DataLoader[Any]:
        draw = torch.Generator().manual_seed(3)
        x, y = torch.randn(16, 3, 8, 8, generator=draw), torch.arange(16) % 4
        return DataLoader(TensorDataset(x, y), 8, shuffle=shuffle, collate_fn=noisy)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(False)


def noisy(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    x, y = (torch.stack(part) for part in zip(*pairs, strict=True))
    return x + 0.1 * np.random.randn() + 0.1 * random.random(), y


def convolutions(genotype: Genotype, budget: float | None = None) -> float:
    return SPACE.format(genotype).count("conv") + (budget or 0.0)


def weights_and_noise(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the network, of its start, of the batch and of each global generator."""
    first = float(next(network.parameters()).detach().sum() + x.sum()) + int(y[0])
    return count_parameters(network) + first + float(torch.rand(())) + np.random.rand() + random.random()


class Linear(Benchmark):
    """A second takes an epoch, five runs differ, accuracy grows with the epochs."""

    def __init__(self) -> None:
        self.name, self.space, self.datasets, self.budgets = "linear", SPACE, ("toy",), (12,)

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        count = 12 if epochs is None else epochs
        return Record(convolutions(genotype, count) + (0.0 if run is None else run / 10), None, 2.0 * count, count)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        return 5

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        return True

    def genotypes(self) -> Any:
        return iter(GENOTYPES)

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        return 99.0, 99.0


def function(folder: Path) -> Oracle:
    return FunctionOracle(SPACE, convolutions, budgets=True)


def own_table(folder: Path) -> Oracle:
    return TableOracle(OwnTable(SPACE, {g: Record(90.0 + k, 1.0, 5.0, 12.0) for k, g in enumerate(GENOTYPES)}))


def table(folder: Path) -> Oracle:
    return TableOracle(Linear(), run="random", seed=3)


def nasbench201(folder: Path) -> Oracle:
    """All cells, an epoch takes 2 seconds, with the curve of the training of 12 epochs."""
    ops = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), axis=1).astype(np.uint8)
    good = (np.arange(5**6) % 71).astype(np.float32)
    columns: dict[str, Any] = {"ops": ops, "op_names": np.array(NB201_OPS)}
    columns |= {f"{d}_{part}_200": 25 + good for d in ("c10", "c100", "in16") for part in ("val", "test")}
    columns |= {"c10_val_12": 12 + good, "c10_val_curve_12": good[:, None] + np.arange(1, 13)}
    columns |= {f"train_time_s_c10val_{epochs}": np.full(5**6, 2.0 * epochs) for epochs in (12, 200)}
    folder.mkdir(exist_ok=True)
    np.savez(folder / "nb201.npz", **columns)
    return TableOracle(NASBench201(folder, training=12))


def supernet(folder: Path) -> Oracle:
    torch.manual_seed(0)
    return SupernetOracle(SPACE, Drawing(), build_supernet(SPACE, 4, 1, num_classes=4))


def zero_cost(folder: Path) -> Oracle:
    return ZeroCostOracle(SPACE, weights_and_noise, Drawing(), **SMALL)


def training(folder: Path) -> Oracle:
    settings: dict[str, Any] = {"monitor": "val/loss", "scale": -1.0} | SMALL
    return TrainingOracle(SPACE, Drawing(), 4, folder / "trainings", **settings)


def rungs(folder: Path) -> Oracle:
    settings: dict[str, Any] = {"monitor": "val/loss", "scale": -1.0, "schedule": "rung"} | SMALL
    return TrainingOracle(SPACE, Drawing(), 4, folder / "rungs", **settings)


def routed(folder: Path) -> Oracle:
    return RoutedOracle([zero_cost(folder), function(folder)], up_to=[0.5])


ORACLES: dict[str, Callable[[Path], Oracle]] = {
    make.__name__: make
    for make in (function, own_table, table, nasbench201, supernet, zero_cost, training, rungs, routed)
}
every = pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
TRAINED = ("function", "table", "nasbench201", "training", "rungs")
"""Those that a budget makes a difference to."""


def generators() -> list[Any]:
    """The state of the process that an oracle must leave as it is."""
    name, keys, *rest = np.random.get_state(legacy=True)
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    return [random.getstate(), name, np.asarray(keys).tolist(), rest, torch.get_rng_state().tolist(), threads, grad]


def test_no_oracle_is_forgotten(tmp_path: Path) -> None:
    exported = {value for name in oracles.__all__ if inspect.isclass(value := getattr(oracles, name))}
    ours = {kind for kind in exported if issubclass(kind, Oracle) and not inspect.isabstract(kind)}
    assert {type(make(tmp_path)) for make in ORACLES.values()} == ours
    assert ours


@every
def test_it_answers_the_trial_in_full_and_leaves_the_process_as_it_was(
    make: Callable[[Path], Oracle], tmp_path: Path
) -> None:
    oracle = make(tmp_path)
    trial = Trial(7, GENOTYPES[0], 2.0, note={"rung": 1})
    before = generators()
    result = oracle(trial)
    assert generators() == before
    assert result.trial is trial
    assert result.ok
    assert math.isfinite(result.score)
    assert result.cost >= 0
    assert result.epochs >= 0
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert pickle.loads(pickle.dumps(result)) == result
    assert type(result).from_plain(result.to_plain(SPACE), SPACE) == result
    assert oracle.space.name == SPACE.name


@every
def test_the_same_trial_has_the_same_score_here_and_elsewhere(make: Callable[[Path], Oracle], tmp_path: Path) -> None:
    """Asked again, asked after others, and asked of a copy that came through a pickle, whatever the generators."""
    oracle = make(tmp_path)
    copied = pickle.loads(pickle.dumps(oracle))
    trial = Trial(0, GENOTYPES[1], 1.0)
    score = oracle(trial).score
    others = [oracle(Trial(k, GENOTYPES[k], 1.0)).score for k in (2, 3)]
    assert len({score, *others}) > 1
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    assert oracle(trial).score == score
    assert copied(trial).score == score
    assert make(tmp_path / "elsewhere")(trial).score == score


@pytest.mark.parametrize("name", TRAINED)
def test_a_continued_trial_counts_what_it_trains_beyond(name: str, tmp_path: Path) -> None:
    oracle = ORACLES[name](tmp_path)
    first = oracle(Trial(0, GENOTYPES[0], 1.0))
    second = oracle(Trial(1, GENOTYPES[0], 3.0, continues=0, trained=1.0))
    whole = oracle(Trial(2, GENOTYPES[0], 3.0))
    assert (first.epochs, second.epochs, whole.epochs) == (1.0, 2.0, 3.0)
    assert second.cost >= 0
    if name in ("table", "nasbench201"):
        assert (first.cost, second.cost, whole.cost) == (2.0, 4.0, 6.0)


def test_a_training_of_its_own_is_counted_in_full(tmp_path: Path) -> None:
    """In NAS-Bench-201 that of 200 epochs does not go on from that of 12."""
    oracle = nasbench201(tmp_path)
    second = oracle(Trial(1, GENOTYPES[0], 200.0, continues=0, trained=12.0))
    whole = oracle(Trial(2, GENOTYPES[0]))
    assert (second.cost, second.epochs) == (whole.cost, whole.epochs) == (400.0, 200.0)


@pytest.mark.parametrize("name", TRAINED)
def test_a_search_fills_in_what_was_trained(name: str, tmp_path: Path) -> None:
    """A bracket of 4, 2 and 1 trials at 1, 2 and 4 epochs takes 4 + 2 + 2 epochs."""
    searcher = SuccessiveHalving(SPACE, n=4, min_budget=1, max_budget=4, eta=2)
    evaluator = Evaluator(ORACLES[name](tmp_path), in_flight=2)
    results = [result for _ in range(7) if (result := evaluator.step(searcher)) is not None]
    assert [result.error for result in results] == [None] * 7
    assert [result.epochs for result in results] == [1.0] * 6 + [2.0]
    assert [result.trial.budget for result in results] == [1.0] * 4 + [2.0] * 2 + [4.0]
