"""Single-path one-shot."""

from typing import Any

from lightning_nas.callbacks import SupernetSelection
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import SGDCosine
from lightning_nas.relaxations import UniformPath
from lightning_nas.spaces import Space

__all__ = ["SPOS"]


class SPOS(DifferentiableSearch):
    """Weights are trained on uniformly drawn paths of a chain of blocks; a search in the supernet follows.

    The published search is evolution; here the best of many draws is taken at the end.

    Reference: Guo, Zhang, Mu, Heng, Liu, Wei and Sun, "Single Path One-Shot Neural Architecture Search with Uniform
    Sampling", ECCV 2020.

    Args:
        space: Name of a search space, or a space.
        samples: Genotypes drawn at the end.
        batches: Validation batches that each is scored on; the best are scored again on all.
        w: Optimiser of the weights.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> SPOS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "shufflenet",
        samples: int = 1000,
        batches: int = 40,
        w: SGDCosine = SGDCosine(lr=0.5, weight_decay=4e-5, clip=None),
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=UniformPath,
            hypergradient=None,
            w=w,
            callbacks=(SupernetSelection(samples, batches),),
            **settings,
        )
