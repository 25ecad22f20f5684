"""Epochs in which the architecture parameters rest."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L

from lightning_nas.callbacks.schedule import EpochSchedule, Search

__all__ = ["ArchitectureWarmup", "is_resting"]


def is_resting(epoch: int, epochs: int, stages: Sequence[int]) -> bool:
    """Whether an epoch is among the first of a stage.

    Example:
        >>> [is_resting(epoch, 2, (0, 5)) for epoch in range(8)]
        [True, True, False, False, False, True, True, False]
    """
    return any(start <= epoch < start + epochs for start in stages)


class ArchitectureWarmup(EpochSchedule):
    """Trains the weights alone in the first epochs, of the search or of each stage.

    PC-DARTS (Xu et al., ICLR 2020) rests 15 of 50 epochs, P-DARTS (Chen et al., ICCV 2019) and DrNAS (Chen et al., ICLR
    2021) 10 of the 25 of each stage.

    Args:
        epochs: How many.
        stages: The epochs in which stages begin.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> ArchitectureWarmup(10, stages=(0, 25)).stages
        (0, 25)
    """

    def __init__(self, epochs: int, stages: Sequence[int] = (0,)) -> None:
        if min(epochs, *stages) < 0:
            raise ValueError(f"epochs={epochs}, stages={tuple(stages)}: numbers of epochs must not be negative")
        self.epochs, self.stages = epochs, tuple(stages)

    def at_epoch(self, trainer: L.Trainer, search: Search, epoch: int, epochs: int | None) -> None:
        """Freeze or release the architecture parameters."""
        search.theta_frozen = is_resting(epoch, self.epochs, self.stages)
