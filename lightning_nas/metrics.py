"""Figures that describe an architecture distribution."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["entropy"]


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of rows that sum to one: ``(rows, choices)`` -> scalar; zeros contribute nothing.

    Example:
        >>> entropy(torch.tensor([[0.5, 0.5, 0.0]])).item()
        0.693147...
    """
    mean: Tensor = torch.special.entr(weights.float()).sum(dim=-1).mean()
    return mean
