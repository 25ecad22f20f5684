"""FBNet."""

from functools import partial
from typing import Any

from lightning_nas.callbacks import ArchitectureWarmup, TemperatureAnnealing
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.relaxations import Gumbel
from lightning_nas.spaces import Space

__all__ = ["FBNet"]


class FBNet(DifferentiableSearch):
    """All candidates, weighted by a draw of the Gumbel-softmax whose temperature decays.

    The latency loss is a regularizer, see `ExpectedCost`.

    Reference: Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
    Search", CVPR 2019.

    Args:
        space: Name of a search space, or a space.
        tau: Temperature at the start and at the end; exponential in between.
        warmup: Epochs in which the architecture parameters rest.
        w: Optimiser of the weights.
        theta: Optimiser of the architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> FBNet("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "fbnet",
        tau: tuple[float, float] = (5.0, 0.09),
        warmup: int = 10,
        w: SGDCosine = SGDCosine(lr=0.1, weight_decay=1e-4, clip=None),
        theta: ThetaRecipe = AdamTheta(lr=0.01, betas=(0.9, 0.999), weight_decay=5e-4),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=partial(Gumbel, tau=tau[0]),
            hypergradient=FirstOrder(),
            w=w,
            theta=theta,
            callbacks=(ArchitectureWarmup(warmup), TemperatureAnnealing(*tau, kind="exponential")),
            **settings,
        )
