"""Where the blocks of a chain stand, and what the first of them takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

__all__ = ["BlockFactory", "BlockPlace", "ChainStem", "Shortcut", "Stage", "places_of"]

Shortcut = Literal["none", "candidate", "block"]
"""What adds its input to its output where both have one shape: nothing, each candidate, or the block as a whole."""


class Stage(NamedTuple):
    """Blocks of one width: their channels, their number, and the stride of the first."""

    channels: int
    depth: int
    stride: int


@dataclass(frozen=True)
class BlockPlace:
    """Where a block stands.

    Args:
        index: Its position, the row of its decision.
        stage: The stage that it belongs to, from 1.
        in_channels: Channels of its input.
        out_channels: Channels of its output.
        stride: 1, or 2 to halve the resolution.
        keeps_shape: Whether stride and published channels leave the shape of the input as it is.
    """

    index: int
    stage: int
    in_channels: int
    out_channels: int
    stride: int
    keeps_shape: bool


BlockFactory = Callable[[BlockPlace], nn.Module]
"""A function from a place to a block; the block's ``forward(states, sample)`` takes its input as a tuple of one."""


class ChainStem(nn.Sequential):
    """A sequence whose output is the tuple that the first block takes."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(N, C, H, W)`` -> a tuple of one ``(N, C', H', W')``."""
        for part in self:
            x = part(x)
        return (x,)


def places_of(channels: int, stages: Sequence[Stage]) -> Iterator[BlockPlace]:
    """The places of all blocks, the first of which takes `channels`.

    Example:
        >>> [(place.in_channels, place.stride, place.keeps_shape) for place in places_of(16, [Stage(24, 2, 2)])]
        [(16, 2, False), (24, 1, True)]
    """
    index = 0
    for number, stage in enumerate(stages, start=1):
        for position in range(stage.depth):
            stride = 1 if position else stage.stride
            keeps_shape = stride == 1 and channels == stage.channels
            yield BlockPlace(index, number, channels, stage.channels, stride, keeps_shape)
            index, channels = index + 1, stage.channels
