"""FairDARTS."""

from collections.abc import Sequence
from typing import Any

from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.penalties import Regularizer, ZeroOne
from lightning_nas.relaxations import Sigmoid
from lightning_nas.selection import Threshold
from lightning_nas.spaces import Space

__all__ = ["FairDARTS"]


class FairDARTS(DifferentiableSearch):
    """Operations do not compete: sigmoid weights, pushed towards zero or one.

    Reference: Chu, Zhou, Zhang and Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture
    Search", ECCV 2020.

    Args:
        space: Name of a search space, or a space.
        zero_one: Weight of the term that pushes the weights apart.
        regularizers: More terms added to the upper loss.
        w: Optimiser of the weights.
        theta: Optimiser of the architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> FairDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts_no_none",
        zero_one: float = 10.0,
        regularizers: Sequence[Regularizer] = (),
        w: SGDCosine = SGDCosine(lr=0.005, lr_min=0.001),
        theta: ThetaRecipe = AdamTheta(lr=3e-3, betas=(0.9, 0.999)),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Sigmoid,
            hypergradient=FirstOrder(),
            regularizers=(ZeroOne(zero_one), *regularizers),
            selection=Threshold(),
            w=w,
            theta=theta,
            **settings,
        )
