"""The temperature of a Gumbel-softmax."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L

from lightning_nas.callbacks.schedule import Annealing, Search, require_attribute

__all__ = ["TemperatureAnnealing"]


class TemperatureAnnealing(Annealing):
    """Moves the temperature `tau` of the relaxation; the last epoch has `end`. Logs ``arch/tau``.

    SNAS (Xie, Zheng, Liu and Lin, ICLR 2019) goes from 1 to 0.03, GDAS (Dong and Yang, CVPR 2019) from 10 to 0.1, both
    in equal steps.

    Args:
        start: Temperature of the first epoch.
        end: Temperature of the last epoch.
        kind: ``"linear"``, or ``"exponential"`` for equal ratios between epochs.
        epochs: Length of the schedule, after which the temperature stays; ``None`` for the whole fit.

    Raises:
        ValueError: If a temperature is not positive, and see `Annealing`; at the start of a fit, if the relaxation has
            no temperature.

    Example:
        >>> [round(TemperatureAnnealing(10.0, 0.1, "exponential").value(epoch, 3), 6) for epoch in range(3)]
        [10.0, 1.0, 0.1]
    """

    def __init__(
        self,
        start: float = 10.0,
        end: float = 0.1,
        kind: Literal["linear", "exponential"] = "linear",
        epochs: int | None = None,
    ) -> None:
        if min(start, end) <= 0:
            raise ValueError(f"start={start}, end={end}: temperatures must be positive")
        super().__init__(start, end, kind, epochs, inclusive=True)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the relaxation has a temperature."""
        require_attribute(pl_module, "tau", type(self).__name__)

    def set(self, search: Search, value: float) -> None:
        """Set the temperature."""
        relaxation: Any = search.relaxation
        relaxation.tau = value
        search.log("arch/tau", value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
