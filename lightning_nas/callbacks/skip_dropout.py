"""Dropout on the skips of a supernet."""

from __future__ import annotations

import math
from typing import Any

import lightning as L

from lightning_nas.callbacks.schedule import NumberSchedule, Search
from lightning_nas.supernet import MixedCell

__all__ = ["SkipDropout"]


class SkipDropout(NumberSchedule):
    r"""Drops elements of what skips pass on, so that the search does not settle on them while operations are untrained.

    With the rate :math:`p_0` at the start, `n` epochs of warm-up and `E` epochs, epoch `e` has

    .. math:: p = p_0 \frac{E - 1 - e}{E} \text{ for } e < n, \qquad p = p_0\, e^{-d (e - n)} \text{ from } n \text{ on}

    Only skips of stride 1 are dropped.

    Reference: Chen, Xie, Wu and Tian, "Progressive Differentiable Architecture Search: Bridging the Depth Gap between
    Search and Evaluation", ICCV 2019, with the rates 0.0, 0.4 and 0.7 for its three stages.

    Args:
        start: The rate at the start.
        warmup: Epochs of warm-up, in which the architecture parameters rest.
        decay: The decay `d`.
        epochs: `E`; ``None`` for the whole fit.

    Raises:
        ValueError: If a number is out of range; at the start of a fit, if the supernet has no cells with skips.

    Example:
        >>> [round(SkipDropout(0.4).value(epoch, 25), 3) for epoch in (0, 9, 10, 15)]
        [0.384, 0.24, 0.4, 0.147]
    """

    def __init__(self, start: float, warmup: int = 10, decay: float = 0.2, epochs: int | None = None) -> None:
        if not 0 <= start < 1 or min(warmup, decay) < 0 or (epochs is not None and epochs < 1):
            raise ValueError(
                f"start={start}, warmup={warmup}, decay={decay}, epochs={epochs}: start must be in [0, 1), warmup and"
                " decay not negative, epochs positive or None"
            )
        self.start, self.warmup, self.decay, self.epochs = start, warmup, decay, epochs

    def value(self, epoch: int, epochs: int) -> float:
        """The rate in an epoch of a search of so many epochs."""
        if epoch < self.warmup:
            return self.start * max(epochs - 1 - epoch, 0) / epochs
        return self.start * math.exp(-self.decay * (epoch - self.warmup))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there are cells."""
        if not _cells(pl_module):
            raise ValueError("SkipDropout needs a supernet of mixed cells; this one has none: leave the callback out")

    def set(self, search: Search, value: float) -> None:
        """Set the rate of all cells."""
        for cell in _cells(search):
            cell.skip_dropout = value


def _cells(search: Any) -> list[MixedCell]:
    return [module for module in search.supernet.modules() if isinstance(module, MixedCell)]
