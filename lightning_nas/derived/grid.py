"""The layers of a grid of CGP-CNN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import ConvBN, ConvBNReLU
from lightning_nas.spaces import CellPlace
from lightning_nas.spaces.cgp import CGPSpace

__all__ = ["GridLayers", "sum_of"]


class GridLayers(nn.Module):
    """The active nodes of a grid of CGP-CNN.

    Where two maps are joined, the larger one is max-pooled to the size of the smaller; a sum pads channels with zeros.
    Channels are in proportion to those of the place, of which the published network has 64.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: Where the layers stand.

    Attributes:
        pools: Largest number of poolings on a way through the network.

    Raises:
        ValueError: If a function is none of those that can be built.

    Example:
        >>> import random
        >>> space = CGPSpace(2, 4, 2)
        >>> layers = GridLayers(space, space.sample(random.Random(0)), CellPlace("network", 0, (4,), 4))
        >>> layers((torch.zeros(2, 4, 8, 8),)).shape[1] == layers.out_channels
        True
    """

    def __init__(self, space: CGPSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.layers = space.layers(genotype)
        self.nodes = nn.ModuleDict()
        channels, pools = {0: place.in_channels[-1]}, {0: 0}
        for node, (function, inputs) in self.layers.items():
            widths = [channels[source] for source in inputs]
            pools[node] = max(pools[source] for source in inputs) + ("pool" in function)
            channels[node] = sum(widths) if function == "concat" else max(widths)
            kind, _, rest = function.partition("_")
            if kind in ("conv", "res"):
                width, kernel = (int(part) for part in rest.split("x")[0].split("_"))
                own = max(1, width * place.channels // space.derived_channels)
                self.nodes[str(node)] = (ConvBNReLU if kind == "conv" else _Residual)(widths[0], own, kernel)
                channels[node] = own if kind == "conv" else max(own, widths[0])
            elif function not in ("sum", "concat", "max_pool", "avg_pool"):
                raise ValueError(f"{function!r} cannot be built; known are conv_32_3x3 and the like, res_32_3x3, joins")
        self.out_channels, self.pools = channels[next(reversed(self.layers))], max(pools.values())

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the layers; the sample of a supernet's call is not looked at."""
        values = {0: states[-1]}
        for node, (function, inputs) in self.layers.items():
            parts = [values[source] for source in inputs]
            if function in ("sum", "concat"):
                side = min(part.shape[-1] for part in parts)
                parts = [
                    part if part.shape[-1] == side else F.max_pool2d(part, part.shape[-1] // side) for part in parts
                ]
                values[node] = torch.cat(parts, dim=1) if function == "concat" else _padded_sum(parts)
            elif "pool" in function:
                values[node] = (F.max_pool2d if function == "max_pool" else F.avg_pool2d)(parts[0], 2)
            else:
                values[node] = self.nodes[str(node)](parts[0])
        return values[next(reversed(self.layers))]


class _Residual(nn.Module):
    """Two convolutions with BN, the first with ReLU, added to the input with channels padded by zeros; then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        second = ConvBN(out_channels, out_channels, kernel)
        self.body = nn.Sequential(ConvBNReLU(in_channels, out_channels, kernel), second)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return F.relu(_padded_sum([out, x]))


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _padded_sum(parts: list[Tensor]) -> Tensor:
    """The sum of maps, narrower ones padded with zero channels."""
    width = max(part.shape[1] for part in parts)
    return sum_of([F.pad(part, (0, 0, 0, 0, 0, width - part.shape[1])) for part in parts])
