"""DARTS."""

from typing import Any, Literal

from lightning_nas.hypergradients import FiniteDifference, FirstOrder, Unrolled
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["DARTS"]

_GRADIENTS: dict[str, type[FirstOrder] | type[FiniteDifference] | type[Unrolled]] = {
    "first": FirstOrder,
    "second": FiniteDifference,
    "exact": Unrolled,
}


class DARTS(DifferentiableSearch):
    """Differentiable architecture search: softmax mixture; the gradient at the current weights, or one step ahead.

    The defaults are the paper's: 8 cells of 16 channels, 50 epochs of batch 64, halves of the training set.

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Args:
        space: Name of a search space, or a space.
        gradient: ``"first"`` order; ``"second"`` order by finite difference, as published; or the ``"exact"`` second
            order by automatic differentiation.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> search = DARTS("nasbench201", channels=4, cells=1)
        >>> search.space.name, search.genotype().space
        ('nasbench201', 'nasbench201')
    """

    def __init__(
        self, space: str | Space = "darts", gradient: Literal["first", "second", "exact"] = "first", **settings: Any
    ) -> None:
        if gradient not in _GRADIENTS:
            raise ValueError(f"unknown gradient {gradient!r}; allowed are {', '.join(_GRADIENTS)}")
        super().__init__(space, relaxation=Softmax, hypergradient=_GRADIENTS[gradient](), **settings)
