"""beta-DARTS."""

from collections.abc import Sequence
from typing import Any

from lightning_nas.callbacks import PenaltyAnnealing
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.penalties import BetaDecay, Regularizer
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["BetaDARTS"]


class BetaDARTS(DifferentiableSearch):
    """DARTS with a decay of the softmax itself, which grows over the search.

    Reference: Ye, Li, Li, Yuan, Fan, Zhang, Wang and Ouyang, "beta-DARTS: Beta-Decay Regularization for Differentiable
    Architecture Search", CVPR 2022.

    Args:
        space: Name of a search space, or a space.
        beta: Weight of the decay at the start and at the end; linear in between.
        regularizers: More terms added to the upper loss.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> BetaDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        beta: tuple[float, float] = (0.0, 50.0),
        regularizers: Sequence[Regularizer] = (),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Softmax,
            hypergradient=FirstOrder(),
            regularizers=(BetaDecay(beta[0]), *regularizers),
            callbacks=(PenaltyAnnealing(*beta),),
            **settings,
        )
