"""Which operations a network of a space may execute, and at which shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.flops import count_macs
from lightning_nas.ops import OpSpec, make_op
from lightning_nas.spaces import CellNetwork, CellPlace, CellSpace, ChainSpace, NetworkSize, Space
from lightning_nas.spaces.chain_skeleton import BlockPlace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["Candidate", "Layout", "Operation", "lay_out", "network_size"]


@dataclass(frozen=True, order=True)
class Operation:
    """An operation and the shape of what it takes: the key of a latency.

    Args:
        op: Its name.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        height: Height of the input.
        width: Width of the input.
        stride: 1, or 2 to halve the resolution.

    Example:
        >>> print(Operation("sep_conv_3x3", 16, 16, 32, 32, 2))
        sep_conv_3x3 from 16 to 16 channels at 32x32 with stride 2
    """

    op: str
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int

    def __str__(self) -> str:
        channels = f"from {self.in_channels} to {self.out_channels} channels"
        return f"{self.op} {channels} at {self.height}x{self.width} with stride {self.stride}"


@dataclass(frozen=True)
class Candidate:
    """A choice at one place of the network: its decision, and the operation that it executes there."""

    group: str
    row: int
    choice: int
    operation: Operation
    build: Callable[[], nn.Module]
    shortcut: bool = False
    """Whether the input can stand for the output, which decides what a skip is."""


@dataclass(frozen=True)
class Layout:
    """A network without its candidates.

    Args:
        candidates: Every choice at every place.
        skeleton: Stem, what stands before cells, fixed blocks, classifier, as a network on the meta device.
        build_skeleton: Builds the same on the present device.
        operation: The name under which the skeleton stands in a table of latencies.
    """

    candidates: tuple[Candidate, ...]
    skeleton: CellNetwork
    build_skeleton: Callable[[], CellNetwork]
    operation: Operation


def network_size(
    space: Space,
    channels: int = 16,
    cells: int | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: StemName | None = None,
) -> NetworkSize:
    """The size of a network; cells and stem are those of the space's supernet unless they are given.

    Raises:
        ValueError: If the space says no number of cells, or a number is not allowed.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> network_size(get_space("darts")).cells
        8
    """
    cells = getattr(space, "default_cells", None) if cells is None else cells
    if cells is None:
        raise ValueError(f"{space.name!r} says no number of cells; give cells")
    own: StemName = getattr(space, "default_stem", "cifar")
    return NetworkSize(channels, cells, num_classes, in_channels, own if stem is None else stem)


def lay_out(space: Space, size: NetworkSize, image_size: int | None = None) -> Layout:
    """Find every candidate at every place of the network.

    Args:
        space: A space of cells, or of a chain of blocks.
        size: The size of the network.
        image_size: Height and width of the pictures; ``None`` for the smallest that the network can halve.

    Raises:
        ValueError: If the space is another, or the pictures cannot be halved often enough.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> layout = lay_out(get_space("nasbench201"), NetworkSize(16, 1), 32)
        >>> len(layout.candidates), print(layout.candidates[-1].operation)
        avg_pool_3x3 from 64 to 64 channels at 8x8 with stride 1
        (90, None)
    """
    if isinstance(space, CellSpace):
        build = partial(space.network, partial(_CellProbe, space), size)
    elif isinstance(space, ChainSpace):
        build = partial(space.network, partial(_BlockProbe, space), size)
    else:
        raise ValueError(
            f"the cost of a network of {space.name!r} is no sum over its choices; only spaces of cells or of a chain of"
            " blocks have a table; make a CostTable of your own estimate"
        )
    with torch.device("meta"):
        skeleton = build()
    side = 2**skeleton.reductions if image_size is None else image_size
    count_macs(skeleton, (size.in_channels, side, side))  # its forward pass shows each probe its shapes
    candidates = [c for block in skeleton.blocks if isinstance(block, _Probe) for c in block.candidates()]
    name = f"skeleton of {space.name}, {size.channels} channels, {size.cells} cells, {size.stem} stem"
    operation = Operation(name, size.in_channels, size.num_classes, side, side, 1)
    return Layout(tuple(candidates), skeleton, build, operation)


class _Probe(nn.Module, ABC):
    """Stands in the place of a cell or block: does what is fixed there, and gives zeros in the shape of the output."""

    input_size: tuple[int, int]

    @abstractmethod
    def candidates(self) -> Iterator[Candidate]:
        """The choices at this place, after a forward pass."""


class _CellProbe(_Probe):
    def __init__(self, space: CellSpace, place: CellPlace) -> None:
        super().__init__()
        self.space, self.place, self.strides = space, place, space.strides(place)
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=True))

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        topology = self.space.topology
        nodes: list[Tensor] = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        self.input_size = (nodes[0].shape[2], nodes[0].shape[3])
        channels = self.place.channels * (topology.nodes if topology.output == "concat" else 1)
        return _zeros(nodes[0], channels, *self._sizes()[-1])

    def _sizes(self) -> list[tuple[int, int]]:
        """The resolution of each node."""
        topology = self.space.topology
        sizes = [self.input_size] * topology.inputs
        for node in range(topology.inputs, topology.inputs + topology.nodes):
            stride, (height, width) = self.strides[topology.rows_into(node)[0]], sizes[0]
            sizes.append((-(-height // stride), -(-width // stride)))
        return sizes

    def candidates(self) -> Iterator[Candidate]:
        kind, c, sizes = self.place.kind, self.place.channels, self._sizes()
        for row, decision in enumerate(self.space.decisions[kind]):
            spec, size = OpSpec(c, self.strides[row]), sizes[self.space.topology.edges[row][1]]
            for choice, name in enumerate(decision.choices):
                operation = Operation(name, c, c, *size, self.strides[row])
                yield Candidate(kind, row, choice, operation, partial(make_op, name, spec))


class _BlockProbe(_Probe):
    def __init__(self, space: ChainSpace, place: BlockPlace) -> None:
        super().__init__()
        self.space, self.place = space, place

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        x, stride = states[-1], self.place.stride
        self.input_size = height, width = x.shape[2], x.shape[3]
        return _zeros(x, self.place.out_channels, -(-height // stride), -(-width // stride))

    def candidates(self) -> Iterator[Candidate]:
        place, group = self.place, self.space.group
        for choice, name in enumerate(self.space.decisions[group][place.index].choices):
            operation = Operation(name, place.in_channels, place.out_channels, *self.input_size, place.stride)
            build = partial(self.space.make, name, place, affine=True)
            yield Candidate(group, place.index, choice, operation, build, place.keeps_shape)


def _zeros(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """An output, in channels-last where networks work so: on a CPU."""
    layout = torch.contiguous_format if like.device.type == "cuda" else torch.channels_last
    return torch.empty(
        len(like), channels, height, width, dtype=like.dtype, device=like.device, memory_format=layout
    ).zero_()
