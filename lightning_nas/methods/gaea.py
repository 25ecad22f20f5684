"""GAEA."""

from typing import Any

from lightning_nas.hypergradients import FirstOrder, SingleLevel
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import ExponentiatedGradient, SGDCosine, ThetaRecipe
from lightning_nas.relaxations import Simplex
from lightning_nas.spaces import Space

__all__ = ["GAEA"]


class GAEA(DifferentiableSearch):
    """Architecture parameters on the simplex, moved by exponentiated gradient.

    GAEA PC-DARTS is this with ``partial=4, relax_inputs=True``.

    Reference: Li, Khodak, Balcan and Talwalkar, "Geometry-Aware Gradient Algorithms for Neural Architecture Search",
    ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        single_level: Whether weights and architecture share one loss, as the best published runs do.
        theta: Optimiser of the architecture parameters.
        w: Optimiser of the weights.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> GAEA("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        single_level: bool = False,
        theta: ThetaRecipe = ExponentiatedGradient(),
        w: SGDCosine = SGDCosine(lr=0.1),
        **settings: Any,
    ) -> None:
        gradient = SingleLevel() if single_level else FirstOrder()
        super().__init__(space, relaxation=Simplex, hypergradient=gradient, theta=theta, w=w, **settings)
