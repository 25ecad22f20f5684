"""Training a derived network by the published recipes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassAccuracy

from lightning_nas.derived.network import DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.optimizers import SGDCosine
from lightning_nas.training import ReproducibleModule, planned_epochs, stretch

__all__ = ["DerivedTraining"]

Batch = tuple[Tensor, Tensor]


class DerivedTraining(ReproducibleModule):
    """Train the network of a genotype from scratch.

    The defaults are those of Liu, Simonyan and Yang, "DARTS", ICLR 2019, for CIFAR-10: SGD with a cosine schedule to 0,
    gradients clipped to norm 5, an auxiliary head with weight 0.4 and drop-path that rises linearly to 0.2. Batches are
    ``(x, y)``. Logs ``train/loss`` (all terms together), ``val/loss``, ``val/acc``, ``test/loss`` and ``test/acc``.

    Gradients are clipped by ``w.clip``; ``Trainer(gradient_clip_val=...)``, if given, takes its place. For averaged
    weights, add Lightning's `EMAWeightAveraging` to the Trainer. Drop-path draws from torch's global generator, whose
    state is in the checkpoint.

    Args:
        genotype: A published name, the field's own text, JSON, or the path of a file with one of them.
        channels: Channels of the first stage; ``None`` for the published number.
        cells: Number of cells (DARTS) or of cells a stage (NAS-Bench-201); ``None`` for the published number.
        num_classes: Number of classes.
        in_channels: Channels of the pictures.
        stem: ``"cifar"`` keeps the resolution at the start, ``"imagenet"`` reduces it; ``None`` for that of the space's
            supernet.
        w: Optimiser, schedule and clipping.
        auxiliary_weight: Weight of the auxiliary head's loss; 0 for no head. A batch of one picture, whose 1x1 maps
            batch normalisation cannot take, goes without.
        drop_path: Probability of drop-path at the end; in epoch `e` of `E` it is ``drop_path * e / E``, and constant
            where the Trainer knows no number of epochs.
        label_smoothing: Label smoothing of both losses in training.
        network: Your own network with ``forward(x)``, in place of a genotype. A `DerivedNetwork` gets drop-path, and
            trains its auxiliary head if it has one; `load_from_checkpoint` then needs the network again.

    Raises:
        ValueError: If there is neither a genotype nor a network, or both, or an argument is not allowed.

    Example:
        >>> training = DerivedTraining("darts_v2", channels=4, cells=3, auxiliary_weight=0.0)
        >>> sorted(training.summary())
        ['genotype', 'image_size', 'macs', 'parameters', 'space']
    """

    def __init__(
        self,
        genotype: str | Path | None = None,
        *,
        channels: int | None = None,
        cells: int | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        stem: Literal["cifar", "imagenet"] | None = None,
        w: SGDCosine = SGDCosine(lr=0.025, lr_min=0.0, momentum=0.9, weight_decay=3e-4, clip=5.0),
        auxiliary_weight: float = 0.4,
        drop_path: float = 0.2,
        label_smoothing: float = 0.0,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (genotype is None) == (network is None):
            raise ValueError(f"genotype={genotype!r} and network={type(network).__name__}: give exactly one of them")
        if auxiliary_weight < 0 or not 0 <= label_smoothing < 1 or not 0 <= drop_path < 1:
            raise ValueError(
                f"auxiliary_weight={auxiliary_weight}, label_smoothing={label_smoothing}, drop_path={drop_path}: the"
                " weight must not be negative, the others must be at least 0 and less than 1"
            )
        if network is None:
            network = DerivedNetwork(
                genotype or "",
                channels=channels,
                cells=cells,
                num_classes=num_classes,
                in_channels=in_channels,
                stem=stem,
                auxiliary=auxiliary_weight > 0,
            )
            stem = network.size.stem
        self.network = network
        self.w = w if isinstance(w, SGDCosine) else SGDCosine(**w)
        self.auxiliary_weight, self.drop_path, self.label_smoothing = auxiliary_weight, drop_path, label_smoothing
        self.num_classes, self.in_channels = num_classes, in_channels
        self.image_size = 224 if stem == "imagenet" else 32
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        self.test_acc = MulticlassAccuracy(num_classes, average="micro")
        self._epochs: int | None = None
        derived = self._derived()
        if derived is not None and derived.num_classes != num_classes:
            raise ValueError(f"the network has {derived.num_classes} outputs; pass num_classes={derived.num_classes}")
        text = derived.space.to_json(derived.genotype) if derived is not None and genotype is not None else None
        plain: dict[str, Any] = {"genotype": text, "channels": channels, "cells": cells, "num_classes": num_classes}
        plain |= {"in_channels": in_channels, "stem": stem, "auxiliary_weight": auxiliary_weight}
        plain |= {"drop_path": drop_path, "label_smoothing": label_smoothing, "w": asdict(self.w)}
        self.save_hyperparameters(plain)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> logits ``(N, num_classes)``."""
        logits: Tensor = self.network(x)
        return logits

    def summary(self, image_size: int | None = None) -> dict[str, Any]:
        """What was trained: genotype as text, space, parameters (auxiliary head left out) and multiply-adds.

        Args:
            image_size: Height and width for which operations are counted; ``None`` for those of the data module, or,
                before there is one, 32 (224 with the ImageNet stem).

        Returns:
            Plain values by name: genotype, space, parameters, macs, image_size.
        """
        side = self.image_size if image_size is None else image_size
        without = () if self._derived() is None else ("auxiliary",)
        return self._architecture() | {
            "parameters": count_parameters(self.network, without),
            "macs": count_macs(self.network, (self.in_channels, side, side)),
            "image_size": side,
        }

    # --- what a fit is checked for and starts with

    def setup(self, stage: str) -> None:
        """Compare the data module with the network, before any work is done."""
        super().setup(stage)
        self.require_classes(self.num_classes)
        self.require_image_size(getattr(self.network, "reductions", 0))
        self.image_size = int(getattr(getattr(self.trainer, "datamodule", None), "image_size", self.image_size))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of all weights with its schedule, whose length `on_train_start` sets."""
        optimizer = self.w.optimizer(p for p in self.network.parameters() if p.requires_grad)
        return {"optimizer": optimizer, "lr_scheduler": self.w.scheduler(optimizer)}

    def on_train_start(self) -> None:
        """Stretch the schedule over the planned epochs."""
        self._epochs = planned_epochs(self.trainer)
        stretch(self.lr_schedulers(), self._epochs)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to the Trainer's value if it has one (0 for not at all), else to the norm ``w.clip``."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif self.w.clip is not None:
            self.clip_gradients(optimizer, self.w.clip, "norm")

    # --- one step

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the epoch's drop-path; here, because a fit resumed within an epoch skips the hook of its start."""
        super().on_train_batch_start(batch, batch_idx)
        derived = self._derived()
        if derived is not None:
            share = 1.0 if self._epochs is None else min(self.current_epoch / self._epochs, 1.0)
            derived.set_drop_path(self.drop_path * share)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the classifier plus, weighted, that of the auxiliary head."""
        if isinstance(batch, dict):
            raise TypeError(
                f"the training of a network takes batches (x, y), not a dict of {sorted(batch)}; pass the data module"
                " itself, not its BilevelDataModule"
            )
        x, y = batch
        derived = self._derived()
        if derived is None or derived.auxiliary is None or not self.auxiliary_weight or len(x) < 2:
            loss = self._loss(self(x), y)
        else:
            logits, auxiliary = derived.forward_with_auxiliary(x)
            loss = self._loss(logits, y) + self.auxiliary_weight * self._loss(auxiliary, y)
        self.check_finite(loss, "train/loss", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log(
            "train/loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=len(y), sync_dist=True
        )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy."""
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy."""
        self._evaluate(batch, "test", self.test_acc)

    def _evaluate(self, batch: Batch, stage: str, accuracy: MulticlassAccuracy) -> None:
        x, y = batch
        logits = self(x)
        accuracy(logits, y)
        self.log(f"{stage}/loss", F.cross_entropy(logits, y), batch_size=len(y), sync_dist=True)
        self.log(f"{stage}/acc", accuracy, batch_size=len(y), prog_bar=True)

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the space and the genotype as text."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= self._architecture()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another architecture.

        Raises:
            ValueError: If its space or genotype is another.
        """
        for name, own in self._architecture().items():
            if checkpoint.get(name) != own:
                raise ValueError(
                    f"the checkpoint has the {name} {checkpoint.get(name)!r}, the training {own!r}; use"
                    " DerivedTraining.load_from_checkpoint, or the genotype the checkpoint was made with"
                )
        super().on_load_checkpoint(checkpoint)

    def _architecture(self) -> dict[str, str | None]:
        """Space and genotype as text; None for a network of the user's own."""
        derived = self._derived()
        if derived is None:
            return {"space": None, "genotype": None}
        return {"space": derived.space.name, "genotype": derived.space.format(derived.genotype)}

    def _derived(self) -> DerivedNetwork | None:
        return self.network if isinstance(self.network, DerivedNetwork) else None
