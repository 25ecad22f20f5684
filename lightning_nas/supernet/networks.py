"""A supernet of a cell space: its macro skeleton with a mixed cell in each place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial as partial_of

import torch
from torch import Tensor

from lightning_nas.arch import Sample
from lightning_nas.spaces import CellNetwork, CellSpace, ChainSpace, ENASMacroSpace, ENASMicroSpace, NetworkSize, Space
from lightning_nas.spaces.one_shot1 import NASBench1Shot1Space
from lightning_nas.supernet.cells import MixedCell
from lightning_nas.supernet.chain import chain_supernet
from lightning_nas.supernet.choice_block import ChoiceBlockCell
from lightning_nas.supernet.enas_cells import ENASCell
from lightning_nas.supernet.enas_layers import ENASLayers

__all__ = ["build_supernet", "evaluate_samples"]


def build_supernet(
    space: Space,
    channels: int = 16,
    cells: int | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    partial: int = 1,
    checkpoint: bool = False,
    compile: bool = False,
    start_partial: int | None = None,
) -> CellNetwork:
    """Build the supernet of a cell space for small pictures.

    Args:
        space: The space.
        channels: Channels of the first stage.
        cells: Number of cells (DARTS) or of cells a stage (NAS-Bench-201); ``None`` for the published number.
        num_classes: Outputs of the classifier.
        in_channels: Channels of the pictures.
        partial: ``k`` of partial channels: candidates see the first ``1/k`` of the channels; 1 for all.
        checkpoint: Whether cells run again in the backward pass instead of keeping what it needs.
        compile: Whether `torch.compile` compiles the cells, at their first call for each set of active choices; not for
            relaxations that sample paths.
        start_partial: ``k`` of partial channels to begin with: the cells have the weights for `partial`, and run on a
            slice of them until `widen` opens more (Chen et al., "DrNAS", ICLR 2021). ``None`` for a fixed width.

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
    if isinstance(space, ChainSpace):
        narrowed = start_partial or partial
        return chain_supernet(space, channels, cells, num_classes, in_channels, narrowed, checkpoint, compile)
    if not isinstance(space, (CellSpace, NASBench1Shot1Space, ENASMicroSpace, ENASMacroSpace)):
        raise ValueError(f"{space.name!r} is no cell space; pass your own supernet to the search")
    if start_partial is not None and not isinstance(space, CellSpace):
        raise ValueError(f"start_partial={start_partial}: {space.name!r} has no partial channels; leave it out")
    size = NetworkSize(
        channels, space.default_cells if cells is None else cells, num_classes, in_channels, track_stats=False
    )
    if isinstance(space, (ENASMicroSpace, ENASMacroSpace)):
        return _build_enas(space, size, partial, checkpoint, compile)
    if isinstance(space, CellSpace):
        network = space.network(partial_of(MixedCell, space, partial=partial, start_partial=start_partial), size)
    elif partial == 1:
        network = space.network(partial_of(ChoiceBlockCell, space), size)
    else:
        raise ValueError(f"partial={partial}: {space.name!r} has no partial channels; leave it at 1")
    for block in network.blocks:
        if isinstance(block, MixedCell):
            block.checkpoint = checkpoint
        if compile and isinstance(block, (MixedCell, ChoiceBlockCell)):
            block.compile()
    return network


def _build_enas(
    space: ENASMicroSpace | ENASMacroSpace, size: NetworkSize, partial: int, checkpoint: bool, compile: bool
) -> CellNetwork:
    if partial != 1 or checkpoint:
        raise ValueError(
            f"partial={partial}, checkpoint={checkpoint}: {space.name!r} has neither; leave them at 1 and False"
        )
    if isinstance(space, ENASMicroSpace):
        network = space.network(partial_of(ENASCell, space), size)
    else:
        network = space.network(partial_of(ENASLayers, space), size)
    for block in network.blocks if compile else ():
        block.compile()
    return network


@torch.no_grad()
def evaluate_samples(network: CellNetwork, x: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Evaluate many samples on one batch without a graph; what does not depend on the sample is computed once.

    Args:
        network: A supernet.
        x: Pictures ``(N, C, H, W)``.
        samples: The samples, for example the vertices of genotypes, or mixtures with one candidate closed.

    Returns:
        Logits ``(samples, N, classes)``, each as ``network(x, sample)`` gives them.

    Raises:
        ValueError: If there are no samples.

    Example:
        >>> import random
        >>> from lightning_nas.spaces import get_space
        >>> space, rng = get_space("nasbench201"), random.Random(0)
        >>> samples = [space.vertex(space.sample(rng)) for _ in range(3)]
        >>> evaluate_samples(build_supernet(space, channels=4, cells=1), torch.zeros(2, 3, 8, 8), samples).shape
        torch.Size([3, 2, 10])
    """
    if not samples:
        raise ValueError("no samples were given; give at least one")
    begun = network.begin(x)
    return torch.stack([network.finish(begun, sample) for sample in samples])
