"""A search outside a Trainer, to try a step without any effect on the search itself."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_nas.methods.differentiable import DifferentiableSearch

__all__ = ["alone"]


class _Alone:
    """What a search asks of its Trainer, for one that has none."""

    own_optimizers: list[Optimizer]

    def optimizers(self, use_pl_optimizer: bool = True) -> list[Optimizer]:
        return self.own_optimizers

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Report nothing."""

    log_dict = log

    def check_finite(self, loss: Tensor, name: str, lr: float) -> None:
        bool(torch.isfinite(loss).all())  # takes its time, but whether it is finite is for the search to say


def alone(search: DifferentiableSearch) -> Any:
    """A deep copy that takes steps without a Trainer, in the state of a search that has taken some.

    Its gradients and the states of its optimisers are there, its `training_step` is that of the search, and it reports
    nothing.

    Raises:
        ValueError: If the search could not take a step alone.

    Example:
        >>> copied = alone(DifferentiableSearch("nasbench201", channels=4, cells=1))
        >>> part = torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.long)
        >>> copied.training_step({"w": part, "theta": part}, 0)
    """
    if any(isinstance(module, nn.SyncBatchNorm) for module in search.modules()):
        raise ValueError("SyncBatchNorm waits for other processes")
    twin: Any = copy.deepcopy(search)
    twin.__class__ = type("Alone", (_Alone, type(search)), {})
    twin.trainer = SimpleNamespace(world_size=1, precision_plugin=None, current_epoch=0, global_step=0)
    twin.theta_frozen = False
    twin.own_optimizers = twin.configure_optimizers()[0]
    weights = twin.own_optimizers[0]
    for parameter in (*twin.weights(), *twin.arch_parameters()):
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in twin.own_optimizers:  # makes its state
        optimizer.step()
    for parameter in twin.arch_parameters():
        parameter.grad = None
    weights.register_step_pre_hook(lambda *_: twin.on_before_optimizer_step(weights))
    return twin.train()
