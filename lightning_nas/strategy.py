"""All that depends on how Lightning runs a fit: processes, precision, options that a search cannot take.

No other module knows DDP, FSDP or precision plugins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

__all__ = ["any_process", "broadcast", "keep_from_ddp", "loss_scale", "reduce", "require_supported"]


def require_supported(trainer: L.Trainer) -> None:
    """Refuse Trainer options under which a search would go wrong, before any work is done.

    Raises:
        MisconfigurationException: For gradient clipping or accumulation by the Trainer, and for sharded strategies.
    """
    # The weights after the step are what a checkpoint of a search must hold; Lightning warns that it holds them.
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
    # Gradients of 1x1 convolutions in channels-last differ from their weights in strides of sides of one pixel only.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if trainer.gradient_clip_val:
        raise MisconfigurationException(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) does not reach a search, which optimises weights"
            f" and architecture by hand; remove it and pass w=SGDCosine(clip={trainer.gradient_clip_val}) to the search"
        )
    if trainer.accumulate_grad_batches != 1:
        raise MisconfigurationException(
            f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) is not supported by a search; remove"
            " it and choose the batch size in the data module"
        )
    if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
        raise MisconfigurationException(
            f"{type(trainer.strategy).__name__} shards weights, which a search with two optimisers cannot follow; use"
            " strategy='ddp' or one device"
        )


def require_unused_parameters(trainer: L.Trainer, needed: bool, relaxation: str) -> None:
    """Under DDP, a relaxation that leaves weights out of a step needs the strategy that allows it.

    Raises:
        MisconfigurationException: If it is not the strategy in use.
    """
    ddp = trainer.strategy
    if needed and isinstance(ddp, DDPStrategy) and not ddp._ddp_kwargs.get("find_unused_parameters", False):
        raise MisconfigurationException(
            f"{relaxation} leaves some weights without a gradient in each step; use"
            " strategy='ddp_find_unused_parameters_true'"
        )


def keep_from_ddp(module: L.LightningModule, prefix: str) -> None:
    """Put the parameters and buffers below a prefix on DDP's ignore list: they are averaged by `reduce` instead."""
    names = [name for name, _ in module.named_parameters() if name.startswith(prefix)]
    names += [name for name, _ in module.named_buffers() if name.startswith(prefix)]
    object.__setattr__(module, "_ddp_params_and_buffers_to_ignore", names)


def reduce(trainer: L.Trainer, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all processes, in one exchange; the tensors themselves with one process."""
    if trainer.world_size == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    flat = torch.as_tensor(trainer.strategy.reduce(flat, reduce_op="mean"))
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


@torch.no_grad()
def broadcast(trainer: L.Trainer, tensors: Sequence[Tensor]) -> None:
    """Overwrite the tensors of every process by those of the first."""
    if trainer.world_size > 1:
        for tensor, source in zip(tensors, trainer.strategy.broadcast([t.cpu() for t in tensors]), strict=True):
            tensor.copy_(source)


def any_process(trainer: L.Trainer, flag: bool) -> bool:
    """Whether the flag is set in at least one process."""
    return not trainer.strategy.reduce_boolean_decision(not flag, all=True)


def loss_scale(trainer: L.Trainer) -> float:
    """The factor by which fp16 training scales its loss, 1 otherwise; gradients taken by hand need it too."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0


def step_context(trainer: L.Trainer) -> Callable[[], AbstractContextManager[Any]]:
    """The precision in which the Trainer runs a training step, as a context."""
    return trainer.precision_plugin.train_step_context
