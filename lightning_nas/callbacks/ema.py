"""Averaged weights that leave choices alone."""

from itertools import chain
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_avg_fn

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage(WeightAveraging):
    """Lightning's exponential moving average for a search as well: only floating-point tensors are averaged.

    Other buffers (the boolean support of a search, counters) always are those of the current model. Lightning's
    `EMAWeightAveraging` averages them too, which opens choices again that have been closed, unless it is given
    ``use_buffers=False``. Until the first update, the averaged weights are the current ones.

    Args:
        decay: Decay of the average, in [0, 1).
        every_n_steps: Weight steps between two updates.
        from_step: First step whose weights count.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import lightning as L
        >>> callback = ExponentialMovingAverage(decay=0.99)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu")
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1, from_step: int = 0) -> None:
        if not 0 <= decay < 1 or every_n_steps < 1 or from_step < 0:
            raise ValueError(
                f"decay={decay}, every_n_steps={every_n_steps}, from_step={from_step}: decay must be in [0, 1),"
                " every_n_steps at least 1, from_step not negative"
            )
        average = get_ema_avg_fn(decay)  # type: ignore[no-untyped-call]

        def floating_only(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
            mean: Tensor = average(averaged, current, count) if averaged.is_floating_point() else current
            return mean

        super().__init__(avg_fn=floating_only)
        self.every_n_steps, self.from_step = every_n_steps, from_step

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the weights after this step count."""
        return step_idx is not None and step_idx >= self.from_step and step_idx % self.every_n_steps == 0

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average."""
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the module."""
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average beside the current weights."""
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def _follow(self, pl_module: L.LightningModule) -> None:
        """Bring what is not averaged up to date: a choice may have been closed since the last update."""
        average = self._average_model
        if average is None:
            return
        everything = int(average.n_averaged) == 0
        averaged = chain(average.module.parameters(), average.module.buffers())
        for mean, current in zip(averaged, chain(pl_module.parameters(), pl_module.buffers()), strict=True):
            if everything or not mean.is_floating_point():
                mean.data.copy_(current.data)
