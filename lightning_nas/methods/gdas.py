"""GDAS."""

from functools import partial
from typing import Any, Literal

from lightning_nas.callbacks import TemperatureAnnealing
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import SGDCosine
from lightning_nas.relaxations import Gumbel
from lightning_nas.spaces import Space

__all__ = ["GDAS"]


class GDAS(DifferentiableSearch):
    """One sampled path, hard in the forward pass and soft in the backward pass; the weight step comes first.

    Reference: Dong and Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019.

    Args:
        space: Name of a search space, or a space.
        tau: Temperature at the start and at the end; linear in between.
        w: Optimiser of the weights; that of the benchmark by default.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> GDAS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        tau: tuple[float, float] = (10.0, 0.1),
        w: SGDCosine = SGDCosine(lr_min=0.001, nesterov=True, weight_decay=5e-4),
        order: Literal["theta_first", "w_first"] = "w_first",
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=partial(Gumbel, tau=tau[0], hard=True),
            hypergradient=FirstOrder(),
            w=w,
            order=order,
            callbacks=(TemperatureAnnealing(*tau),),
            **settings,
        )
