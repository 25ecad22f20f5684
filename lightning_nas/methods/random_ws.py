"""Random search with weight sharing."""

from functools import partial
from typing import Any

from lightning_nas.callbacks import SupernetSelection
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.relaxations import UniformPath
from lightning_nas.spaces import Space

__all__ = ["RandomSearchWS"]


class RandomSearchWS(DifferentiableSearch):
    """Weights are trained on uniformly drawn paths; the genotype is the best of many drawn at the end.

    Reference: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019.

    Args:
        space: Name of a search space, or a space.
        samples: Genotypes drawn at the end.
        batches: Validation batches that each is scored on; the best are scored again on all.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> RandomSearchWS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "darts",
        samples: int = 1000,
        batches: int = 10,
        **settings: Any,
    ) -> None:
        super().__init__(
            space,
            relaxation=partial(UniformPath, inputs=True, reject=True),
            hypergradient=None,
            callbacks=(SupernetSelection(samples, batches),),
            **settings,
        )
