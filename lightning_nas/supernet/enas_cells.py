"""The searched cell of the micro space of ENAS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import OpSpec, make_op
from lightning_nas.ops.blocks import batch_norm
from lightning_nas.spaces.enas_micro import ENASMicroSpace
from lightning_nas.spaces.skeleton import CellPlace
from lightning_nas.supernet.groups import run_chains, stages_of
from lightning_nas.supernet.sums import repeated

__all__ = ["ENASCell"]


class ENASCell(nn.Module):
    r"""A cell with every input and every operation of both sides of each block.

    With the weights :math:`a` of the inputs and :math:`p` of the operations of each row `r` (two rows a block), nodes
    :math:`h_0, h_1` for the inputs of the cell and one for each block,

    .. math::
        h_b = \sum_{r \in b} \sum_{j < b} \sum_o a_{rj} \, p_{ro} \, o_{rj}(h_j), \qquad
        y = \mathrm{BN}(\sum_j l_j \, W_j \, \mathrm{ReLU}(h_j)), \qquad l_j = \prod_r (1 - a_{rj})

    :math:`l_j` says how much of a node is a loose end: of a genotype it is one or zero, and in between it is the
    probability that no row takes the node, were the rows drawn independently by their weights. Only active choices
    count; a node that is the only active choice of a row is no loose end, whatever its weight. :math:`W_j` is the slice
    of the last 1x1 convolution that belongs to a node.

    As in the released code, separable convolutions have weights of their own for each row and each input
    (``edges.{row}.{input}.{choice}``), poolings have neither weights nor normalisation, and what a choice does not
    reach is not executed. Normalisation has no scale, as in the other searched cells, where the released one has.

    Args:
        space: The space.
        place: Where the cell stands.

    Shape:
        - states: two tensors ``(N, C_i, H, W)``
        - output: ``(N, channels, H', W')``

    Reference: Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018.

    Example:
        >>> import random
        >>> space = ENASMicroSpace()
        >>> cell, x = ENASCell(space, CellPlace("reduce", 0, (8, 8), 4, reduction=True)), torch.zeros(2, 8, 6, 6)
        >>> cell((x, x), space.vertex(space.sample(random.Random(0)))).shape
        torch.Size([2, 4, 3, 3])
    """

    def __init__(self, space: ENASMicroSpace, place: CellPlace) -> None:
        super().__init__()
        self.channels, self.nodes = place.channels, 2 + space.blocks
        self.op_group, self.input_group = f"{place.kind}/ops", f"{place.kind}/inputs"
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=False))
        spec, rows = OpSpec(place.channels, affine=False, track_stats=False), space.decisions[self.op_group]
        self.edges = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(make_op(op, spec) for op in decision.choices) for _ in range(2 + row // 2))
            for row, decision in enumerate(rows)
        )
        self.choices = len(rows[0].choices)
        self.stages = {k: stages for k in range(self.choices) if (stages := stages_of(self._op(0, 0, k)))}
        self.combine = nn.ModuleList(
            nn.Conv2d(place.channels, place.channels, 1, bias=False) for _ in range(self.nodes)
        )
        self.norm = batch_norm(place.channels, affine=False, track_stats=False)

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """Compute the cell for its inputs under a sample."""
        nodes = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        ops, inputs = sample.open(self.op_group), sample.open(self.input_group)
        open_ops = (range(self.choices),) * len(self.edges) if ops is None else ops
        open_inputs = inputs or tuple(tuple(range(2 + row // 2)) for row in range(len(self.edges)))
        weights = self._weights(sample, nodes[0])
        terms: list[list[Tensor]] = [[] for _ in range(self.nodes)]
        for node in range(self.nodes):
            if node >= 2:
                nodes.append(reduce(torch.add, terms[node]) if terms[node] else torch.zeros_like(nodes[0]))
            takers = [row for row, kept in enumerate(open_inputs) if node in kept]
            for row, out in self._leave(node, nodes[node], [(row, open_ops[row]) for row in takers], weights):
                terms[2 + row // 2].append(out)
        return self._combined(nodes, open_inputs, sample.weights.get(self.input_group))

    def _weights(self, sample: Sample, like: Tensor) -> Tensor | None:
        """``(rows, inputs, choices)``: the weight of each candidate; nothing if all are one."""
        of_op, of_input = sample.weights.get(self.op_group), sample.weights.get(self.input_group)
        if of_op is None and of_input is None:
            return None
        if of_op is None:
            of_op = like.new_ones(len(self.edges), self.choices)
        if of_input is None:
            of_input = of_op.new_ones(len(self.edges), self.nodes - 1)
        both = of_input.unsqueeze(2) * of_op.unsqueeze(1)
        return both.to(like.dtype) if like.dtype in (torch.float32, torch.float64) else both

    def _leave(
        self, node: int, x: Tensor, takers: Sequence[tuple[int, Sequence[int]]], weights: Tensor | None
    ) -> list[tuple[int, Tensor]]:
        """What the active candidates make of a node: the row and the output of each."""
        outs: list[tuple[int, Tensor]] = []
        rows_of = {k: [row for row, kept in takers if k in kept] for k in range(self.choices)}
        chains = [k for k in self.stages if rows_of[k]]
        if chains:
            several = [
                (
                    [self._op(row, node, k) for row in rows_of[k]],
                    self.stages[k],
                    self._scale(weights, node, k, rows_of[k]),
                )
                for k in chains
            ]
            for k, found in zip(chains, run_chains(several, F.relu(x)), strict=True):
                outs += zip(rows_of[k], found.chunk(len(rows_of[k]), dim=1), strict=True)
        for k, rows in rows_of.items():
            if rows and k not in self.stages:
                value: Tensor = self._op(rows[0], node, k)(x)
                outs += [(row, value if weights is None else weights[row, node, k] * value) for row in rows]
        return outs

    def _op(self, row: int, node: int, choice: int) -> nn.Module:
        op: nn.Module = self.edges[row][node][choice]  # type: ignore[index]
        return op

    def _scale(self, weights: Tensor | None, node: int, choice: int, rows: Sequence[int]) -> Tensor | None:
        """The weight of a choice on several rows, each repeated over the channels: a scale for normalisation."""
        if weights is None:
            return None
        return repeated(torch.stack([weights[row, node, choice] for row in rows]), self.channels)

    def _combined(
        self, nodes: Sequence[Tensor], open_inputs: Sequence[Sequence[int]], weights: Tensor | None
    ) -> Tensor:
        """The loose ends side by side, after their ReLU, through the slices of the 1x1 convolution."""
        maps, slices = [], []
        for node, value in enumerate(nodes):
            taken = [row for row, kept in enumerate(open_inputs) if node in kept]
            if any(weights is None or len(open_inputs[row]) == 1 for row in taken):
                continue
            weight: Tensor = self.combine[node].weight  # type: ignore[assignment]
            if taken and weights is not None:
                left = (1 - torch.stack([weights[row, node] for row in taken])).prod()
                weight = weight * left.to(weight.dtype)
            maps.append(value)
            slices.append(weight)
        out: Tensor = self.norm(F.conv2d(F.relu(torch.cat(maps, dim=1)), torch.cat(slices, dim=1)))
        return out
