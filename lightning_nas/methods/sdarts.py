"""SDARTS."""

from typing import Any, Literal

from lightning_nas.callbacks import PerturbationRegularization
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import Space

__all__ = ["SDARTS"]


class SDARTS(DifferentiableSearch):
    """Smoothed DARTS: weights are trained under perturbed mixtures, random (RS) or adversarial (ADV).

    The perturbation goes with any other method too: add `PerturbationRegularization` to its Trainer.

    Reference: Chen and Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
    ICML 2020.

    Args:
        space: Name of a search space, or a space.
        kind: ``"random"`` or ``"adversarial"``.
        eps: Radius of the box at the start and at the end; linear in between.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> SDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        kind: Literal["random", "adversarial"] = "random",
        eps: tuple[float, float] = (0.03, 0.3),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Softmax,
            hypergradient=FirstOrder(),
            callbacks=(PerturbationRegularization(kind, *eps),),
            **settings,
        )
