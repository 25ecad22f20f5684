"""Small implementations of the protocols, which the tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_nas.arch import Decisions
from lightning_nas.hypergradients import FiniteDifference, Unrolled, virtual_weights
from lightning_nas.relaxations import (
    BinaryGates,
    Controller,
    Dirichlet,
    Gumbel,
    Proximal,
    Relaxation,
    ScorePath,
    Sigmoid,
    Simplex,
    Softmax,
    UniformPath,
)

__all__ = [
    "RELAXATIONS",
    "AtBatch",
    "FiniteDifference",
    "HardGumbel",
    "Pairs",
    "UniformPath",
    "Unrolled",
    "one_line",
    "quiet_trainer",
    "virtual_weights",
]


RELAXATIONS: dict[str, Callable[..., Relaxation]] = {
    "Softmax": Softmax,
    "Sigmoid": Sigmoid,
    "Gumbel, soft": partial(Gumbel, tau=0.7),
    "Gumbel, hard": partial(Gumbel, tau=0.7, hard=True),
    "ScorePath": ScorePath,
    "Dirichlet": Dirichlet,
    "Proximal": Proximal,
    "BinaryGates, one path": partial(BinaryGates, paths=1),
    "BinaryGates, two paths": partial(BinaryGates, paths=2),
    "BinaryGates, all paths": partial(BinaryGates, paths=None),
    "UniformPath": UniformPath,
    "UniformPath, inputs": partial(UniformPath, inputs=True, reject=True),
    "Simplex": Simplex,
    "Controller": partial(Controller, size=8),
}
"""Every relaxation in all its forms, for the suites that hold all of them to something."""


class HardGumbel(Gumbel):
    """One sampled path; the gradient is that of the soft sample (straight through)."""

    def __init__(self, decisions: Decisions, groups: Sequence[str] | None = None, **settings: Any) -> None:
        super().__init__(decisions, groups, **{"hard": True} | settings)


class Pairs(L.LightningDataModule):
    """A few fixed pairs of random batches, and one batch for validation."""

    def __init__(
        self, count: int = 4, shape: tuple[int, ...] = (3, 8, 8), batch_size: int = 8, classes: int = 10
    ) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)

        def batch() -> tuple[Tensor, Tensor]:
            x = torch.randn(batch_size, *shape, generator=draw)
            return x, torch.randint(classes, (batch_size,), generator=draw)

        self.pairs = [{"w": batch(), "theta": batch()} for _ in range(count)]
        self.held_out = [batch()]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pairs, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.held_out, batch_size=None)  # type: ignore[arg-type]

    test_dataloader = val_dataloader


def quiet_trainer(**settings: Any) -> L.Trainer:
    """A Trainer on the CPU that prints and keeps nothing unless asked to."""
    quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return L.Trainer(**quiet | settings)


class AtBatch(L.Callback):
    """Calls a function once, with the search and the batch, before the steps of one batch of a fit."""

    def __init__(self, number: int, function: Callable[[Any, Any], None]) -> None:
        self.number, self.function, self.called = number, function, False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.number:
            self.function(pl_module, batch)
            self.called = True


def one_line(error: BaseException, *words: str) -> None:
    """Check that a message is one line and names what was given, what is allowed and what to do."""
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error), str(error)
