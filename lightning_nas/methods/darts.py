"""DARTS."""

from typing import Any

from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["DARTS"]


class DARTS(DifferentiableSearch):
    """Differentiable architecture search, first order: softmax mixture, gradient at the current weights.

    The defaults are the paper's: 8 cells of 16 channels, 50 epochs of batch 64, halves of the training set.

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Args:
        space: Name of a search space, or a space.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> search = DARTS("nasbench201", channels=4, cells=1)
        >>> search.space.name, search.genotype().space
        ('nasbench201', 'nasbench201')
    """

    def __init__(self, space: str | Space = "darts", **settings: Any) -> None:
        super().__init__(space, relaxation=Softmax, hypergradient=FirstOrder(), **settings)
