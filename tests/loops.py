"""The plain execution of a supernet, as every publication has it: a loop over edges and candidates.

The reference for values, gradients, time, memory and operator calls. Its parameters have the names of `MixedCell`'s.
It works in the memory format of its pictures: contiguous ones are executed contiguously, as in the publications.
"""

from __future__ import annotations

from functools import partial as partial_of

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import OpSpec, Zero, make_op
from lightning_nas.spaces import CellNetwork, CellPlace, CellSpace, NetworkSize

__all__ = ["AsGiven", "LoopCell", "as_given", "loop_supernet"]


class AsGiven(CellNetwork):
    """A network that works in the memory format of its pictures, on a CPU too."""

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        states: tuple[Tensor, ...] = self.stem(x)
        return states


def as_given(network: CellNetwork) -> CellNetwork:
    """The same network, without the conversion to channels-last."""
    network.__class__ = AsGiven
    return network


class LoopCell(nn.Module):
    """Weight times candidate, one after the other; with partial channels a shuffle on every edge."""

    def __init__(self, space: CellSpace, place: CellPlace, partial: int = 1) -> None:
        super().__init__()
        self.kind, self.topology, self.partial = place.kind, space.topology, partial
        self.input_group, self.strides = space.input_group(place.kind), space.strides(place)
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=False))
        self.edges = nn.ModuleList()
        for stride, decision in zip(self.strides, space.decisions[place.kind], strict=True):
            spec = OpSpec(place.channels // partial, stride, affine=False, track_stats=False, pool_bn=space.pool_bn)
            self.edges.append(nn.ModuleList(make_op(op, spec) for op in decision.choices))

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        nodes = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        inputs, across = sample.open(self.input_group), sample.weights.get(self.input_group)
        for index in range(self.topology.nodes):
            rows = self.topology.rows_into(self.topology.inputs + index)
            terms = []
            for source, row in enumerate(rows):
                if inputs is not None and source not in inputs[index]:
                    continue
                out = self._edge(row, nodes[source], sample)
                if out is not None:
                    terms.append(out if across is None else across[index, source] * out)
            nodes.append(_add(terms) if terms else Zero(self.strides[rows[0]])(nodes[0]))
        inner = nodes[self.topology.inputs :]
        return torch.cat(inner, dim=1) if self.topology.output == "concat" else inner[-1]

    def _edge(self, row: int, x: Tensor, sample: Sample) -> Tensor | None:
        active, weights = sample.open(self.kind), sample.weights.get(self.kind)
        edge = self.edges[row]
        asked = range(len(edge)) if active is None else active[row]  # type: ignore[arg-type]
        if not asked:
            return None
        seen = x[:, : x.shape[1] // self.partial]
        chosen = [k for k in asked if not isinstance(edge[k], Zero)]  # type: ignore[index]
        terms = [edge[k](seen) if weights is None else weights[row, k] * edge[k](seen) for k in chosen]  # type: ignore[index]
        if self.partial == 1:
            return _add(terms) if terms else None
        mixed = _add(terms) if terms else Zero(self.strides[row])(seen)
        rest = x[:, seen.shape[1] :]
        rest = F.max_pool2d(rest, 2, 2) if self.strides[row] == 2 else rest
        n, c, h, w = x.shape[0], x.shape[1], rest.shape[2], rest.shape[3]
        both = torch.cat([mixed, rest], dim=1)
        return both.view(n, self.partial, c // self.partial, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def loop_supernet(
    space: CellSpace, channels: int = 16, cells: int | None = None, partial: int = 1, in_channels: int = 3
) -> CellNetwork:
    """The supernet that `build_supernet` builds, in loops and in the memory format of its pictures."""
    size = NetworkSize(
        channels, space.default_cells if cells is None else cells, in_channels=in_channels, track_stats=False
    )
    return as_given(space.network(partial_of(LoopCell, space, partial=partial), size))


def _add(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
