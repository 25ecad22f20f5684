"""Few-shot NAS."""

from typing import Any

from lightning_nas.callbacks import FewShotSplit, SupernetSelection
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import SGDCosine
from lightning_nas.relaxations import UniformPath
from lightning_nas.spaces import Space, get_space
from lightning_nas.supernet import FewShotSupernet, build_supernet

__all__ = ["FewShotNAS"]


class FewShotNAS(DifferentiableSearch):
    """A supernet of uniform paths that splits into one part for each operation of an edge, then random search in it.

    Reference: Zhao, Wang, Tian, Fonseca and Guo, "Few-shot Neural Architecture Search", ICML 2021.

    Args:
        space: Name of a search space, or a space.
        split_epoch: Epochs of the one-shot supernet.
        edge: Row of the decision that is split, in the first relaxed group.
        samples: Genotypes drawn at the end.
        batches: Validation batches that each is scored on; the best are scored again on all.
        w: Optimiser of the weights.
        channels: Channels of the supernet's first stage.
        cells: Its number of cells, or of cells a stage.
        num_classes: Number of classes.
        in_channels: Channels of the pictures.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> search = FewShotNAS("nasbench201", channels=4, cells=1)
        >>> len(search.supernet.parts)
        5
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        split_epoch: int = 600,
        edge: int = 0,
        samples: int = 1000,
        batches: int = 10,
        w: SGDCosine = SGDCosine(lr_min=0.001, nesterov=True, weight_decay=1e-4),
        channels: int = 16,
        cells: int | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        **settings: Any,
    ) -> None:
        space = get_space(space)
        one_shot = build_supernet(space, channels, cells, num_classes, in_channels)
        super().__init__(
            space,
            relaxation=UniformPath,
            hypergradient=None,
            supernet=FewShotSupernet(one_shot, space.decisions, space.relaxed[0], edge),
            channels=channels,
            cells=cells,
            num_classes=num_classes,
            in_channels=in_channels,
            w=w,
            callbacks=(FewShotSplit(split_epoch), SupernetSelection(samples, batches)),
            **settings,
        )
