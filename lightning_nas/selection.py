"""Selection: how a genotype is read off a relaxation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from lightning_nas.arch import Genotype
from lightning_nas.relaxations import Relaxation
from lightning_nas.spaces import Space

__all__ = ["Magnitude", "Selection"]


@runtime_checkable
class Selection(Protocol):
    """A rule that turns architecture parameters into a genotype."""

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        """The genotype that the relaxation stands for now."""


@dataclass(frozen=True)
class Magnitude:
    """Keep what has the largest expected weight, by the space's rule (DARTS: two inputs a node, never `none`).

    Args:
        exclude: Operations that are never chosen; ``None`` for those of the space.

    Example:
        >>> from lightning_nas.relaxations import Softmax
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> relaxation = Softmax(space.decisions, space.relaxed, init_std=0.0)
        >>> space.format(Magnitude().pick(space, relaxation))
        '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """

    exclude: tuple[str, ...] | None = None

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        """The genotype of the largest weights among the open choices."""
        scores = {}
        for group, weights in relaxation.mean().items():
            scores[group] = weights.masked_fill(~relaxation.support.mask(group), -torch.inf)
        for group in set(relaxation.support.decisions) - set(scores):
            mask = relaxation.support.mask(group)
            if group in (relaxation.support.active() or {}):
                scores[group] = torch.where(mask, 1.0, -torch.inf)
        return space.discretize(scores, self.exclude)
