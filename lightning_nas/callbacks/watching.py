"""What the callbacks that watch a search have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_nas.arch import Sample
from lightning_nas.callbacks.schedule import Search
from lightning_nas.selection import fix_support
from lightning_nas.sharpness import Dominant, dominant_eigenvalue

__all__ = ["Watched", "fix_earlier", "is_last_batch", "measure_sharpness"]


class Watched(Search, Protocol):
    """What they ask of a search."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def weights(self) -> list[nn.Parameter]:
        """The weights of the supernet."""

    def arch_parameters(self) -> list[nn.Parameter]:
        """The architecture parameters."""


def is_last_batch(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether the epoch ends with this batch.

    Callbacks that look at each epoch do it here and not at the epoch's end, which a fit resumed from a checkpoint of
    this moment passes over: every checkpoint from here on then holds what they found.
    """
    return bool(trainer.is_last_batch) or batch_idx + 1 == trainer.num_training_batches


def measure_sharpness(
    search: Watched, batch: Any, weight_decay: float = 0.0, pictures: int | None = None, expected: bool = False
) -> Dominant:
    """The dominant eigenvalue of the upper loss on the architecture part of a batch, without a trace in the search.

    Generators go on as if nothing had been drawn, and statistics of normalisation are those of copies. With several
    processes the Hessian is the mean of theirs.

    Args:
        search: A differentiable search.
        batch: A training batch: ``{"w": (x, y), "theta": (x, y)}``, or ``(x, y)``.
        weight_decay: Weight decay of the architecture parameters.
        pictures: Only that many pictures of the batch; ``None`` for all.
        expected: Whether the loss is that of the expected weights, so that methods that draw and methods that do not
            can be compared; else that of a draw.

    Raises:
        ValueError: If the loss does not depend on the architecture parameters.
    """
    x, y = batch["theta"] if isinstance(batch, dict) else batch
    x, y = x[:pictures], y[:pictures]
    draws = search.relaxation.get_extra_state()
    devices = [x.device] if x.device.type == "cuda" else []

    def loss() -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in search.supernet.named_buffers()}
        relaxation = search.relaxation
        sample = Sample(relaxation.expected(), relaxation.support.active()) if expected else relaxation()
        return search.loss(functional_call(search.supernet, buffers, (x, sample)), y)

    def average(vector: Tensor) -> Tensor:
        return search.agreed(vector.to(search.arch_parameters()[0])).to("cpu", torch.double)

    try:
        with torch.random.fork_rng(devices):
            return dominant_eigenvalue(loss, search.arch_parameters(), weight_decay=weight_decay, average=average)
    finally:
        search.relaxation.set_extra_state(draws)


def fix_earlier(search: Watched, text: str) -> None:
    """Fix a genotype of an earlier epoch, one of whose choices may have been closed since, in the Support."""
    support, genotype = search.relaxation.support, search.space.parse(text)
    for group, row, decision in support.rows():
        picks = genotype.picks.get(decision.name, ())
        if not set(picks) <= set(support.open(group)[row]):
            support.set_row(group, row, picks)
    fix_support(support, search.space, genotype)
