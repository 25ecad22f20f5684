"""NASP."""

from typing import Any

from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Proximal
from lightning_nas.spaces import Space

__all__ = ["NASP"]


class NASP(DifferentiableSearch):
    """Proximal steps: the weights train one path, the architecture gradient is taken at its vertex.

    Reference: Yao, Xu, Tu and Zhu, "Efficient Neural Architecture Search via Proximal Iterations", AAAI 2020.

    Args:
        space: Name of a search space, or a space.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> NASP("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        **settings: Any,
    ) -> None:
        super().__init__(space, relaxation=Proximal, hypergradient=FirstOrder(), **settings)
