"""The softmax mixture of DARTS."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_nas.arch import Sample
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Softmax", "masked_softmax"]


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the open choices: ``(rows, choices)``, ``(rows, choices)`` boolean -> rows that sum to one.

    Example:
        >>> masked_softmax(torch.zeros(1, 3), torch.tensor([[True, True, False]])).tolist()
        [[0.5, 0.5, 0.0]]
    """
    return logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)


class Softmax(Relaxation):
    r"""Every candidate, weighted by :math:`p = \mathrm{softmax}(\alpha)` over the open choices of its row.

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = Softmax({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> relaxation().weights["cell"].tolist()
        [[0.5, 0.5]]
    """

    def forward(self) -> Sample:
        """The mixture; the same at every call."""
        weights = {group: masked_softmax(theta, self.support.mask(group)) for group, theta in self.theta.items()}
        return Sample(weights, self.support.active())

    def mean(self) -> Mapping[str, Tensor]:
        """The mixture without a graph."""
        with torch.no_grad():
            return self.forward().weights
