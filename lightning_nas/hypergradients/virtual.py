"""One virtual step of the weights, which both second-order hypergradients look through."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from lightning_nas.arch import Bilevel

__all__ = ["full_precision", "virtual_weights"]


def full_precision(problem: Bilevel) -> AbstractContextManager[None]:
    """Autocast off on the device of the problem: differences of gradients drown in half precision."""
    tensors = [*problem.w, *problem.theta]
    return torch.autocast(tensors[0].device.type if tensors else "cpu", enabled=False)


def virtual_weights(problem: Bilevel, create_graph: bool) -> list[Tensor]:
    r"""The weights after one more step of SGD, :math:`w' = w - \eta (\mu b + \nabla_w L_{tr}(w, \alpha) + \lambda w)`.

    The weights are given to the loss, so that it runs on copies of the buffers: statistics of batch normalisation stay.
    Clipping is left out, and Nesterov's momentum counts as plain momentum, as in the published codes.

    Args:
        problem: The problem.
        create_graph: Whether the step is differentiable in `theta`.

    Example:
        >>> w = torch.tensor([3.0], requires_grad=True)
        >>> problem = Bilevel(lambda w: w[0].square().sum(), lambda w: w[0].sum(), [w], [], lr=0.5)
        >>> virtual_weights(problem, create_graph=False)[0].item()
        0.0
    """
    w = list(problem.w)
    step = torch.autograd.grad(problem.train_loss(w), w, create_graph=create_graph, materialize_grads=True)
    if problem.weight_decay:
        step = torch._foreach_add(step, w, alpha=problem.weight_decay)
    if problem.momentum and any(buffer is not None for buffer in problem.momentum_buffers):
        buffers = zip(w, problem.momentum_buffers, strict=True)
        filled = [torch.zeros_like(p) if buffer is None else buffer for p, buffer in buffers]
        step = torch._foreach_add(step, filled, alpha=problem.momentum)
    return list(torch._foreach_add(w, step, alpha=-problem.lr))
