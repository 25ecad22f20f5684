"""The macro space of ENAS (Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from lightning_nas.arch import Decision, Genotype
from lightning_nas.ops import ConvBNReLU, OpSpec, make_op
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.enas import ENASSpace
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, ImageNetStem, NetworkSize, SimpleStem

__all__ = ["ENAS_MACRO_OPS", "ENASMacroSpace", "make_macro_op"]

ENAS_MACRO_OPS = ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")


class ENASMacroSpace(ENASSpace):
    """A whole network: each layer has an operation on the layer before, and skips from any of all layers before.

    Where a layer is not the first, what its operation gives and what its skips bring are concatenated, and a 1x1
    convolution brings them to the channels of one layer. The layers stand in three thirds; between them every output
    that is still needed is halved by a factorized reduction of its own.

    The groups are ``"ops"`` (a row for each layer) and ``"skips"`` (a row for each pair of a layer and an earlier one,
    layer by layer, with the choices `no` and `yes`). Both are relaxed. Layers are numbered from 0, and the order of the
    operations is that of the released code, so that its strings of integers can be read. A skip from layer `j` brings
    that layer's output, as in the paper; in the released supernet it brings what enters layer `j`.

    Args:
        layers: Number of layers; 12 as published. Other numbers are part of the space's name.

    Raises:
        ValueError: If there are fewer than three layers.

    Example:
        >>> import random
        >>> space = ENASMacroSpace()
        >>> {group: len(rows) for group, rows in space.decisions.items()}
        {'ops': 12, 'skips': 66}
        >>> ENASMacroSpace(3).format(ENASMacroSpace(3).parse("0  3 1  5 0 1"))
        'enas_macro_3: 0 3 1 5 0 1'
    """

    derived_channels: ClassVar[int] = 96

    def __init__(self, layers: int = 12) -> None:
        if layers < 3:
            raise ValueError(f"layers={layers}: the layers stand in three thirds; give at least 3")
        self.layers = self.default_cells = self.derived_cells = layers
        self.pairs = tuple((layer, earlier) for layer in range(layers) for earlier in range(layer))
        decisions = {
            "ops": tuple(Decision(f"ops/{layer}", ENAS_MACRO_OPS) for layer in range(layers)),
            "skips": tuple(Decision(f"skips/{layer}<-{earlier}", ("no", "yes")) for layer, earlier in self.pairs),
        }
        order = [
            name
            for layer in range(layers)
            for name in (f"ops/{layer}", *(f"skips/{layer}<-{earlier}" for earlier in range(layer)))
        ]
        super().__init__("enas_macro" if layers == 12 else f"enas_macro_{layers}", decisions, tuple(order))

    def third(self, layer: int) -> int:
        """How often the resolution is halved before a layer: 0, 1 or 2."""
        return min(layer // (self.layers // 3), 2)

    def skip_row(self, layer: int, earlier: int) -> int:
        """The row of a skip in the group ``"skips"``."""
        return layer * (layer - 1) // 2 + earlier

    def chain(self, genotype: Genotype) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The operation of each layer, and the earlier layers of its skips."""
        picks = self.check(genotype).picks
        return tuple(
            (picks[f"ops/{layer}"][0], tuple(j for j in range(layer) if picks[f"skips/{layer}<-{j}"] == (1,)))
            for layer in range(self.layers)
        )

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype itself: no two build the same network."""
        return self.check(genotype)

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The layers in a row, operations on the edges between them; skips are plain wires, which concatenate.

        The last layer is the output.
        """
        nodes = ("input", *map(str, range(self.layers - 1)), "output")
        edges = []
        for layer, (op, skips) in enumerate(self.chain(genotype)):
            edges.append((layer, layer + 1, ENAS_MACRO_OPS[op]))
            edges += [(earlier + 1, layer + 1, "") for earlier in skips]
        return {"network": CellGraph(nodes, tuple(edges))}

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """A stem and one block with all the layers, which has `out_channels`.

        Raises:
            ValueError: If the size asks for another number of layers.
        """
        if size.cells != self.layers:
            raise ValueError(
                f"cells={size.cells}: {self.name!r} has {self.layers} layers; leave cells out, or search in"
                f" ENASMacroSpace({max(size.cells, 3)})"
            )
        imagenet = size.stem == "imagenet"
        stem: nn.Module = (ImageNetStem if imagenet else SimpleStem)(size.in_channels, size.channels, 1)
        body = make_cell(CellPlace("network", 0, (size.channels,), size.channels))
        features, halvings = int(getattr(body, "out_channels", size.channels)), 2 + 2 * imagenet
        return CellNetwork(stem, [body], features, size.num_classes, halvings, track_stats=size.track_stats)


def make_macro_op(name: str, channels: int, affine: bool = False, track_stats: bool = False) -> nn.Sequential:
    """An operation of the macro space: a 1x1 convolution with BN and ReLU, then the operation itself.

    Convolutions, plain or depthwise and pointwise, have BN and ReLU behind them; poolings have nothing.

    Example:
        >>> import torch
        >>> make_macro_op("sep_conv_5x5", 4)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """
    first = ConvBNReLU(channels, channels, 1, affine=affine, track_stats=track_stats)
    if "pool" in name:
        return nn.Sequential(first, make_op(name, OpSpec(channels)))
    kernel = int(name[-1])
    if not name.startswith("sep"):
        return nn.Sequential(first, ConvBNReLU(channels, channels, kernel, affine=affine, track_stats=track_stats))
    depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
    pointwise = ConvBNReLU(channels, channels, 1, affine=affine, track_stats=track_stats)
    return nn.Sequential(first, nn.Sequential(depthwise, *pointwise))
