"""What a search and the training of a derived network share: the weight recipe, exact resume, a stop at NaN."""

from __future__ import annotations

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

__all__ = [
    "NonFiniteLossError",
    "ReproducibleModule",
    "planned_epochs",
    "rng_state",
    "set_rng_state",
    "stretch",
]


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


_ENDLESS = 10**18  # epochs of a schedule that stays at its start


def stretch(scheduler: Any, epochs: int | None) -> None:
    """Set the length of a cosine schedule; ``None`` for a rate that stays as it is.

    Called when the fit starts and not before: counting its epochs may need the data, and data loaded before a
    checkpoint is restored start from the beginning of an epoch.
    """
    if isinstance(scheduler, CosineAnnealingLR):
        scheduler.T_max = _ENDLESS if epochs is None else max(epochs, 1)


def planned_epochs(trainer: L.Trainer) -> int | None:
    """How many epochs a fit will take by `max_epochs` and `max_steps`; ``None``, with a warning, if neither says."""
    if trainer.max_steps == -1 and trainer.max_epochs not in (None, -1):
        return trainer.max_epochs  # counting batches before a fit loads the data too early to restore a place in them
    steps = trainer.estimated_stepping_batches
    if steps == float("inf") or trainer.num_training_batches == float("inf"):
        rank_zero_warn("neither max_epochs nor max_steps is set: the learning rate stays constant")
        return None
    steps_an_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
    return -(-int(steps) // max(steps_an_epoch, 1))


def rng_state() -> dict[str, Any]:
    """The state of the global generators of torch, NumPy and Python as plain types and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Set the global generators to what `rng_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class ReproducibleModule(L.LightningModule):
    """A LightningModule whose fit resumes exactly and stops at the first loss that is not finite.

    Its checkpoints hold the state of the global random generators, which is set again before the first batch after a
    resume (of rank 0: with several processes, drop-path draws differ after a resume). The loaders must draw nothing
    from those generators, as the ones of `lightning_nas.data` do; a plain DataLoader does at each epoch's start.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resumed_rng: dict[str, Any] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the random generators."""
        checkpoint["rng_state"] = rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of the random generators, to be set before the first batch."""
        self._resumed_rng = checkpoint.get("rng_state")

    def setup(self, stage: str) -> None:
        """Forget the generators of a checkpoint that was loaded outside a fit; a resume brings its own after this."""
        self._resumed_rng = None

    def on_train_epoch_start(self) -> None:
        """Set the random generators after a resume."""
        self._restore_rng()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The same within an epoch: a fit resumed there, or at an epoch's last batch, skips the hook of its start."""
        self._restore_rng()

    def _restore_rng(self) -> None:
        if self._resumed_rng is not None:
            set_rng_state(self._resumed_rng)
            self._resumed_rng = None

    def require_classes(self, num_classes: int) -> None:
        """Compare the network's classes with those of the data module, if it says them.

        Raises:
            MisconfigurationException: If they differ.
        """
        data = getattr(self.trainer, "datamodule", None)
        there = getattr(data, "num_classes", None)
        if there is not None and there != num_classes:
            raise MisconfigurationException(
                f"the data has {there} classes, the network {num_classes} outputs; pass num_classes={there}"
            )

    def require_image_size(self, reductions: int) -> None:
        """Compare the resolution of the data module, if it says it, with what the network can halve.

        Raises:
            MisconfigurationException: If the network cannot halve it often enough.
        """
        size = getattr(getattr(self.trainer, "datamodule", None), "image_size", None)
        if size is not None and int(size) % 2**reductions:
            raise MisconfigurationException(
                f"the data has pictures of {size}x{size}, which the network halves {reductions} times; resize or pad"
                f" them to a multiple of {2**reductions}"
            )

    def check_finite(self, loss: Tensor, name: str, lr: float) -> None:
        """Stop before a step that would spoil the weights.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite.
        """
        if bool(torch.isfinite(loss).all()):
            return
        callback = self.trainer.checkpoint_callback
        last = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        raise NonFiniteLossError(
            f"{name} is {float(loss.detach())} at step {self.global_step} with learning rate {lr:.3g}; last good"
            f" checkpoint: {last or 'none yet'}; resume from it with a smaller learning rate or a smaller clip norm"
        )
