"""The second-order gradient of DARTS by a finite difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_nas.arch import Bilevel
from lightning_nas.hypergradients.virtual import full_precision, virtual_weights

__all__ = ["FiniteDifference"]


@dataclass(frozen=True)
class FiniteDifference:
    r"""The gradient through one virtual step, with the mixed derivative as a central difference.

    With :math:`w'` of `virtual_weights`, :math:`v = \nabla_{w'} L_{val}(w', \alpha)` and
    :math:`\epsilon = r / \lVert v \rVert` (the norm over all weights),

    .. math::
        \partial_\alpha L_{val}(w', \alpha) - \eta \,
        \frac{\partial_\alpha L_{tr}(w + \epsilon v, \alpha) - \partial_\alpha L_{tr}(w - \epsilon v, \alpha)}
        {2 \epsilon}

    which differs from `Unrolled` by :math:`O(\epsilon^2)`.

    Cost: one forward and backward pass on the training batch for :math:`w'`; one on the validation batch, for
    :math:`w'` and :math:`\alpha`; two forward passes on the training batch whose backward passes are for
    :math:`\alpha` alone (no weight has a gradient there). In all some eight passes against two of `FirstOrder`, and the
    memory of an ordinary step with two more copies of the weights. Autocast is off.

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Args:
        r: Length of the step in the space of weights. The error falls with its square until round-off sets in: in
            single precision below about 0.01.

    Raises:
        ValueError: If it is not positive and finite.

    Example:
        >>> w, theta = torch.tensor([3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
        >>> problem = Bilevel(lambda w: (w[0] - theta).square().sum() / 2, lambda w: w[0].sum(), [w], [theta], lr=0.5)
        >>> round(FiniteDifference()(problem)[0].item(), 3)
        0.5
    """

    r: float = 1e-2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.r) and self.r > 0):
            raise ValueError(f"r={self.r} must be positive and finite; 0.01 is published")

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        """Differentiate the upper loss, and the lower one at two points."""
        theta = list(problem.theta)
        with full_precision(problem):
            moved = [p.detach().requires_grad_() for p in virtual_weights(problem, create_graph=False)]
            both = torch.autograd.grad(problem.val_loss(moved), theta + moved, materialize_grads=True)
            direct, direction = both[: len(theta)], both[len(theta) :]
            del moved
            norm = nn.utils.get_total_norm(direction)
            step = self.r / norm.clamp(min=torch.finfo(norm.dtype).tiny ** 0.5)
            shift = torch._foreach_mul(direction, step)
            w = [p.detach() for p in problem.w]
            plus = _slope(problem, torch._foreach_add(w, shift))
            minus = _slope(problem, torch._foreach_sub(w, shift))
            mixed = torch._foreach_div(torch._foreach_sub(plus, minus), 2 * step)
            return list(torch._foreach_add(direct, mixed, alpha=-problem.lr))


def _slope(problem: Bilevel, w: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the lower loss for `theta` alone, at given weights."""
    theta, loss = list(problem.theta), problem.train_loss(w)
    if not loss.requires_grad:  # theta does not reach it
        return [torch.zeros_like(p) for p in theta]
    return list(torch.autograd.grad(loss, theta, materialize_grads=True))
