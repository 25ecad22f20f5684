"""DSNAS."""

from typing import Any

from lightning_nas.hypergradients import SingleLevel
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, ThetaRecipe
from lightning_nas.relaxations import ScorePath
from lightning_nas.spaces import Space

__all__ = ["DSNAS"]


class DSNAS(DifferentiableSearch):
    """One sampled path whose weight of one carries the score gradient; one loss for weights and architecture.

    Reference: Hu, Xie, Zheng, Liu, Shi, Liu and Lin, "DSNAS: Direct Neural Architecture Search without Parameter
    Retraining", CVPR 2020.

    Args:
        space: Name of a search space, or a space.
        theta: Optimiser of the architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> DSNAS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        theta: ThetaRecipe = AdamTheta(lr=1e-3, weight_decay=0.0),
        **settings: Any,
    ) -> None:
        super().__init__(space, relaxation=ScorePath, hypergradient=SingleLevel(), theta=theta, **settings)
