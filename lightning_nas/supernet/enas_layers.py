"""The searched layers of the macro space of ENAS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import FactorizedReduce
from lightning_nas.ops.blocks import batch_norm
from lightning_nas.spaces.enas_macro import ENAS_MACRO_OPS, ENASMacroSpace, make_macro_op
from lightning_nas.spaces.skeleton import CellPlace

__all__ = ["ENASLayers"]


class ENASLayers(nn.Module):
    r"""All layers with every operation and every skip.

    With the weights :math:`p` of the operations and :math:`s` of the choices `yes` of the skips,

    .. math::
        y_i = \sum_o p_{io} \, o_i(h_{i-1}), \qquad
        h_i = \mathrm{ReLU}(\mathrm{BN}(W_i [s_{i0} h_0, ..., s_{i,i-1} h_{i-1}, y_i])), \qquad h_0 = y_0

    where each skipped map has been halved as often as layer `i` asks for, by factorized reductions of its own. A skip
    whose `yes` is not active has no place in the concatenation, so the 1x1 convolution :math:`W_i` is a slice for each
    earlier layer (``joins.{layer}.{earlier}``) and one for the operation; and a map is halved only for who reads it.

    The structure is that of the released code, with weights of its own for each operation of a layer, the 1x1
    convolution in front included. There, in the search, skips are added instead of concatenated; here they are
    concatenated in the search too, as in the paper and in the released derived network. All layers have the same
    channels, and normalisation has no scale.

    Args:
        space: The space.
        place: Where the layers stand.

    Attributes:
        out_channels: Channels of the output.

    Shape:
        - states: a tuple of one tensor ``(N, channels, H, W)``, H and W divisible by four
        - output: ``(N, channels, H/4, W/4)``

    Reference: Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018.

    Example:
        >>> import random
        >>> space = ENASMacroSpace(4)
        >>> layers = ENASLayers(space, CellPlace("network", 0, (4,), 4))
        >>> layers((torch.zeros(2, 4, 8, 8),), space.vertex(space.sample(random.Random(0)))).shape
        torch.Size([2, 4, 2, 2])
    """

    def __init__(self, space: ENASMacroSpace, place: CellPlace) -> None:
        super().__init__()
        c = self.out_channels = place.channels
        self.skip_row, self.thirds = space.skip_row, [space.third(layer) for layer in range(space.layers)]
        self.ops = nn.ModuleList(nn.ModuleList(make_macro_op(op, c) for op in ENAS_MACRO_OPS) for _ in self.thirds)
        self.joins = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(c, c, 1, bias=False) for _ in range(layer + 1 if layer else 0))
            for layer in range(space.layers)
        )
        self.norm = batch_norm(c, affine=False, track_stats=False)
        self.reductions = nn.ModuleList(
            nn.ModuleList(FactorizedReduce(c, c, affine=False, track_stats=False) for _ in range(self.thirds.index(to)))
            for to in (1, 2)
        )

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """Compute the layers for their input under a sample."""
        (out,) = states
        maps: list[dict[int, Tensor]] = []  # of each layer, by how often it is halved
        for layer, third in enumerate(self.thirds):
            out = self._mixed(layer, self._halved(maps, layer - 1, third) if layer else out, sample)
            if layer:
                out = self._joined(layer, out, maps, sample)
            maps.append({third: out})
        return out

    def _mixed(self, layer: int, x: Tensor, sample: Sample) -> Tensor:
        """The mixture of a layer's active operations; their 1x1 convolutions are one call."""
        active = sample.open("ops")
        chosen = range(len(ENAS_MACRO_OPS)) if active is None else active[layer]
        if not chosen:
            return torch.zeros_like(x)
        ops = [self.ops[layer][k] for k in chosen]  # type: ignore[index]
        first = F.conv2d(x, torch.cat([op[0][0].weight for op in ops]))
        first = F.relu_(F.batch_norm(first, None, None, None, None, True, 0.0, self.norm.eps))
        terms: list[Tensor] = [op[1](part) for op, part in zip(ops, first.chunk(len(ops), dim=1), strict=True)]
        weights = sample.weights.get("ops")
        if weights is not None:
            terms = [weights[layer, k].to(term.dtype) * term for k, term in zip(chosen, terms, strict=True)]
        return reduce(torch.add, terms)

    def _joined(self, layer: int, own: Tensor, maps: Sequence[dict[int, Tensor]], sample: Sample) -> Tensor:
        """A layer's skipped maps and what its operation gives, through the slices of its 1x1 convolution.

        The weight of a skip is taken to its slice, which is smaller than the map.
        """
        active, weights = sample.open("skips"), sample.weights.get("skips")
        parts, slices = [], []
        for earlier in range(layer):
            row = self.skip_row(layer, earlier)
            if active is None or 1 in active[row]:
                kernel: Tensor = self.joins[layer][earlier].weight  # type: ignore[index]
                slices.append(kernel if weights is None else weights[row, 1].to(kernel.dtype) * kernel)
                parts.append(self._halved(maps, earlier, self.thirds[layer]))
        slices.append(self.joins[layer][layer].weight)  # type: ignore[index]
        out = F.conv2d(torch.cat([*parts, own], dim=1), torch.cat(slices, dim=1))
        joined: Tensor = F.relu_(self.norm(out))
        return joined

    def _halved(self, maps: Sequence[dict[int, Tensor]], layer: int, third: int) -> Tensor:
        """The output of a layer as a third of the depth reads it."""
        if third not in maps[layer]:
            before = self._halved(maps, layer, third - 1)
            maps[layer][third] = self.reductions[third - 1][layer](before)  # type: ignore[index]
        return maps[layer][third]
