"""The searched block of a chain: a weighted sum of its active candidates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial as partial_of
from functools import reduce

import torch
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import Zero
from lightning_nas.spaces import CellNetwork, NetworkSize
from lightning_nas.spaces.chain_skeleton import BlockPlace
from lightning_nas.spaces.chain_space import ChainSpace
from lightning_nas.spaces.skeleton import StemName
from lightning_nas.supernet.checkpointed import Checkpointed

__all__ = ["MixedBlock", "chain_supernet"]


class MixedBlock(Checkpointed):
    r"""A block with all its candidates; the sample says how much of each, and which to execute.

    With candidates :math:`f_k` of weights :math:`p_k` and the active choices `A`,

    .. math:: y = \sum_{k \in A} p_k f_k(x) + s x

    where the shape stays, :math:`s` is 1 if the space puts its shortcut around the block (ProxylessNAS), and
    :math:`\sum_{k \in A} p_k` if each candidate has one (FBNet), which makes of a skipped block the identity. With one
    active candidate only that one runs; one that is zero costs nothing.

    Parameters are named ``ops.{choice}`` as in the block of a derived network, so that weights load there.

    Args:
        space: The space.
        place: Where the block stands.

    Attributes:
        checkpoint: Whether the block keeps only its input for the backward pass and runs again there.

    Shape:
        - states: a tuple of one tensor ``(N, C_in, H, W)``
        - output: ``(N, C_out, H / stride, W / stride)``

    Example:
        >>> import torch
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("proxyless_mobile")
        >>> block = MixedBlock(space, space.places[1])
        >>> x, only_zero = torch.randn(2, 24, 8, 8), Sample({}, {"blocks": ((0,), (6,))})
        >>> block((x,), Sample({})).shape, torch.equal(block((x,), only_zero), x)
        (torch.Size([2, 24, 8, 8]), True)
    """

    def __init__(self, space: ChainSpace, place: BlockPlace) -> None:
        super().__init__()
        self.group, self.row = space.group, place.index
        self.stride, self.out_channels = place.stride, place.out_channels
        self.shortcut = space.shortcut if place.keeps_shape else "none"
        names = space.rows[place.index].choices
        self.ops = nn.ModuleList(space.make(name, place, space.search_affine) for name in names)

    def _run(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        x = states[-1]
        rows = sample.open(self.group)
        active: Sequence[int] = range(len(self.ops)) if rows is None else rows[self.row]
        weights = None if self.group not in sample.weights else sample.weights[self.group][self.row].to(x.dtype)
        terms = [
            self.ops[k](x) if weights is None else weights[k] * self.ops[k](x)
            for k in active
            if not isinstance(self.ops[k], Zero)
        ]
        if self.shortcut == "block":
            terms.append(x)
        elif self.shortcut == "candidate":
            terms.append(x * (len(active) if weights is None else weights[list(active)].sum()))
        return reduce(torch.add, terms) if terms else self._nothing(x)

    def _nothing(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.new_zeros(n, self.out_channels, -(-h // self.stride), -(-w // self.stride))


def chain_supernet(
    space: ChainSpace,
    channels: int | None = None,
    cells: int | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    partial: int = 1,
    checkpoint: bool = False,
    compile: bool = False,
    stem: StemName | None = None,
) -> CellNetwork:
    """The supernet of a chain space.

    Args:
        space: The space.
        channels: Channels that the first block takes, to which all widths are in proportion; ``None`` for the
            published number (16 in all three mobile spaces).
        cells: Number of blocks; only that of the decisions is allowed, and ``None`` stands for it.
        num_classes: Outputs of the classifier.
        in_channels: Channels of the pictures.
        partial: Chains have no partial channels: 1.
        checkpoint: Whether blocks run again in the backward pass instead of keeping what it needs.
        compile: Whether `torch.compile` compiles the blocks.
        stem: ``"imagenet"`` with stride 2, ``"cifar"`` with stride 1; ``None`` for the published one, of stride 2.

    Raises:
        ValueError: If a size is not allowed, or `partial` is not 1.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> supernet = chain_supernet(get_space("shufflenet"), channels=4)
        >>> supernet(torch.zeros(2, 3, 32, 32), Sample({})).shape
        torch.Size([2, 10])
    """
    if partial != 1:
        raise ValueError(f"partial={partial}: {space.name!r} has no partial channels; leave it at 1")
    size = NetworkSize(
        space.derived_channels if channels is None else channels,
        space.default_cells if cells is None else cells,
        num_classes,
        in_channels,
        space.default_stem if stem is None else stem,
        track_stats=False,
    )
    network = space.network(partial_of(MixedBlock, space), size)
    for block in network.blocks:
        if isinstance(block, MixedBlock):
            block.checkpoint = checkpoint
        if compile:
            block.compile()
    return network
