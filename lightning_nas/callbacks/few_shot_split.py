"""The moment at which a one-shot supernet becomes a few-shot one."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lightning_nas.supernet import FewShotSupernet

__all__ = ["FewShotSplit"]


class FewShotSplit(Callback):
    """At an epoch, give every part of a `FewShotSupernet` the weights that all have been trained to.

    Reference: Zhao, Wang, Tian, Fonseca and Guo, "Few-shot Neural Architecture Search", ICML 2021.

    Args:
        epoch: The epoch before whose first step the supernet is split.

    Raises:
        ValueError: If the epoch is negative; at the start of a fit, if the search has no `FewShotSupernet`.

    Example:
        >>> FewShotSplit(epoch=10).epoch
        10
    """

    def __init__(self, epoch: int) -> None:
        if epoch < 0:
            raise ValueError(f"epoch={epoch} must not be negative")
        self.epoch = epoch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there is something to split."""
        _supernet(pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Split, once its time has come; the supernet keeps whether it is split."""
        supernet = _supernet(pl_module)
        if trainer.current_epoch >= self.epoch and not supernet.is_split:
            supernet.split(trainer.optimizers[0])


def _supernet(module: Any) -> FewShotSupernet:
    if not isinstance(module.supernet, FewShotSupernet):
        raise ValueError(f"FewShotSplit needs a FewShotSupernet, not {type(module.supernet).__name__}; use FewShotNAS")
    return module.supernet
