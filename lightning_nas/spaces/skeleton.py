"""The macro skeleton of a cell space: stem, cells, classifier; supernet and derived network differ in the cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import ConvBN

__all__ = [
    "CellFactory",
    "CellNetwork",
    "CellPlace",
    "ImageNetStem",
    "NetworkSize",
    "SimpleStem",
    "StemName",
    "two_reductions",
]

StemName = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class NetworkSize:
    """How large a network of a cell space is.

    Args:
        channels: Channels of the first stage.
        cells: Number of cells (DARTS), or of cells in each stage (NAS-Bench-201).
        num_classes: Outputs of the classifier; 0 for none.
        in_channels: Channels of the pictures.
        stem: ``"cifar"`` keeps the resolution; ``"imagenet"`` reduces it at the start (4 or 8 times).
        track_stats: Whether batch normalisation keeps running statistics. Off in a supernet: the statistics of one
            path say nothing about another, so evaluation uses those of the batch.

    Raises:
        ValueError: If a number is not positive, channels are odd, or the stem is unknown.
    """

    channels: int
    cells: int
    num_classes: int = 10
    in_channels: int = 3
    stem: StemName = "cifar"
    track_stats: bool = True

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"channels={self.channels}: reductions halve them; give an even number of at least 2")
        if self.cells < 1 or self.in_channels < 1 or self.num_classes < 0:
            raise ValueError(
                f"cells={self.cells}, in_channels={self.in_channels}, num_classes={self.num_classes}:"
                " cells and in_channels must be at least 1, num_classes at least 0"
            )
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"unknown stem {self.stem!r}; allowed are 'cifar' and 'imagenet'")


@dataclass(frozen=True)
class CellPlace:
    """Where a cell stands.

    Args:
        kind: The kind of cell, for example ``"reduce"``.
        index: Its position among the cells.
        in_channels: Channels of each of its inputs.
        channels: Channels of its nodes.
        reduction: Whether edges from its inputs have stride 2.
        reduced_before: Whether its first input has twice the resolution of its second.
    """

    kind: str
    index: int
    in_channels: tuple[int, ...]
    channels: int
    reduction: bool = False
    reduced_before: bool = False


CellFactory = Callable[[CellPlace], nn.Module]
"""A function from a place to a cell; the cell's ``forward(states, sample)`` takes its inputs as a tuple of tensors."""


class SimpleStem(nn.Module):
    """3x3 convolution and batch normalisation; its output stands for each of the first cell's inputs."""

    def __init__(self, in_channels: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, channels)
        self.outputs = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(N, in, H, W)`` -> `outputs` times ``(N, channels, H, W)``."""
        return (self.conv(x),) * self.outputs


class ImageNetStem(nn.Module):
    """Two 3x3 convolutions of stride 2; with two outputs a third follows and gives the second."""

    def __init__(self, in_channels: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.stem0 = nn.Sequential(
            *ConvBN(in_channels, channels // 2, stride=2), nn.ReLU(), *ConvBN(channels // 2, channels, stride=2)
        )
        self.stem1 = nn.Sequential(nn.ReLU(), *ConvBN(channels, channels, stride=2)) if outputs > 1 else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(N, in, H, W)`` -> ``(N, channels, H/4, W/4)`` and, with two outputs, ``(N, channels, H/8, W/8)``."""
        s0 = self.stem0(x)
        return (s0,) if self.stem1 is None else (s0, self.stem1(s0))


class CellNetwork(nn.Module):
    """Stem, blocks, tail, global average pooling, classifier.

    On a CPU it works in channels-last, which the convolutions of these spaces need there to be fast (poolings and
    depthwise gradients most of all); elsewhere in the memory format of the pictures.

    Args:
        stem: Picture -> tuple of the first block's inputs.
        blocks: Cells and fixed blocks; each is called with the last states and the sample.
        num_features: Channels that the last block gives.
        num_classes: Outputs of the classifier; 0 for none (then pooled features are returned).
        reductions: How often the resolution is halved, stem included.
        tail: What stands between the last block and the pooling.
        track_stats: See `NetworkSize`.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: list[nn.Module],
        num_features: int,
        num_classes: int,
        reductions: int,
        tail: nn.Module | None = None,
        track_stats: bool = True,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.tail = tail if tail is not None else nn.Identity()
        self.num_features, self.reductions = num_features, reductions
        self.classifier: nn.Module = nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
        if not track_stats:
            _forget_statistics(self)

    def outputs(self, x: Tensor, sample: Sample | None = None) -> Iterator[Tensor]:
        """The output of each block in turn, for pictures ``(N, C, H, W)``."""
        yield from self._through(self.begin(x), sample)

    def _through(self, states: tuple[Tensor, ...], sample: Sample | None) -> Iterator[Tensor]:
        for block in self.blocks:
            out = block(states, sample)
            states = (*states[1:], out)
            yield out

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the stem makes of pictures ``(N, C, H, W)``: the first block's inputs, whatever the sample.

        Raises:
            ValueError: If the height or the width is not divisible by two as often as the network halves it.
        """
        if any(side % 2**self.reductions for side in x.shape[-2:]):
            raise ValueError(
                f"pictures of {x.shape[-2]}x{x.shape[-1]} cannot be halved {self.reductions} times; height and width"
                f" must be multiples of {2**self.reductions}: resize or pad them"
            )
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        states: tuple[Tensor, ...] = self.stem(x)
        return states

    def forward_features(self, x: Tensor, sample: Sample | None = None) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> feature map ``(N, num_features, h, w)``."""
        return self._features(self.begin(x), sample)

    def _features(self, states: tuple[Tensor, ...], sample: Sample | None) -> Tensor:
        out = states[-1]
        for out in self._through(states, sample):  # noqa: B007
            pass
        features: Tensor = self.tail(out)
        return features

    def finish(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """What `begin` gave -> logits ``(N, num_classes)``."""
        pooled = torch.mean(self._features(states, sample), dim=(2, 3))
        logits: Tensor = self.classifier(pooled)
        return logits

    def forward(self, x: Tensor, sample: Sample | None = None) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> logits ``(N, num_classes)``."""
        return self.finish(self.begin(x), sample)


def _forget_statistics(module: nn.Module) -> None:
    """Make every batch normalisation below use the statistics of the batch, in evaluation too."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def two_reductions(
    make_cell: CellFactory,
    size: NetworkSize,
    kinds: tuple[str, ...] = ("normal", "reduce"),
    nodes: int = 1,
    tail: nn.Module | None = None,
) -> CellNetwork:
    """The skeleton of NASNet's cells: reduction cells at one and two thirds of the depth, where channels double.

    Each cell takes the outputs of the last two (Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures
    for Scalable Image Recognition", CVPR 2018).

    Args:
        make_cell: Function from a place to a cell.
        size: The size of the network.
        kinds: The kinds of normal and of reduction cells; one kind for both.
        nodes: How many times the channels of its nodes a cell gives.
        tail: What stands between the last cell and the pooling.
    """
    imagenet = size.stem == "imagenet"
    width = size.channels if imagenet else 3 * size.channels
    stem: nn.Module = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, width, 2)
    blocks, c, before, last, reduced = [], size.channels, width, width, imagenet
    reductions = {size.cells // 3, 2 * size.cells // 3}
    for index in range(size.cells):
        reduce = index in reductions
        c = 2 * c if reduce else c
        place = CellPlace(kinds[-1] if reduce else kinds[0], index, (before, last), c, reduce, reduced)
        blocks.append(make_cell(place))
        before, last, reduced = last, nodes * c, reduce
    halvings = len(reductions) + 3 * imagenet
    return CellNetwork(stem, blocks, last, size.num_classes, halvings, tail, size.track_stats)
