"""DrNAS."""

from collections.abc import Sequence
from typing import Any

from lightning_nas.callbacks import ProgressiveChannelPruning
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.penalties import DirichletKL, Regularizer
from lightning_nas.relaxations import Dirichlet
from lightning_nas.spaces import Space

__all__ = ["DrNAS"]


class DrNAS(DifferentiableSearch):
    """Mixtures drawn from a Dirichlet distribution whose concentrations are learnt; progressive stages as an option.

    Reference: Chen, Wang, Cheng, Tang and Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        kl: Weight of the divergence from the flat Dirichlet; 0 for the weight decay of `theta` alone.
        regularizers: More terms added to the upper loss.
        stages: Callback that prunes operations and widens partial channels between stages, for example
            ``ProgressiveChannelPruning``; ``None`` for one stage.
        w: Optimiser of the weights.
        theta: Optimiser of the architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> DrNAS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts_no_none",
        kl: float = 0.0,
        regularizers: Sequence[Regularizer] = (),
        stages: ProgressiveChannelPruning | None = None,
        w: SGDCosine = SGDCosine(lr=0.1),
        theta: ThetaRecipe = AdamTheta(lr=6e-4),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Dirichlet,
            hypergradient=FirstOrder(),
            regularizers=(*((DirichletKL(kl),) if kl else ()), *regularizers),
            w=w,
            theta=theta,
            callbacks=() if stages is None else (stages,),
            **settings,
        )
