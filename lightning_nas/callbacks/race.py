"""Which of several samples is the best, or the worst, on the validation data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_nas import strategy
from lightning_nas.arch import Sample
from lightning_nas.callbacks.schedule import Search
from lightning_nas.callbacks.validation import evaluation, logits_of, validation_batches

__all__ = ["SURE", "Metric", "decide", "merit"]

Metric = Literal["acc", "loss"]
SURE = 4.0
"""Sum of differences over the root of their sum of squares from which a candidate surely is not the choice."""


def merit(logits: Tensor, y: Tensor, metric: Metric) -> Tensor:
    """What is to be large, for each picture: logits ``(samples, N, classes)``, labels ``(N,)`` -> ``(samples, N)``."""
    if metric == "acc":
        return (logits.argmax(-1) == y).float()
    return -torch.stack([cross_entropy(each.float(), y, reduction="none") for each in logits])


def decide(
    trainer: L.Trainer,
    search: Search,
    samples: Sequence[Sample],
    metric: Metric = "acc",
    worst: bool = False,
    batches: int | None = None,
    race: bool = False,
) -> tuple[int, list[float]]:
    """Compare samples on the validation data of all processes.

    Args:
        trainer: The Trainer.
        search: The search.
        samples: At least one.
        metric: ``"acc"`` or ``"loss"``.
        worst: Whether the worst is asked for, of equals the first; else the best, of equals the last.
        batches: Validation batches; ``None`` for all.
        race: Whether samples that are surely not the choice are dropped after one, two, four, ... batches.

    Returns:
        The number of the choice, and the metric of each sample on what it was evaluated on.
    """
    alive, figures = list(range(len(samples))), [float("nan")] * len(samples)
    with evaluation(trainer, search.supernet):
        unread = validation_batches(trainer, batches)
        tally, size, more = _Tally(len(samples)), 1, True
        while more:
            read = 0
            for read, (x, y) in enumerate(islice(unread, size if race else None), 1):  # noqa: B007
                tally.add(alive, merit(logits_of(search.supernet, x, [samples[k] for k in alive]), y, metric))
            more = race and len(alive) > 1 and strategy.any_process(trainer, read == size)
            sums, squares, count = tally.agreed(search, next(search.supernet.parameters()).device)
            for k in alive:
                figures[k] = (1 if metric == "acc" else -1) * sums[k] / count
            choice = _first_worst(alive, sums) if worst else _last_best(alive, sums)
            if race:
                lead = [abs(sums[choice] - sums[k]) for k in range(len(samples))]
                alive = [k for k in alive if k == choice or lead[k] <= SURE * squares[choice][k] ** 0.5]
                more, size = more and len(alive) > 1, 2 * size
    return choice, figures


def _first_worst(alive: Sequence[int], sums: Sequence[float]) -> int:
    return min(alive, key=lambda k: (sums[k], k))


def _last_best(alive: Sequence[int], sums: Sequence[float]) -> int:
    return max(alive, key=lambda k: (sums[k], k))


class _Tally:
    """Sums of the merits of samples, and of the squares of their differences on the same picture."""

    def __init__(self, samples: int) -> None:
        self.sums, self.squares = torch.zeros(samples), torch.zeros(samples, samples)
        self.count = 0

    def add(self, alive: Sequence[int], merits: Tensor) -> None:
        """Count ``(alive, N)`` merits."""
        self.sums, self.squares = self.sums.to(merits), self.squares.to(merits)
        rows = torch.tensor(alive, device=merits.device)
        self.sums[rows] += merits.sum(-1)
        apart = (merits.unsqueeze(1) - merits.unsqueeze(0)).square().sum(-1)
        self.squares[rows.unsqueeze(1), rows] += apart
        self.count += merits.shape[-1]

    def agreed(self, search: Search, device: torch.device) -> tuple[list[float], list[list[float]], float]:
        """Sums, squares and count, each as a mean over all processes."""
        parts = (self.sums.to(device), self.squares.flatten().to(device), torch.tensor([float(self.count)]).to(device))
        flat = search.agreed(torch.cat(parts)).tolist()
        n = len(self.sums)
        if not flat[-1]:
            raise ValueError("the validation data has no batches; give it some, or raise limit_val_batches")
        return flat[:n], [flat[n + k * n : n + (k + 1) * n] for k in range(n)], flat[-1]
