"""Evaluation of samples on validation data in the middle of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_nas import strategy
from lightning_nas.arch import Sample
from lightning_nas.spaces import CellNetwork
from lightning_nas.supernet import evaluate_samples
from lightning_nas.training import rng_state, set_rng_state

__all__ = ["evaluation", "logits_of", "require_validation", "validation_batches"]


def require_validation(trainer: L.Trainer, callback: str) -> None:
    """Check that a fit has validation data.

    Raises:
        ValueError: If it has none.
    """
    if not trainer.enable_validation:
        raise ValueError(
            f"{callback} decides on validation data, and this fit has none; give the data module a val_dataloader, and"
            f" Trainer(limit_val_batches={trainer.limit_val_batches}) a positive number"
        )


@contextmanager
def evaluation(trainer: L.Trainer, supernet: nn.Module) -> Iterator[None]:
    """Evaluate a supernet: no graph, no dropout, batch statistics; global generators and all modes stay as they are."""
    modes = [(module, module.training) for module in supernet.modules()]
    stage, kept = trainer.state.stage, rng_state()
    trainer.validating = True
    supernet.eval()
    for module in supernet.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    try:
        with torch.no_grad(), strategy.step_context(trainer)():
            yield
    finally:
        trainer.state.stage = stage
        set_rng_state(kept)
        for module, mode in modes:
            module.training = mode


def validation_batches(trainer: L.Trainer, count: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """The fit's validation batches on this process's device, at most `count` of them."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    if trainer.val_dataloaders is None:  # Lightning loads them for the first validation, which may be epochs away
        loop.setup_data()
    loader = CombinedLoader(trainer.val_dataloaders, "sequential")
    loader.limits = trainer.num_val_batches
    for batch, _, number in islice(loader, count):
        yield _on_device(trainer, batch, number)


def _on_device(trainer: L.Trainer, batch: Any, number: int) -> tuple[Tensor, Tensor]:
    """A batch through all hooks of transfer."""
    data: Any = getattr(trainer, "datamodule", None)
    hook = "on_before_batch_transfer"
    owner: Any = data if data is not None and is_overridden(hook, data) else trainer.lightning_module
    batch = trainer.precision_plugin.convert_input(owner.on_before_batch_transfer(batch, number))
    x, y = trainer.strategy.batch_to_device(batch, dataloader_idx=number)
    return x, y


def logits_of(supernet: nn.Module, x: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Logits ``(samples, N, classes)`` of any supernet."""
    if isinstance(supernet, CellNetwork):
        return evaluate_samples(supernet, x, samples)
    return torch.stack([supernet(x, sample) for sample in samples])
