"""Fits of small models on data in memory, by a Trainer that says nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_nas.quiet import QUIET_TRAINER, quiet

__all__ = ["Learner", "fit_quietly", "seeded_torch"]

T = TypeVar("T", bound="Learner")


class Learner(L.LightningModule):
    """A model and its loss on some rows of data that it holds.

    One training batch is one pass over the data, in mini-batches, so that the Trainer's own work, a millisecond for
    each batch, does not outweigh a small model's. A subclass gives `loss` and `configure_optimizers`; a learning rate
    scheduler moves after each pass.

    Args:
        clip: Largest norm of the gradient; ``None`` for no limit.

    Example:
        >>> class Line(Learner):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.slope = torch.nn.Parameter(torch.zeros(()))
        ...         self.x = torch.arange(4.0)
        ...     def loss(self, rows):
        ...         return (self.slope * self.x[rows] - 3 * self.x[rows]).square().mean()
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD([self.slope], lr=0.1)
        >>> round(fit_quietly(Line(), rows=4, batch=2, passes=50, seed=0).slope.item(), 3)
        3.0
    """

    def __init__(self, clip: float | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.clip = clip

    @abstractmethod
    def loss(self, rows: Tensor) -> Tensor:
        """The scalar loss on the rows with these numbers."""

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """One pass."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        for rows in batch:
            self.one_step(optimizer, rows)
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LRScheduler):
            scheduler.step()

    def one_step(self, optimizer: Optimizer, rows: Tensor) -> None:
        """One step of the optimiser."""
        optimizer.zero_grad()
        self.loss(rows).backward()  # type: ignore[no-untyped-call]
        if self.clip is not None:
            clip_grad_norm_(self.parameters(), self.clip)
        optimizer.step()


def fit_quietly(learner: T, rows: int, batch: int, passes: int, seed: int) -> T:
    """Let a Trainer fit a learner, print nothing, and leave the global generators as they are.

    Args:
        learner: The learner.
        rows: Number of rows of its data.
        batch: Rows of a mini-batch.
        passes: Passes over the data.
        seed: Seed of the order of the rows, and of whatever the learner draws from torch's generator.

    Returns:
        The learner in evaluation mode, without gradients.
    """
    with quiet(), seeded_torch(seed):
        trainer = L.Trainer(max_epochs=1, **QUIET_TRAINER)
        trainer.fit(learner, _Passes(rows, batch, passes, seed))
    return learner.eval().requires_grad_(False)


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """Torch's generator starts at a seed, and is as it was at the end.

    Args:
        seed: The seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class _Passes:
    """For each pass the shuffled numbers of the rows, in mini-batches."""

    def __init__(self, rows: int, batch: int, passes: int, seed: int) -> None:
        self.rows, self.batch, self.passes, self.seed = rows, batch, passes, seed

    def __len__(self) -> int:
        return self.passes

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        rng = torch.Generator().manual_seed(self.seed)
        for _ in range(self.passes):
            yield torch.split(torch.randperm(self.rows, generator=rng), self.batch)
