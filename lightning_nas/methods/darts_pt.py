"""DARTS with perturbation-based selection."""

from typing import Any

from lightning_nas.callbacks import PerturbationSelection
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["DARTSPT"]


class DARTSPT(DifferentiableSearch):
    """DARTS whose genotype is chosen by what the supernet loses without each operation.

    The selection goes with any other method too: add `PerturbationSelection` to its Trainer. Set `max_epochs` to
    ``start_epoch`` plus what `epochs_needed` says.

    Reference: Wang, Cheng, Chen, Tang and Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        start_epoch: Epochs before the first decision.
        every_n_epochs: Epochs of tuning between two decisions.
        fixed_alpha: Whether the architecture parameters are never trained.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> DARTSPT("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts_no_none",
        start_epoch: int = 50,
        every_n_epochs: int = 5,
        fixed_alpha: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Softmax,
            hypergradient=None if fixed_alpha else FirstOrder(),
            callbacks=(PerturbationSelection(start_epoch, every_n_epochs),),
            **settings,
        )
