"""The protocol of hypergradients, and its simplest member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_nas.arch import Bilevel

__all__ = ["FirstOrder", "Hypergradient"]


@runtime_checkable
class Hypergradient(Protocol):
    """A pure function from a bilevel problem to one gradient per architecture parameter."""

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        """The gradient of the upper loss, in the order of ``problem.theta``."""


@dataclass(frozen=True)
class FirstOrder:
    r"""The gradient at the current weights, :math:`\partial L_{val}(w, \alpha) / \partial \alpha`.

    The weights count as constants: one forward pass, and a backward pass that computes no weight gradient.

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Example:
        >>> theta = torch.tensor([2.0], requires_grad=True)
        >>> problem = Bilevel(lambda w: (theta * 0).sum(), lambda w: theta.square().sum(), [], [theta])
        >>> FirstOrder()(problem)[0].item()
        4.0
    """

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        """Differentiate the upper loss."""
        return list(torch.autograd.grad(problem.val_loss(None), list(problem.theta), materialize_grads=True))
