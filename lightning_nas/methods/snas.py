"""SNAS."""

from functools import partial
from typing import Any

from lightning_nas.callbacks import TemperatureAnnealing
from lightning_nas.hypergradients import SingleLevel
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, ThetaRecipe
from lightning_nas.relaxations import Gumbel
from lightning_nas.spaces import Space

__all__ = ["SNAS"]


class SNAS(DifferentiableSearch):
    """Stochastic search: candidates weighted by a Gumbel-softmax draw, one loss for weights and architecture.

    Both are trained on the whole training set; plain batches ``(x, y)`` are taken as well as pairs. The published code
    reads the best operation off every edge; here the space's own rule decides (DARTS: two inputs a node).
    The resource penalty is ``regularizers=(ExpectedCost("params", 1e-2, of="sample"),)``.

    Reference: Xie, Zheng, Liu and Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019.

    Args:
        space: Name of a search space, or a space.
        tau: Temperature at the start and at the end; linear in between.
        theta: Optimiser of the architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> SNAS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        tau: tuple[float, float] = (1.0, 0.03),
        theta: ThetaRecipe = AdamTheta(clip=10.0),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=partial(Gumbel, tau=tau[0], init_mean=1.0, init_std=0.01),
            hypergradient=SingleLevel(),
            theta=theta,
            callbacks=(TemperatureAnnealing(*tau),),
            **settings,
        )
