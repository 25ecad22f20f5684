"""The part that all chain spaces share: a sequence of blocks, each with a choice of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.ops.mobile import BlockSpec, ConvNormAct, Norm
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.chain_skeleton import BlockFactory, BlockPlace, ChainStem, Shortcut, Stage, places_of
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.skeleton import CellNetwork, NetworkSize, StemName

__all__ = ["ChainSpace"]


class ChainSpace(IndependentSpace):
    """A space of networks that are one chain of blocks, each chosen by itself.

    The only group is ``"blocks"``, with a decision ``"blocks/{i}"`` for each block; rows may differ in their number of
    choices. Depth belongs to the decisions, so a shorter network is a space with other stages.

    Args:
        name: The space's name.
        channels: Channels that the first block takes in the published network.
        stages: Channels, number of blocks and first stride of each stage.
        tail: Channels of the last 1x1 convolution.

    Raises:
        ValueError: If there are no stages, or a number in them is not allowed.
    """

    group: ClassVar[str] = "blocks"
    ops: ClassVar[Mapping[str, Callable[[BlockSpec], nn.Module]]]
    """Name of a candidate -> function that builds it."""
    act: ClassVar[Callable[[], nn.Module]]
    """The activation of stem and last convolution."""
    identity: ClassVar[str | None] = None
    """The candidate that passes its input on where the shape stays."""
    shortcut: ClassVar[Shortcut] = "none"
    """What adds its input to its output where the shape stays."""
    default_stem: ClassVar[StemName] = "imagenet"
    """The stem of the published networks."""
    search_affine: ClassVar[bool] = True
    """Whether batch normalisation of the supernet has a scale and a shift."""
    eps: ClassVar[float] = 1e-5
    """What batch normalisation adds to the variance."""

    def __init__(self, name: str, channels: int, stages: Sequence[tuple[int, int, int]], tail: int) -> None:
        self.stages, self.tail = tuple(Stage(*stage) for stage in stages), tail
        for stage in self.stages:
            if stage.channels < 2 or stage.channels % 2 or stage.depth < 1 or stage.stride not in (1, 2):
                raise ValueError(f"{stage}: give an even number of channels, at least one block, and stride 1 or 2")
        if not self.stages or channels < 2 or channels % 2 or tail < 1:
            raise ValueError(
                f"channels={channels}, {len(self.stages)} stages, tail={tail}: give an even number of channels, at"
                " least one stage and a positive tail"
            )
        self.places = tuple(places_of(channels, self.stages))
        self.derived_channels, self.default_cells, self.derived_cells = channels, len(self.places), len(self.places)
        rows = tuple(Decision(f"{self.group}/{place.index}", self.choices(place)) for place in self.places)
        super().__init__(name, {self.group: rows})

    def choices(self, place: BlockPlace) -> tuple[str, ...]:
        """The candidates of a block; by default all."""
        return tuple(self.ops)

    # --- networks

    def make(self, name: str, place: BlockPlace, affine: bool) -> nn.Module:
        """A candidate of a block, without the shortcut around it."""
        norm = Norm(affine, self.eps)
        return self.ops[name](BlockSpec(place.in_channels, place.out_channels, place.stride, norm, place.keeps_shape))

    def width(self, channels: int, size: NetworkSize) -> int:
        """Published channels in proportion to `NetworkSize.channels`, rounded to an even number."""
        return max(2, 2 * round(channels * size.channels / (2 * self.derived_channels)))

    def stem(self, size: NetworkSize, norm: Norm) -> ChainStem:
        """What stands before the first block: a 3x3 convolution."""
        return ChainStem(self.first_conv(size, size.channels, norm))

    def first_conv(self, size: NetworkSize, channels: int, norm: Norm) -> nn.Module:
        """A 3x3 convolution of the pictures; stride 2, or 1 if the stem is to keep the resolution."""
        stride = 2 if size.stem == "imagenet" else 1
        return ConvNormAct(size.in_channels, channels, 3, stride, norm=norm, act=type(self).act)

    def network(self, make_block: BlockFactory, size: NetworkSize) -> CellNetwork:
        """Stem, a block from `make_block` in each place, 1x1 convolution, pooling, classifier.

        Args:
            make_block: Function from a place to a block.
            size: Its `channels` are those that the first block takes, and all widths are in proportion; its `cells`
                are the number of blocks. The published stem is ``"imagenet"``, with stride 2.

        Raises:
            ValueError: If the number of blocks is not that of the decisions.
        """
        if size.cells != len(self.places):
            raise ValueError(
                f"cells={size.cells}: {self.name!r} has {len(self.places)} blocks, one for each decision; leave cells"
                " at None, or make the space with other stages"
            )
        norm = Norm(self.search_affine or size.track_stats, self.eps)
        blocks = [make_block(self._scaled(place, size)) for place in self.places]
        before, features = self.width(self.stages[-1].channels, size), self.width(self.tail, size)
        tail = ConvNormAct(before, features, norm=norm, act=type(self).act)
        halvings = (size.stem == "imagenet") + sum(place.stride == 2 for place in self.places)
        stem = self.stem(size, norm)
        return CellNetwork(stem, blocks, features, size.num_classes, halvings, tail, size.track_stats)

    def _scaled(self, place: BlockPlace, size: NetworkSize) -> BlockPlace:
        before, after = self.width(place.in_channels, size), self.width(place.out_channels, size)
        return replace(place, in_channels=before, out_channels=after)

    # --- genotypes

    @property
    def rows(self) -> tuple[Decision, ...]:
        """The decision of each block."""
        return self.decisions[self.group]

    def names(self, genotype: Genotype) -> tuple[str, ...]:
        """The candidate in each block."""
        picks = self.check(genotype).picks
        return tuple(row.choices[picks[row.name][0]] for row in self.rows)

    def from_names(self, names: Sequence[str]) -> Genotype:
        """The genotype with the given candidate in each block.

        Raises:
            ValueError: If their number is another, or a block has no such candidate.
        """
        if len(names) != len(self.rows):
            raise ValueError(f"{self.name!r} has {len(self.rows)} blocks, not {len(names)}; give a candidate for each")
        for row, name in zip(self.rows, names, strict=True):
            if name not in row.choices:
                raise ValueError(f"{row.name} of {self.name!r} has no {str(name)[:60]!r}; allowed are {row.choices}")
        return self.from_indices([row.choices.index(name) for row, name in zip(self.rows, names, strict=True)])

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype whose skipped blocks come last among those that keep the shape of what they take.

        Where in such a row a block is skipped makes no difference to the network.
        """
        names: list[str] = []
        skipped: list[str] = []
        for place, name in zip(self.places, self.names(genotype), strict=True):
            if not place.keeps_shape:
                names, skipped = names + skipped, []
            (skipped if place.keeps_shape and name == self.identity else names).append(name)
        return self.from_names(names + skipped)

    def format(self, genotype: Genotype) -> str:
        """JSON in one line: the name of the space, and the candidate in each block."""
        return json.dumps({"space": self.name, "blocks": list(self.names(genotype))})

    def parse(self, text: str) -> Genotype:
        """Read what `format` or `to_json` wrote.

        Raises:
            ValueError: If it is no genotype of this space; the message says what is wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            wanted = f'{{"space": "{self.name}", "blocks": ["{next(iter(self.ops))}", ...]}}'
            raise ValueError(f"not a genotype of {self.name!r}: {text[:60]!r}; expected {wanted}") from None
        if not isinstance(data, dict) or "blocks" not in data:
            return self.from_json(text)
        if data.get("space") != self.name:
            given = str(data.get("space"))[:60]
            raise ValueError(f"a genotype of space {given!r} was given to space {self.name!r}; use its own")
        if not isinstance(data["blocks"], list):
            raise ValueError(f"blocks must be a list of candidates, not {str(data['blocks'])[:60]!r}")
        return self.from_names(data["blocks"])

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """A chain for each stage, with the candidates on its edges."""
        graphs = {}
        names = self.names(genotype)
        for number in range(1, len(self.stages) + 1):
            ops = [name for place, name in zip(self.places, names, strict=True) if place.stage == number]
            nodes = ("input", *map(str, range(1, len(ops))), "output")
            graphs[f"stage{number}"] = CellGraph(nodes, tuple((k, k + 1, op) for k, op in enumerate(ops)))
        return graphs
