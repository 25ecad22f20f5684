"""P-DARTS."""

from typing import Any

from lightning_nas.callbacks import ArchitectureWarmup, SkipDropout
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, SGDCosine, ThetaRecipe
from lightning_nas.relaxations import Softmax
from lightning_nas.selection import SkipRestriction
from lightning_nas.spaces import Space

__all__ = ["PDARTS"]


class PDARTS(DifferentiableSearch):
    """One stage of progressive DARTS: dropout on skips, a warm-up, and few skips in the genotype.

    The stages (deeper supernets with fewer candidates) are driven by `stages:` of a recipe; by hand, `keep_best` prunes
    a search and `grow` starts the next with what is left.

    Reference: Chen, Xie, Wu and Tian, "Progressive Differentiable Architecture Search: Bridging the Depth Gap between
    Search and Evaluation", ICCV 2019.

    Args:
        space: Name of a search space, or a space.
        skip_dropout: Dropout on skips at the start of the stage.
        warmup: Epochs in which the architecture parameters rest.
        max_skips: Skips that the normal cell of a genotype may keep.
        w: Optimiser of the weights.
        theta: Optimiser of the architecture parameters.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> PDARTS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        skip_dropout: float = 0.0,
        warmup: int = 10,
        max_skips: int = 2,
        w: SGDCosine = SGDCosine(lr_min=0.0),
        theta: ThetaRecipe = AdamTheta(lr=6e-4, clip=5.0),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=Softmax,
            hypergradient=FirstOrder(),
            selection=SkipRestriction(max_skips),
            w=w,
            theta=theta,
            callbacks=(ArchitectureWarmup(warmup), SkipDropout(skip_dropout, warmup=warmup)),
            **settings,
        )
