"""Figures that describe an architecture distribution."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["entropy"]


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of rows that sum to one: ``(rows, choices)`` -> scalar; zeros give no value and no gradient.

    Example:
        >>> entropy(torch.tensor([[0.5, 0.5, 0.0]])).item()
        0.693147...
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    positive = torch.where(weights > 0, weights, 1.0)  # at zero the slope is infinite
    mean: Tensor = torch.special.entr(positive).sum(dim=-1).mean()
    return mean
