"""The dominant eigenvalue of the alpha-Hessian over the epochs, and what may be done when it grows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.callbacks.watching import Watched, fix_earlier, is_last_batch, measure_sharpness

__all__ = ["SharpnessMonitor", "mean_of_last", "turned_sharp"]


def mean_of_last(values: Sequence[float], window: int) -> float | None:
    """The mean of the last `window` values, or of as many as there are; ``None`` for fewer than half of them.

    Example:
        >>> mean_of_last([1.0, 2.0, 3.0], 5), mean_of_last([1.0, 2.0], 5)
        (2.0, None)
    """
    last = values[-window:]
    return sum(last) / len(last) if len(last) >= -(-window // 2) else None


def turned_sharp(
    epochs: Sequence[int], values: Sequence[float], ratio: float = 1.3, window: int = 5, delta: int = 4, first: int = 10
) -> int | None:
    """The criterion of DARTS-ES: whether the local mean of the eigenvalue has grown too much.

    A mean over the last `window` evaluations stands for the one in their middle. It is compared with that of `delta`
    evaluations before.

    Args:
        epochs: The epochs of the evaluations.
        values: The eigenvalues.
        ratio: Growth above which the search has become sharp.
        window: Evaluations in a mean.
        delta: Evaluations between the two means.
        first: First epoch to which a search may be led back.

    Returns:
        The index of the evaluation for which the earlier mean stands, if the growth was too much.

    Example:
        >>> turned_sharp(range(0, 24, 2), [1.0] * 8 + [9.0] * 4, first=10)
        5
    """
    earlier = len(values) - 1 - window // 2 - delta
    if earlier < 0 or epochs[earlier] < first:
        return None
    now, before = mean_of_last(values, window), mean_of_last(values[: len(values) - delta], window)
    return earlier if now is not None and before is not None and now > ratio * before > 0 else None


class SharpnessMonitor(Callback):
    r"""Logs the dominant eigenvalue of the alpha-Hessian of the upper loss; may stop the search, or lead it back.

    The eigenvalue of :math:`\nabla^2_\alpha L_{val} + \lambda I` is taken on the last architecture batch of every
    second epoch, with all pictures of it. A search whose eigenvalue grows tends to architectures that lose accuracy
    when they are made discrete. It is a heuristic: one batch, at a point that is no minimum.

    - ``stop_ratio=None`` only watches.
    - With a ratio (DARTS-ES): once the local mean has grown by more than it, the genotype of the epoch before the
      growth is fixed in the Support, so that `genotype()` is that one, and the Trainer stops after the epoch.
    - With `adapt` as well (DARTS-ADA): weights, architecture parameters, optimisers and learning rate go back to that
      epoch, the Trainer counts epochs from there, and the weight decay of the weights is multiplied by `adapt`. Once it
      has reached `max_weight_decay` the search goes on to its end. A second growth soon after leads back no further
      than the first one did.

    An evaluation costs about ten to fifteen products of the Hessian with a vector, each some five first-order
    architecture gradients, and two to three times the memory of a step: lower `pictures` if that is too much. For
    `adapt` the states of the last ``window // 2 + delta + 1`` evaluations are kept in memory and in the checkpoints,
    each the size of the search and its optimisers.

    Reference: Zela, Elsken, Saikia, Marrakchi, Brox and Hutter, "Understanding and Robustifying Differentiable
    Architecture Search", ICLR 2020.

    Args:
        every_n_epochs: Epochs between two evaluations, from epoch 0 on.
        weight_decay: What is added to the diagonal; ``None`` for the weight decay of the architecture optimiser.
        stop_ratio: Growth of the local mean at which something is done; ``None`` for never.
        window: Evaluations in a local mean.
        delta: Evaluations between two means that are compared.
        min_epoch: First epoch to which the search may be led back.
        adapt: Factor of the weight decay of the weights; ``None`` to stop instead.
        max_weight_decay: The most that `adapt` may lead to.
        pictures: Only that many pictures of the batch; ``None`` for all.
        terminal: Whether to print.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import lightning as L
        >>> callback = SharpnessMonitor(stop_ratio=1.3)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu")
    """

    def __init__(
        self,
        every_n_epochs: int = 2,
        weight_decay: float | None = None,
        stop_ratio: float | None = None,
        window: int = 5,
        delta: int = 4,
        min_epoch: int = 10,
        adapt: float | None = None,
        max_weight_decay: float = 0.03,
        pictures: int | None = None,
        terminal: bool = True,
    ) -> None:
        if min(every_n_epochs, window, delta, 1 if pictures is None else pictures) < 1 or min_epoch < 0:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}, window={window}, delta={delta}, pictures={pictures},"
                f" min_epoch={min_epoch}: all must be at least 1, min_epoch at least 0"
            )
        if stop_ratio is not None and stop_ratio <= 1:
            raise ValueError(f"stop_ratio={stop_ratio} must be above 1; give None to watch only")
        if adapt is not None and (adapt <= 1 or stop_ratio is None):
            raise ValueError(f"adapt={adapt}, stop_ratio={stop_ratio}: adapt must be above 1 and needs a stop_ratio")
        self.every_n_epochs, self.weight_decay, self.stop_ratio = every_n_epochs, weight_decay, stop_ratio
        self.window, self.delta, self.min_epoch = window, delta, min_epoch
        self.adapt, self.max_weight_decay, self.pictures, self.terminal = adapt, max_weight_decay, pictures, terminal
        self.epochs: list[int] = []
        self.values: list[float] = []
        self.genotypes: list[str] = []
        self.stopped: str | None = None
        self._kept: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a search that has no architecture parameters."""
        if not getattr(pl_module, "arch_parameters", list)():
            raise MisconfigurationException(
                f"{type(pl_module).__name__} has no architecture parameters, so no Hessian in them; remove"
                " SharpnessMonitor, or use a method that has some"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A search that had stopped stays so after a resume."""
        if self.stopped is not None:
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate at the last batch of an epoch."""
        epoch = trainer.current_epoch
        if not is_last_batch(trainer, batch_idx) or epoch % self.every_n_epochs or self.stopped is not None:
            return
        search: Watched = pl_module  # type: ignore[assignment]
        decay = self._theta_decay(trainer) if self.weight_decay is None else self.weight_decay
        found = measure_sharpness(search, batch, decay, self.pictures)
        self.epochs.append(epoch)
        self.values.append(found.value)
        self.genotypes.append(search.space.format(search.genotype()))
        pl_module.log("sharpness/lambda_max", found.value, on_step=False, on_epoch=True, batch_size=1)
        self._say(trainer, f"epoch {epoch}: dominant eigenvalue {found.value:.4g} ({found.products} products)")
        if self.adapt is not None:
            self._keep(trainer, pl_module)
        if self.stop_ratio is not None:
            self._decide(trainer, pl_module, search, self.stop_ratio)

    def _theta_decay(self, trainer: L.Trainer) -> float:
        groups = trainer.optimizers[1].param_groups if len(trainer.optimizers) > 1 else [{}]
        return float(groups[0].get("weight_decay", 0.0))

    def _decide(self, trainer: L.Trainer, pl_module: L.LightningModule, search: Watched, ratio: float) -> None:
        earlier = turned_sharp(self.epochs, self.values, ratio, self.window, self.delta, self.min_epoch)
        if earlier is None:
            return
        grown = f"the eigenvalue has grown by more than {ratio} since epoch {self.epochs[earlier]}"
        if self.adapt is None:
            self.stopped = self.genotypes[earlier]
            fix_earlier(search, self.stopped)
            self._say(trainer, f"{grown}: the search stops with the genotype of that epoch\n{self.stopped}")
            trainer.should_stop = True
            return
        groups = trainer.optimizers[0].param_groups
        decay = self.adapt * float(groups[0]["weight_decay"])
        if decay > self.max_weight_decay * (1 + 1e-6):
            return
        self._say(trainer, f"{grown}: the search goes on from there with weight decay {decay:.3g}")
        self._go_back(trainer, pl_module, earlier)
        for group in trainer.optimizers[0].param_groups:
            group["weight_decay"] = decay

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the state of the search; forget what is too old to be gone back to."""
        schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        now = {
            "epoch": trainer.current_epoch,
            "module": pl_module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedules": schedules,
        }
        self._kept = [*self._kept, copy.deepcopy(now)][-(self.window // 2 + self.delta + 1) :]

    def _go_back(self, trainer: L.Trainer, pl_module: L.LightningModule, index: int) -> None:
        """Restore the search at an evaluation, or the first that is kept, and the Trainer's count of epochs."""
        then = next((kept for kept in self._kept if kept["epoch"] >= self.epochs[index]), self._kept[-1])
        epoch = then["epoch"]
        pl_module.load_state_dict(then["module"])
        for optimizer, state in zip(trainer.optimizers, copy.deepcopy(then["optimizers"]), strict=True):
            optimizer.load_state_dict(state)
        for config, state in zip(trainer.lr_scheduler_configs, then["schedules"], strict=True):
            config.scheduler.load_state_dict(state)
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = epoch + 1
        progress.processed = progress.completed = epoch
        self._kept = [kept for kept in self._kept if kept["epoch"] <= epoch]
        count = self.epochs.index(epoch) + 1
        for history in (self.epochs, self.values, self.genotypes):
            del history[count:]

    def _say(self, trainer: L.Trainer, text: str) -> None:
        if self.terminal and trainer.is_global_zero:
            print_above_bar(trainer, text)

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far, the genotype with which the search stopped, and the states that are kept."""
        state: dict[str, Any] = {"epochs": list(self.epochs), "values": list(self.values)}
        return state | {"genotypes": list(self.genotypes), "stopped": self.stopped, "kept": list(self._kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.epochs, self.values = list(state_dict["epochs"]), list(state_dict["values"])
        self.genotypes, self.stopped = list(state_dict["genotypes"]), state_dict["stopped"]
        self._kept = list(state_dict["kept"])
