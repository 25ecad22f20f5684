"""The searched cell: on each edge a weighted sum of candidate operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import OpSpec, Zero, make_op
from lightning_nas.spaces import CellPlace, CellSpace

__all__ = ["MixedCell"]


class MixedCell(nn.Module):
    """A cell with all candidates of each edge; the sample says how much of each to take and which to execute.

    The loop over edges and candidates as published. `none` contributes neither a value nor a gradient and is not
    executed where another candidate of its node is.

    Args:
        space: The space; gives the edges, the candidates and the group of this kind of cell.
        place: Where the cell stands.

    Shape:
        - states: as many tensors ``(N, C_i, H, W)`` as the cell has inputs
        - output: ``(N, nodes * channels, H', W')`` concatenated, or ``(N, channels, H', W')``
    """

    def __init__(self, space: CellSpace, place: CellPlace) -> None:
        super().__init__()
        self.kind, self.topology = place.kind, space.topology
        self.input_group = space.input_group(place.kind)
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=False))
        self.edges = nn.ModuleList()
        self.strides = space.strides(place)
        for stride, decision in zip(self.strides, space.decisions[place.kind], strict=True):
            spec = OpSpec(place.channels, stride, affine=False, pool_bn=space.pool_bn)
            self.edges.append(nn.ModuleList(make_op(op, spec) for op in decision.choices))

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """Compute the cell for its inputs under a sample."""
        nodes = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        relaxed = sample.weights.get(self.kind)
        weights = (None,) * len(self.edges) if relaxed is None else relaxed.unbind(0)
        active, inputs = sample.open(self.kind), sample.open(self.input_group)
        edge_weights = sample.weights.get(self.input_group)
        for index in range(self.topology.nodes):
            rows = self.topology.rows_into(self.topology.inputs + index)
            terms = []
            for source, row in enumerate(rows):
                if inputs is not None and source not in inputs[index]:
                    continue
                out = self._edge(row, nodes[source], weights[row], None if active is None else active[row])
                if out is not None and edge_weights is not None:
                    out = out * edge_weights[index, source]
                if out is not None:
                    terms.append(out)
            nodes.append(_add(terms) if terms else Zero(self.strides[rows[0]])(nodes[0]))
        inner = nodes[self.topology.inputs :]
        return torch.cat(inner, dim=1) if self.topology.output == "concat" else inner[-1]

    def _edge(self, row: int, x: Tensor, weight: Tensor | None, active: tuple[int, ...] | None) -> Tensor | None:
        """The mixture on one edge, each candidate with weight one where none are given; nothing if it is empty."""
        edge = self.edges[row]
        assert isinstance(edge, nn.ModuleList)  # noqa: S101  (for the type checker)
        asked = range(len(edge)) if active is None else active
        chosen = [k for k in asked if not isinstance(edge[k], Zero)]
        terms = [edge[k](x) if weight is None else weight[k] * edge[k](x) for k in chosen]
        return _add(terms) if terms else None


def _add(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
