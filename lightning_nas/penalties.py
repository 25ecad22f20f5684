"""Regularizers: terms that a method adds to the upper loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from lightning_nas.arch import Sample
from lightning_nas.metrics import entropy
from lightning_nas.relaxations import Relaxation

__all__ = ["Entropy", "Regularizer"]


@runtime_checkable
class Regularizer(Protocol):
    """A differentiable scalar of the relaxation and the sample of the architecture step."""

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The penalty, a scalar."""


class Entropy:
    """Mean entropy of the rows of a sample times a factor; a positive factor sharpens the mixture.

    Args:
        weight: The factor.

    Example:
        >>> import torch
        >>> from lightning_nas.arch import Decision
        >>> from lightning_nas.relaxations import Softmax
        >>> relaxation = Softmax({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> round(Entropy(2.0)(relaxation, relaxation()).item(), 4)
        1.3863
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The weighted entropy, averaged over the groups."""
        weights: Mapping[str, Tensor] = sample.weights
        terms = [entropy(rows) for rows in weights.values()]
        return self.weight * sum(terms[1:], start=terms[0]) / len(terms)
