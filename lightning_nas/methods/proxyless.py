"""ProxylessNAS."""

from functools import partial
from typing import Any

from lightning_nas.callbacks import ArchitectureWarmup
from lightning_nas.hypergradients import FirstOrder, ScoreFunction
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.relaxations import BinaryGates
from lightning_nas.spaces import Space

__all__ = ["ProxylessNAS"]


class ProxylessNAS(DifferentiableSearch):
    """Binary gates: weights train one path, the architecture two, and the others keep their probabilities.

    The latency loss is a regularizer: ``regularizers=(ExpectedCost("latency", 0.1, form="ratio", reference=80.0),)``.

    Reference: Cai, Zhu and Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR
        2019.

    Args:
        space: Name of a search space, or a space.
        reinforce: Whether the architecture is trained by REINFORCE on the validation loss in place of the gates'
            gradient.
        warmup: Epochs in which the architecture parameters rest.
        theta_every: Weight steps to one architecture step.
        w: Optimiser of the weights.
        theta: Optimiser of the architecture parameters; without a first moment, or operations that were not drawn
            drift.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> ProxylessNAS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "proxyless_mobile",
        reinforce: bool = False,
        warmup: int = 1,
        theta_every: int = 5,
        w: SGDCosine = SGDCosine(nesterov=True, weight_decay=4e-5, clip=None),
        theta: ThetaRecipe = AdamTheta(lr=1e-3, betas=(0.0, 0.999), weight_decay=0.0),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=partial(BinaryGates, paths=1 if reinforce else 2),
            hypergradient=ScoreFunction(samples=10, reward="loss") if reinforce else FirstOrder(),
            w=w,
            theta=theta,
            theta_every=theta_every,
            callbacks=(ArchitectureWarmup(warmup),),
            **settings,
        )
