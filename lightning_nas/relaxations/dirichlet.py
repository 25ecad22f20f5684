"""The Dirichlet distribution of DrNAS."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nas.arch import Sample
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Dirichlet", "sample_dirichlet"]

LEAST = 1e-3
"""The least concentration: below, samples are vertices to machine precision and the pathwise derivative overflows."""


def sample_dirichlet(concentration: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    r"""Draw points of the simplex over the open choices, with the exact pathwise gradient.

    The draw is one of normalised Gamma variables, on the CPU in double precision. With :math:`F` the distribution
    function and `f` the density of :math:`\mathrm{Beta}(\beta_j, \sum \beta - \beta_j)`,

    .. math::
        \frac{\partial x_i}{\partial \beta_j}
        = -\frac{\partial F(x_j) / \partial \beta_j}{f(x_j)} \cdot \frac{\delta_{ij} - x_i}{1 - x_j}

    A part of a Dirichlet vector, divided by its sum, has the Dirichlet distribution of its own concentrations, so what
    is closed does not matter.

    Args:
        concentration: ``(rows, choices)``, positive.
        mask: The open choices, boolean, at least one in each row.
        generator: A generator on the CPU.

    Returns:
        Rows that sum to one, zero where closed.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> mask = torch.tensor([[True, True, False]])
        >>> sample_dirichlet(torch.ones(1, 3), mask, draw)[0, 2].item()
        0.0
    """
    point: Tensor = _Draw.apply(concentration, mask, generator)
    return point


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, concentration: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        gammas = torch._standard_gamma(concentration.detach().cpu().double(), generator=generator)
        gammas = gammas.clamp(min=torch.finfo(torch.float64).tiny).masked_fill(~mask.cpu(), 0.0)
        point = (gammas / gammas.sum(-1, keepdim=True)).to(concentration)
        ctx.save_for_backward(point, concentration, mask)
        return point

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        point, concentration, mask = ctx.saved_tensors
        total = concentration.masked_fill(~mask, 0.0).sum(-1, keepdim=True).expand_as(point)
        limits = torch.finfo(point.dtype)
        inner = point.masked_fill(~mask, 0.5).clamp(limits.tiny, 1 - limits.eps)
        slope = torch._dirichlet_grad(inner, concentration.masked_fill(~mask, 1.0).contiguous(), total.contiguous())
        free = mask & (mask.sum(-1, keepdim=True) > 1)
        out = slope.masked_fill(~free, 0.0) * (grad - (point * grad).sum(-1, keepdim=True))
        return out, None, None


class Dirichlet(Relaxation):
    r"""Every candidate, with weights drawn from :math:`\mathrm{Dir}(\beta)`, :math:`\beta = \mathrm{ELU}(\alpha) + 1`.

    The gradient is the pathwise derivative, see `sample_dirichlet`. Weights are drawn for every forward pass, also in
    weight steps. Concentrations are held at 0.001 and above; draws and concentrations are computed in single precision
    at least, whatever the Trainer's precision.

    Reference: Chen, Wang, Cheng, Tang and Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = Dirichlet({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> relaxation.mean()["cell"].tolist()
        [[0.5, 0.5]]
        >>> round(relaxation().weights["cell"].sum().item(), 4)
        1.0
    """

    stochastic = True

    def concentration(self, group: str) -> Tensor:
        """The concentrations of a group, ``(rows, choices)``; closed choices have one too."""
        theta = self.theta[group]
        with torch.autocast(theta.device.type, enabled=False):
            exact = theta if theta.dtype in (torch.float32, torch.float64) else theta.float()
            return (F.elu(exact) + 1).clamp(min=LEAST)

    def forward(self) -> Sample:
        """Draw weights."""
        weights = {}
        for group in self.theta:
            weights[group] = sample_dirichlet(self.concentration(group), self.support.mask(group), self.generator)
        return Sample(weights, self.support.active())

    def expected(self) -> dict[str, Tensor]:
        r"""The mean :math:`\beta / \sum \beta` over the open choices."""
        open_only = {
            group: self.concentration(group).masked_fill(~self.support.mask(group), 0.0) for group in self.theta
        }
        return {group: beta / beta.sum(-1, keepdim=True) for group, beta in open_only.items()}
