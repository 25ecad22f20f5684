"""What schedules have in common: they are functions of the epoch, so a resumed fit needs no state of theirs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.penalties import Regularizer
from lightning_nas.perturbations import Perturbation
from lightning_nas.relaxations import Relaxation
from lightning_nas.spaces import Space
from lightning_nas.training import planned_epochs

__all__ = ["Annealing", "AuxiliarySkipAnnealing", "EpochSchedule", "NumberSchedule", "PenaltyAnnealing", "Search"]


class Search(Protocol):
    """What callbacks read and set of a differentiable search."""

    space: Space
    relaxation: Relaxation
    supernet: nn.Module
    regularizers: tuple[Regularizer, ...]
    perturbation: Perturbation | None
    theta_frozen: bool

    def genotype(self) -> Genotype:
        """The genotype that the search has come to."""

    def agreed(self, scores: Tensor) -> Tensor:
        """The mean of scores over all processes, the same in each."""

    def log(self, name: str, value: Any, **settings: Any) -> None:
        """Log a figure."""


class EpochSchedule(Callback):
    """Does something before the first batch that a fit trains on in each epoch.

    That is also the first batch after a resume in the middle of an epoch, where Lightning skips
    ``on_train_epoch_start``; so `at_epoch` may run twice for one epoch, and must then do the same.

    Example:
        >>> class Count(EpochSchedule):
        ...     def at_epoch(self, trainer, search, epoch, epochs):
        ...         print(f"epoch {epoch} of {epochs}")
    """

    _epoch: int | None = None
    _epochs: int | None = None

    @abstractmethod
    def at_epoch(self, trainer: L.Trainer, search: Search, epoch: int, epochs: int | None) -> None:
        """What to do before the first step of an epoch.

        Args:
            trainer: The Trainer.
            search: The search.
            epoch: Number of the epoch, from 0.
            epochs: How many the fit will take; ``None`` if it has no end.
        """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the epoch of an earlier fit."""
        self._epoch = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Call `at_epoch` if the epoch is new."""
        if trainer.current_epoch != self._epoch:
            if self._epoch is None:
                self._epochs = planned_epochs(trainer)
            self._epoch = trainer.current_epoch
            search: Search = pl_module  # type: ignore[assignment]
            self.at_epoch(trainer, search, trainer.current_epoch, self._epochs)


class NumberSchedule(EpochSchedule):
    """Hands a number to the search that depends on the epoch and on how many there are.

    Attributes:
        epochs: Length of the schedule; ``None`` for the whole fit.
    """

    epochs: int | None

    @abstractmethod
    def value(self, epoch: int, epochs: int) -> float:
        """The number in an epoch of a schedule of so many epochs."""

    @abstractmethod
    def set(self, search: Search, value: float) -> None:
        """Hand the number to the search."""

    def at_epoch(self, trainer: L.Trainer, search: Search, epoch: int, epochs: int | None) -> None:
        """Set the number of this epoch."""
        epochs = self.epochs or epochs
        if epochs is None:
            raise ValueError(
                f"{type(self).__name__} does not know how many epochs there are; set the Trainer's max_epochs, or pass"
                " epochs="
            )
        self.set(search, self.value(epoch, epochs))


class Annealing(NumberSchedule):
    """Moves a number from `start` to `end`.

    In epoch ``e`` of ``E`` the number is at the fraction ``e / E`` of the way, or at ``e / (E - 1)`` with `inclusive`,
    so that the last epoch has `end`.

    Args:
        start: The number in the first epoch.
        end: Where it leads.
        kind: ``"linear"``, or ``"exponential"`` for equal ratios between epochs.
        epochs: ``E``, after which the number stays at `end`; ``None`` for the whole fit.
        inclusive: Whether epoch ``E - 1`` has `end`.

    Raises:
        ValueError: If the kind is unknown, `epochs` is not positive, or an exponential has an end that is not positive;
            during a fit, if neither the Trainer nor `epochs` says how long it is.
    """

    def __init__(
        self,
        start: float,
        end: float,
        kind: Literal["linear", "exponential"] = "linear",
        epochs: int | None = None,
        inclusive: bool = False,
    ) -> None:
        if kind not in ("linear", "exponential"):
            raise ValueError(f"unknown kind {kind!r}; allowed are 'linear' and 'exponential'")
        if kind == "exponential" and min(start, end) <= 0:
            raise ValueError(f"start={start}, end={end}: an exponential needs both positive; use kind='linear'")
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs={epochs} must be at least 1; give None for the whole fit")
        self.start, self.end, self.kind = float(start), float(end), kind
        self.epochs, self.inclusive = epochs, inclusive

    def value(self, epoch: int, epochs: int) -> float:
        """The number in an epoch of a schedule of so many epochs."""
        way = min(epoch / max(epochs - self.inclusive, 1), 1.0)
        if self.kind == "exponential":
            return float(self.start ** (1 - way) * self.end**way)
        return (1 - way) * self.start + way * self.end


class PenaltyAnnealing(Annealing):
    """Moves the weight of a regularizer, for beta-DARTS from 0 to 50.

    Reference: Ye, Li, Li, Yuan, Fan, Zhang, Wang and Ouyang, "beta-DARTS: Beta-Decay Regularization for Differentiable
    Architecture Search", CVPR 2022.

    Args:
        start: Weight in the first epoch.
        end: Weight at the end, which the epoch after the last would have.
        index: Which of the search's regularizers.
        epochs: Length of the schedule; ``None`` for the whole fit.

    Raises:
        ValueError: See `Annealing`; at the start of a fit, if there is no such regularizer.

    Example:
        >>> [PenaltyAnnealing(0.0, 50.0).value(epoch, 100) for epoch in (0, 50, 99)]
        [0.0, 25.0, 49.5]
    """

    def __init__(self, start: float = 0.0, end: float = 50.0, index: int = 0, epochs: int | None = None) -> None:
        super().__init__(start, end, epochs=epochs)
        self.index = index

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there is such a regularizer."""
        terms: Any = getattr(pl_module, "regularizers", ())
        if not 0 <= self.index < len(terms) or not hasattr(terms[self.index], "weight"):
            raise ValueError(
                f"PenaltyAnnealing(index={self.index}): the search has {len(terms)} regularizers, and none with a"
                " weight there; pass regularizers=(...) to the search"
            )

    def set(self, search: Search, value: float) -> None:
        """Set the weight."""
        term: Any = search.regularizers[self.index]
        term.weight = value


class AuxiliarySkipAnnealing(Annealing):
    """Moves the weight of the auxiliary skips, for DARTS- from 1 to 0.

    Reference: Chu, Wang, Zhang, Lu, Wei and Yan, "DARTS-: Robustly Stepping out of Performance Collapse Without
    Indicators", ICLR 2021.

    Args:
        start: Weight in the first epoch.
        end: Weight at the end, which the epoch after the last would have.
        epochs: Length of the schedule; ``None`` for the whole fit.

    Raises:
        ValueError: See `Annealing`; at the start of a fit, if the relaxation has no auxiliary skip.

    Example:
        >>> [AuxiliarySkipAnnealing().value(epoch, 50) for epoch in (0, 25, 50, 60)]
        [1.0, 0.5, 0.0, 0.0]
    """

    def __init__(self, start: float = 1.0, end: float = 0.0, epochs: int | None = None) -> None:
        super().__init__(start, end, epochs=epochs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the relaxation has one."""
        require_attribute(pl_module, "auxiliary_skip", type(self).__name__)

    def set(self, search: Search, value: float) -> None:
        """Set the weight."""
        relaxation: Any = search.relaxation
        relaxation.auxiliary_skip = value


def require_attribute(module: Any, name: str, callback: str) -> None:
    """Check that the relaxation of a search has what a callback sets.

    Raises:
        ValueError: If it has not.
    """
    relaxation = getattr(module, "relaxation", None)
    if not hasattr(relaxation, name):
        raise ValueError(
            f"{callback} sets the {name} of a relaxation, which {type(relaxation).__name__} has not; leave the callback"
            " out, or use a relaxation with it"
        )
