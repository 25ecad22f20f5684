"""RobustDARTS."""

from typing import Any

from lightning_nas.callbacks import SharpnessMonitor
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["RobustDARTS"]


class RobustDARTS(DifferentiableSearch):
    """DARTS that stops, or starts again with more weight decay, when the upper loss becomes sharp.

    R-DARTS (L2) is DARTS with a larger ``w.weight_decay``, R-DARTS (DP) with drop-path: run a few, keep the best.

    Reference: Zela, Elsken, Saikia, Marrakchi, Brox and Hutter, "Understanding and Robustifying Differentiable
    Architecture Search", ICLR 2020.

    Args:
        space: Name of a search space, or a space.
        stop_ratio: Growth of the dominant eigenvalue at which the search stops.
        adapt: Factor of the weight decay with which the search goes on from the safe epoch; ``None`` stops (DARTS-ES).
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> RobustDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        stop_ratio: float = 1.3,
        adapt: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Softmax,
            hypergradient=FirstOrder(),
            callbacks=(SharpnessMonitor(stop_ratio=stop_ratio, adapt=adapt),),
            **settings,
        )
