"""The exact second-order gradient of DARTS."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_nas.arch import Bilevel
from lightning_nas.hypergradients.virtual import full_precision, virtual_weights

__all__ = ["Unrolled"]


@dataclass(frozen=True)
class Unrolled:
    r"""The exact gradient through one virtual step of the weights.

    .. math::
        \nabla_\alpha L_{val}(w'(\alpha), \alpha) = \partial_\alpha L_{val}(w', \alpha)
        - \eta \, \nabla^2_{\alpha, w} L_{tr}(w, \alpha) \, \nabla_{w'} L_{val}(w', \alpha)

    with :math:`w'` of `virtual_weights`; momentum and weight decay do not depend on :math:`\alpha`.

    Cost: one forward and one backward pass on the training batch, whose graph is kept; one forward pass on the
    validation batch, a backward pass through it, and one more through the graph of the kept backward pass (about two
    passes). In all some five passes against two of `FirstOrder`, and the activations of a backward pass with a graph,
    two to three times those of `FiniteDifference`. Autocast is off.

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, where `FiniteDifference`
    stands for it.

    Example:
        >>> w, theta = torch.tensor([3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
        >>> problem = Bilevel(lambda w: (w[0] - theta).square().sum() / 2, lambda w: w[0].sum(), [w], [theta], lr=0.5)
        >>> Unrolled()(problem)[0].item()
        0.5
    """

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        """Differentiate the upper loss after the virtual step."""
        with full_precision(problem):
            loss = problem.val_loss(virtual_weights(problem, create_graph=True))
            return list(torch.autograd.grad(loss, list(problem.theta), materialize_grads=True))
