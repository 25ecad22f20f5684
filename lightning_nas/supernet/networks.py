"""A supernet of a cell space: its macro skeleton with a mixed cell in each place."""

from __future__ import annotations

from functools import partial as partial_of

from lightning_nas.spaces import CellNetwork, CellSpace, NetworkSize, Space
from lightning_nas.spaces.one_shot1 import NASBench1Shot1Space
from lightning_nas.supernet.cells import MixedCell
from lightning_nas.supernet.choice_block import ChoiceBlockCell

__all__ = ["build_supernet"]


def build_supernet(
    space: Space,
    channels: int = 16,
    cells: int | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    partial: int = 1,
) -> CellNetwork:
    """Build the supernet of a cell space for small pictures.

    Args:
        space: The space.
        channels: Channels of the first stage.
        cells: Number of cells (DARTS) or of cells a stage (NAS-Bench-201); ``None`` for the published number.
        num_classes: Outputs of the classifier.
        in_channels: Channels of the pictures.
        partial: ``k`` of partial channels: candidates see the first ``1/k`` of the channels; 1 for all.

    Returns:
        A network with ``forward(x, sample)``: pictures ``(N, in_channels, H, W)`` -> logits ``(N, num_classes)``.
        Its batch normalisation always uses the statistics of the batch.

    Raises:
        ValueError: If the space is no cell space, or a size is not allowed.

    Example:
        >>> import random, torch
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> supernet = build_supernet(space, channels=4, cells=1)
        >>> supernet(torch.zeros(2, 3, 8, 8), space.vertex(space.sample(random.Random(0)))).shape
        torch.Size([2, 10])
    """
    if not isinstance(space, (CellSpace, NASBench1Shot1Space)):
        raise ValueError(f"{space.name!r} is no cell space; pass your own supernet to the search")
    size = NetworkSize(
        channels, space.default_cells if cells is None else cells, num_classes, in_channels, track_stats=False
    )
    if isinstance(space, CellSpace):
        return space.network(partial_of(MixedCell, space, partial=partial), size)
    if partial != 1:
        raise ValueError(f"partial={partial}: {space.name!r} has no partial channels; leave it at 1")
    return space.network(partial_of(ChoiceBlockCell, space), size)
