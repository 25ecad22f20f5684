"""PC-DARTS."""

from typing import Any

from lightning_nas.callbacks import ArchitectureWarmup
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["PCDARTS"]


class PCDARTS(DifferentiableSearch):
    """Candidates see a quarter of the channels; nodes' inputs carry architecture parameters of their own.

    Reference: Xu, Xie, Zhang, Chen, Qi, Tian and Xiong, "PC-DARTS: Partial Channel Connections for Memory-Efficient
    Architecture Search", ICLR 2020.

    Args:
        space: Name of a search space, or a space.
        partial: The candidates see the first ``1/partial`` of the channels.
        warmup: Epochs in which the architecture parameters rest.
        w: Optimiser of the weights.
        theta: Optimiser of the architecture parameters.
        relax_inputs: Whether inputs of nodes carry architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> PCDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        partial: int = 4,
        warmup: int = 15,
        w: SGDCosine = SGDCosine(lr=0.1),
        theta: ThetaRecipe = AdamTheta(lr=6e-4),
        relax_inputs: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Softmax,
            hypergradient=FirstOrder(),
            partial=partial,
            w=w,
            theta=theta,
            relax_inputs=relax_inputs,
            callbacks=(ArchitectureWarmup(warmup),),
            **settings,
        )
