"""DARTS-."""

from functools import partial
from typing import Any

from lightning_nas.callbacks import AuxiliarySkipAnnealing
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["DARTSMinus"]


class DARTSMinus(DifferentiableSearch):
    """DARTS with an auxiliary skip on every edge, whose weight fades to zero.

    On edges of stride 2 the auxiliary skip shares the factorized reduction of the candidate `skip_connect`; edges
    without that candidate get none.

    Reference: Chu, Wang, Zhang, Lu, Wei and Yan, "DARTS-: Robustly Stepping out of Performance Collapse Without
    Indicators", ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        beta: Weight of the auxiliary skip at the start and at the end; linear in between.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> DARTSMinus("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        beta: tuple[float, float] = (1.0, 0.0),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=partial(Softmax, auxiliary_skip=beta[0]),
            hypergradient=FirstOrder(),
            callbacks=(AuxiliarySkipAnnealing(*beta),),
            **settings,
        )
