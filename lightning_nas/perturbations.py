"""Perturbations: what a method does to the sample of the weight step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from lightning_nas.arch import Sample

__all__ = ["Perturbation"]


@runtime_checkable
class Perturbation(Protocol):
    """A function that moves the sample of a weight step within a neighbourhood."""

    def __call__(self, sample: Sample, loss: Callable[[Sample], Tensor]) -> Sample:
        """The perturbed sample; `loss` is the training loss on the current batch, for an attack."""
