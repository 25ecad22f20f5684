"""OLES."""

from typing import Any

from lightning_nas.callbacks import OLES
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["OLESDARTS"]


class OLESDARTS(DifferentiableSearch):
    """DARTS that freezes an operation's weights once training and validation pull them apart.

    Reference: Jiang, Ji, Zhu, Yuan and Huang, "Operation-Level Early Stopping for Robustifying Differentiable NAS",
    NeurIPS 2023.

    Args:
        space: Name of a search space, or a space.
        threshold: Mean cosine of the two gradients below which an operation is frozen.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> OLESDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        threshold: float = 0.4,
        **settings: Any,
    ) -> None:
        super().__init__(
            space, relaxation=Softmax, hypergradient=FirstOrder(), callbacks=(OLES(threshold),), **settings
        )
