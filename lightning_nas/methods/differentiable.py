"""The one LightningModule of all differentiable methods."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchmetrics.classification import MulticlassAccuracy

from lightning_nas import strategy
from lightning_nas.arch import Genotype, Sample
from lightning_nas.hypergradients import FirstOrder, Hypergradient, ScoreFunction, SingleLevel
from lightning_nas.methods.steps import Batch, BilevelSteps
from lightning_nas.metrics import entropy
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.penalties import Regularizer
from lightning_nas.perturbations import Perturbation
from lightning_nas.relaxations import Relaxation, Softmax
from lightning_nas.selection import Magnitude, Selection
from lightning_nas.spaces import Space
from lightning_nas.supernet import build_supernet
from lightning_nas.training import planned_epochs, stretch

__all__ = ["DifferentiableSearch"]


class DifferentiableSearch(BilevelSteps):
    """Alternate steps of supernet weights `w` and architecture parameters `theta`; a method is a choice of parts.

    Training batches are pairs ``{"w": (x, y), "theta": (x, y)}`` (see `BilevelDataModule`); validation batches are
    ``(x, y)``, seen by neither. Logs ``train/loss``, ``arch/loss``, ``arch/entropy/<group>``, ``arch/skips``,
    ``support/open``, ``val/loss`` and ``val/acc``; prints the genotype after each epoch; `genotype` reads it off.

    Args:
        space: Name of a search space, or a space.
        relaxation: Function from decisions, groups and ``seed=`` to a relaxation.
        hypergradient: How the architecture gradient is computed; ``None`` for weights only.
        regularizers: Terms added to the upper loss.
        perturbation: What happens to the sample of a weight step.
        selection: How a genotype is read off.
        supernet: Your own supernet with ``forward(x, sample)``; ``None`` for that of the space.
        channels: Channels of the supernet's first stage.
        cells: Its number of cells (DARTS) or of cells a stage (NAS-Bench-201); ``None`` for the published number.
        num_classes: Number of classes.
        in_channels: Channels of the pictures.
        partial: ``k`` of partial channels: candidates see the first ``1/k`` of the channels; 1 for all.
        start_partial: ``k`` to begin with, if channels are opened in the course of the search
            (`ProgressiveChannelPruning`); ``None`` for a fixed width.
        checkpoint: Whether cells run again in the backward pass instead of keeping what it needs (less memory, one
            more forward pass).
        compile: Whether the supernet's cells are compiled; not for relaxations that sample paths.
        w: Optimiser, schedule and clipping of the weights.
        theta: Optimiser and clipping of the architecture parameters.
        order: Which step comes first in each batch.
        theta_every: Weight steps to one architecture step.
        relax_inputs: Whether the inputs of nodes carry architecture parameters too.
        loss: Function from logits and labels to a scalar.
        callbacks: Callbacks that belong to the method, see `SearchModule`.
        seed: Seed of the architecture parameters and of all draws.

    Raises:
        ValueError: If a name, a size or a rate is not allowed.

    Example:
        >>> search = DifferentiableSearch("darts", channels=4, cells=2)
        >>> sorted(search.relaxation.theta)
        ['normal', 'reduce']
    """

    def __init__(
        self,
        space: str | Space = "darts",
        relaxation: Callable[..., Relaxation] = Softmax,
        hypergradient: Hypergradient | None = FirstOrder(),
        regularizers: Sequence[Regularizer] = (),
        perturbation: Perturbation | None = None,
        selection: Selection = Magnitude(),
        supernet: nn.Module | None = None,
        channels: int = 16,
        cells: int | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        partial: int = 1,
        start_partial: int | None = None,
        checkpoint: bool = False,
        compile: bool = False,
        w: SGDCosine = SGDCosine(lr_min=0.001),
        theta: ThetaRecipe = AdamTheta(),
        order: Literal["theta_first", "w_first"] = "theta_first",
        theta_every: int = 1,
        relax_inputs: bool = False,
        loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(space, callbacks)
        if order not in ("theta_first", "w_first"):
            raise ValueError(f"unknown order {order!r}; allowed are 'theta_first' and 'w_first'")
        if theta_every < 1:
            raise ValueError(f"theta_every={theta_every} must be at least 1")
        groups = tuple(self.space.decisions) if relax_inputs else self.space.relaxed
        self.relaxation = relaxation(self.space.decisions, groups, seed=seed)
        if supernet is None:
            supernet = build_supernet(
                self.space, channels, cells, num_classes, in_channels, partial, checkpoint, compile, start_partial
            )
        self.supernet = supernet
        self.hypergradient, self.regularizers, self.perturbation = hypergradient, tuple(regularizers), perturbation
        self.selection, self.loss, self.order, self.num_classes = selection, loss, order, num_classes
        self.theta_every, self.in_channels = theta_every, in_channels
        self.w = w if isinstance(w, SGDCosine) else SGDCosine(**w)
        self.theta = AdamTheta(**theta) if isinstance(theta, dict) else theta
        self.theta_frozen = False
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        strategy.keep_from_ddp(self, "relaxation.")
        plain = {"space": self.space.name, "channels": channels, "cells": cells, "num_classes": num_classes}
        plain |= {"partial": partial, "start_partial": start_partial, "checkpoint": checkpoint, "compile": compile}
        plain |= {"in_channels": in_channels, "order": order, "relax_inputs": relax_inputs, "seed": seed}
        plain["theta_every"] = theta_every
        self.save_hyperparameters(plain | {"w": asdict(self.w), "theta": asdict(self.theta)})

    def genotype(self) -> Genotype:
        """The genotype that the architecture parameters stand for now."""
        return self.selection.pick(self.space, self.relaxation)

    def forward(self, x: Tensor, sample: Sample | None = None) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> logits under a sample; by default under the expected weights."""
        logits: Tensor = self.supernet(x, self.relaxation.mean_sample() if sample is None else sample)
        return logits

    # --- what a fit is checked for and starts with

    def setup(self, stage: str) -> None:
        """Compare the data module and the strategy with what the search needs."""
        super().setup(stage)
        self.require_classes(self.num_classes)
        self.require_image_size(getattr(self.supernet, "reductions", 0))
        for term in self.regularizers:  # one that depends on the space or the size looks them up here
            getattr(term, "setup", lambda search: None)(self)
            if getattr(term, "multiplies", False) and isinstance(self.hypergradient, ScoreFunction):
                raise ValueError(
                    "ScoreFunction does not differentiate the loss, which a factor would multiply; add terms"
                )
        if stage == "fit":
            name = type(self.relaxation).__name__
            strategy.require_unused_parameters(self.trainer, self.relaxation.needs_unused_parameters, name)

    def configure_optimizers(self) -> Any:
        """One optimiser for the weights, with its schedule, and one for the architecture parameters, if any."""
        optimizer = self.w.optimizer(self.weights())
        optimizers: list[Optimizer] = [optimizer]
        if self.hypergradient is not None and self.arch_parameters():
            optimizers.append(self.theta.optimizer(self.arch_parameters()))
        return optimizers, [self.w.scheduler(optimizer)]

    def on_train_start(self) -> None:
        """Stretch the schedule over the planned epochs."""
        stretch(self.lr_schedulers(), planned_epochs(self.trainer))

    def on_fit_start(self) -> None:
        """Give every process the architecture parameters and the generator of the first."""
        draws = self.relaxation.get_extra_state()
        strategy.broadcast(self.trainer, [*self.arch_parameters(), draws])
        self.relaxation.set_extra_state(draws)

    # --- one step

    def training_step(self, batch: dict[str, Batch] | Batch, batch_idx: int) -> None:
        """One step of the weights and, every `theta_every` batches, one of the architecture parameters, in `order`.

        A single-level method takes both from one loss on one batch, and plain batches ``(x, y)`` too.
        """
        single = self.hypergradient is None or isinstance(self.hypergradient, SingleLevel)
        if single and isinstance(batch, (tuple, list)):
            batch = {"w": (batch[0], batch[1]), "theta": (batch[0], batch[1])}
        if not (isinstance(batch, dict) and {"w", "theta"} <= set(batch)):
            raise TypeError(
                f"a search trains on batches {{'w': (x, y), 'theta': (x, y)}}, not {type(batch).__name__};"
                " wrap your data module: BilevelDataModule(datamodule)"
            )
        due = self.arch_parameters() and not self.theta_frozen and batch_idx % self.theta_every == 0
        bilevel = bool(due) and not single
        if bilevel and self.order == "theta_first":
            self._theta_step(batch)
        self._w_step(batch, jointly=bool(due) and isinstance(self.hypergradient, SingleLevel))
        if bilevel and self.order == "w_first":
            self._theta_step(batch)

    # --- epochs and validation

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Restore generators after a resume, and catch up with a schedule saved just before an epoch's end."""
        super().on_train_batch_start(batch, batch_idx)
        while self._schedule().last_epoch < self.current_epoch:
            self._step_schedule()

    def _step_schedule(self) -> None:
        with warnings.catch_warnings():  # a fit resumed at an epoch's last batch has taken its steps before
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self._schedule().step()

    def _schedule(self) -> CosineAnnealingLR:
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, CosineAnnealingLR):
            raise TypeError(f"a search has one schedule, of the weights, not {scheduler!r}")
        return scheduler

    def on_train_epoch_end(self) -> None:
        """Step the schedule and log the state of the architecture."""
        self._step_schedule()
        names = {d.name: d.choices for rows in self.space.decisions.values() for d in rows}
        kept = [names[name][k] for name, picks in self.genotype().picks.items() for k in picks]
        support = self.relaxation.support
        figures = {f"arch/entropy/{group}": float(entropy(rows)) for group, rows in self.relaxation.mean().items()}
        figures["arch/skips"] = float(kept.count("skip_connect"))
        figures["support/open"] = float(sum(len(support.open(group)[row]) for group, row, _ in support.rows()))
        self.log_dict(figures, sync_dist=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy of the supernet under the expected weights, with the statistics of the batch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on test data."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, stage: str) -> None:
        x, y = batch
        logits = self(x)
        self.val_acc(logits, y)
        self.log(f"{stage}/loss", self.loss(logits, y), batch_size=len(y), sync_dist=True)
        self.log(f"{stage}/acc", self.val_acc, batch_size=len(y), prog_bar=True)
