"""Batches of a data module outside a Trainer, and chance that depends on a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_nas.query.trial import Oracle

__all__ = ["first_batches", "give_data", "needed", "seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch start at a seed, and are as they were at the end.

    Args:
        seed: A number from 0 to 2^32 - 1.

    Example:
        >>> with seeded(3):
        ...     first = random.random()
        >>> with seeded(3):
        ...     print(random.random() == first)
        True
    """
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def first_batches(data: L.LightningDataModule, count: int | None, part: str = "val") -> list[tuple[Tensor, Tensor]]:
    """The first batches of a data module's training or validation data, the same in every process.

    Args:
        data: The data module; its batches are ``(x, y)``.
        count: How many; ``None`` for all.
        part: ``"train"`` or ``"val"``.

    Raises:
        ValueError: If there are none.
    """
    with seeded(0):
        data.prepare_data()
        data.setup("fit")
        loader = data.train_dataloader() if part == "train" else data.val_dataloader()
        found = [(x, y) for x, y in islice(iter(loader), count)]
    if not found:
        raise ValueError(f"{type(data).__name__} has no {part} batches; give it some data to score on")
    return found


def needed(data: L.LightningDataModule | None) -> L.LightningDataModule:
    """The data module of an oracle that works on pictures.

    Raises:
        ValueError: If it has none.
    """
    if data is None:
        raise ValueError("the oracle has no data; pass data=, or in a recipe give data: a data module")
    return data


def give_data(oracle: Oracle, data: L.LightningDataModule) -> None:
    """Let an oracle without data of its own, and those that it routes to, work on a data module."""
    if getattr(oracle, "data", data) is None:
        oracle.data = data  # type: ignore[attr-defined]
    for routed in getattr(oracle, "oracles", ()):
        give_data(routed, data)
