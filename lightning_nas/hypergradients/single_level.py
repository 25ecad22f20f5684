"""The gradient of methods with one loss for weights and architecture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_nas.arch import Bilevel

__all__ = ["SingleLevel"]


@dataclass(frozen=True)
class SingleLevel:
    r"""The gradient of the training loss, :math:`\partial L_{train}(w, \alpha) / \partial \alpha`.

    A search takes it from the backward pass of the weight step, on the same batch and the same draw, at no cost of its
    own: one forward and one backward pass in all. It needs no split of the training set.

    Reference: Xie, Zheng, Liu and Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019.

    Example:
        >>> theta = torch.tensor([2.0], requires_grad=True)
        >>> problem = Bilevel(lambda w: theta.square().sum(), lambda w: (theta * 0).sum(), [], [theta])
        >>> SingleLevel()(problem)[0].item()
        4.0
    """

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        """Differentiate the lower loss."""
        return list(torch.autograd.grad(problem.train_loss(None), list(problem.theta), materialize_grads=True))
