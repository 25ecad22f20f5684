"""The searched cell: on each edge a weighted sum of candidate operations, executed by source node.

Cost of a step, in forward passes over the active candidates: a weight step is one forward and one backward pass with
the gradients of inputs and weights (the sample carries no graph); a first-order architecture step is one forward and
one backward pass with the gradients of inputs only, since the gradient is asked for `theta` alone. With one forward
pass each for the gradients of inputs and for those of weights that is 3 + 2 = 5 passes, where two full backward passes
make 6; measured, a weight step of the DARTS supernet takes 1.5 times as long as an architecture step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from lightning_nas.arch import Sample
from lightning_nas.ops import OpSpec, Zero, make_op
from lightning_nas.spaces import CellPlace, CellSpace
from lightning_nas.supernet.groups import form_of, run_chains, run_reduction
from lightning_nas.supernet.plan import Candidate, Group, Maps, Plan, make_plan

__all__ = ["MixedCell"]

PLANS_KEPT = 64
"""Plans a cell remembers: dense and masked samples repeat themselves, sampled paths mostly do not."""


class MixedCell(nn.Module):
    """A cell with all candidates of each edge; the sample says how much of each to take and which to execute.

    Parameters are those of one module per edge and candidate (``edges.{row}.{choice}``), so that weights of a
    supernet load into any execution of it and into the networks derived from it. The execution goes by source node:
    its ReLU and its poolings are computed once for all edges that leave it, and candidates of one form are one call
    per layer for all these edges. `none` costs nothing.

    Args:
        space: The space; gives the edges, the candidates and the group of this kind of cell.
        place: Where the cell stands.
        partial: ``k`` of partial channels: the candidates see the first ``1/k`` of the channels, the others pass (Xu
            et al., "PC-DARTS", ICLR 2020); 1 for all channels.

    Attributes:
        checkpoint: Whether the cell keeps only its inputs for the backward pass and runs again there: less memory for
            one more forward pass.

    Shape:
        - states: as many tensors ``(N, C_i, H, W)`` as the cell has inputs
        - output: ``(N, nodes * channels, H', W')`` concatenated, or ``(N, channels, H', W')``

    Raises:
        ValueError: If `partial` does not divide the channels.
    """

    def __init__(self, space: CellSpace, place: CellPlace, partial: int = 1) -> None:
        super().__init__()
        if partial < 1 or place.channels % partial:
            raise ValueError(
                f"partial={partial} does not divide the {place.channels} channels of cell {place.index}; give a divisor"
            )
        self.kind, self.topology, self.partial = place.kind, space.topology, partial
        self.input_group = space.input_group(place.kind)
        self.channels, self.checkpoint = place.channels // partial, False
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=False))
        self.edges = nn.ModuleList()
        self.strides = space.strides(place)
        for stride, decision in zip(self.strides, space.decisions[place.kind], strict=True):
            spec = OpSpec(self.channels, stride, affine=False, track_stats=False, pool_bn=space.pool_bn)
            self.edges.append(nn.ModuleList(make_op(op, spec) for op in decision.choices))
        self._candidates = [[Candidate(form_of(op), repr(op)) for op in edge] for edge in self._ops()]
        self._width = max(len(edge) for edge in self._candidates)
        self._ends = [(target - self.topology.inputs, source) for target, source in self.topology.edges]
        self._plans: dict[object, Plan] = {}

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """Compute the cell for its inputs under a sample."""
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self._run(states, sample)
        # the weights of this call, which may be virtual ones, must be those of the repetition too
        state = dict(self.named_parameters())
        out: Tensor = checkpoint(_again, self, state, states, sample, use_reentrant=False)
        return out

    def _run(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        nodes = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        plan = self._plan(sample)
        weights = iter(plan.gather(self._weights(sample, nodes[0])))
        terms: list[list[Tensor]] = [[] for _ in range(self.topology.inputs + self.topology.nodes)]
        passed: list[Tensor] = []
        for source, (groups, maps) in enumerate(zip(plan.groups, plan.maps, strict=True)):
            if source >= self.topology.inputs:
                nodes.append(self._node(source, terms[source], passed, nodes[0], sample, plan.active))
            x = nodes[source]
            if self.partial > 1:
                passed.append(self._bypass(x, source))
                x = x[:, : self.channels]
            for row, out in self._leave(x, groups, maps, [next(weights) for _ in (*groups, *maps)]):
                terms[self.topology.edges[row][0]].append(out)
        inner = nodes[self.topology.inputs :]
        return torch.cat(inner, dim=1) if self.topology.output == "concat" else inner[-1]

    def _ops(self) -> list[list[nn.Module]]:
        return [list(edge) for edge in self.edges if isinstance(edge, nn.ModuleList)]

    def _plan(self, sample: Sample) -> Plan:
        """The plan of the sample's active choices; an edge on a closed input has none."""
        active, inputs = sample.open(self.kind), sample.open(self.input_group)
        key = (active, inputs)
        if key not in self._plans:
            rows = active or tuple(tuple(range(len(edge))) for edge in self._candidates)
            if inputs is not None:
                rows = tuple(ks if i in inputs[index] else () for ks, (index, i) in zip(rows, self._ends, strict=True))
            rows = self._read(rows)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            self._plans[key] = make_plan(self.topology, self._candidates, rows, self._width)
        return self._plans[key]

    def _read(self, rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        """The rows without those into nodes that nothing reads: their weights get no gradient, as in the loop."""
        t, last = self.topology, self.topology.inputs + self.topology.nodes - 1
        if t.output == "concat":
            return rows
        read = {last}
        for (target, source), edge, ks in reversed(list(zip(t.edges, self._candidates, rows, strict=True))):
            if target in read and any(self.partial > 1 or edge[k].form != "zero" for k in ks):
                read.add(source)
        return tuple(ks if target in read else () for ks, (target, _) in zip(rows, t.edges, strict=True))

    def _weights(self, sample: Sample, like: Tensor) -> Tensor | None:
        """``(rows, choices)``: the weight of each candidate, that of its edge included; nothing if all are one."""
        relaxed, across = sample.weights.get(self.kind), sample.weights.get(self.input_group)
        if across is not None:
            of_edge = across[[index for index, _ in self._ends], [source for _, source in self._ends]].unsqueeze(1)
            relaxed = of_edge.expand(-1, self._width) if relaxed is None else relaxed * of_edge
        if relaxed is None:
            return None
        return relaxed.to(like.dtype) if like.dtype in (torch.float32, torch.float64) else relaxed

    def _leave(
        self, x: Tensor, groups: Sequence[Group], maps: Sequence[Maps], weights: Sequence[Tensor | None]
    ) -> list[tuple[int, Tensor]]:
        """What the active candidates make of a node: the row of an edge and its output, maybe in several parts."""
        out: list[tuple[int, Tensor]] = []
        activated = F.relu(x) if any(group.form != "other" for group in groups) else x
        chains: list[tuple[list[nn.Module], Tensor | None, tuple[int, ...]]] = []
        side_by_side: list[tuple[tuple[int, ...], Tensor]] = []
        for group, weight in zip(groups, weights, strict=False):
            ops = [self.edges[row][k] for row, k in group.at]  # type: ignore[index]
            if group.form == "other":
                alone = ops[0](x)
                out.append((group.rows[0], alone if weight is None else weight.to(alone.dtype) * alone))
                continue
            scale = None if weight is None else _repeated(weight, self.channels)
            if group.form == "chain":
                chains.append((ops, scale, group.rows))
            else:
                side_by_side.append((group.rows, run_reduction(ops, activated, scale)))
        if chains:
            several, scales, places = zip(*chains, strict=True)
            for rows, found in zip(places, run_chains(several, activated, scales), strict=True):
                if side_by_side and side_by_side[-1][0] == rows:
                    side_by_side[-1][1].add_(found)  # normalisation keeps its input, not its output
                else:
                    side_by_side.append((rows, found))
        for rows, found in side_by_side:
            out += zip(rows, found.chunk(len(rows), dim=1), strict=True)
        for group_of_maps, weight in zip(maps, weights[len(groups) :], strict=True):
            first = group_of_maps.rows[0]
            values = [self.edges[first][k](x) for k in group_of_maps.choices[0]]  # type: ignore[index]
            out += zip(group_of_maps.rows, _combine(values, len(group_of_maps.rows), weight), strict=True)
        return out

    def _node(
        self,
        node: int,
        terms: list[Tensor],
        passed: list[Tensor],
        first: Tensor,
        sample: Sample,
        active: tuple[tuple[int, ...], ...],
    ) -> Tensor:
        """A node's value: the sum of its terms, with partial channels beside the sum of what passed them by.

        An edge on which `none` is active adds nothing to the one and its channels to the other.
        """
        rows = self.topology.rows_into(node)
        mixed = _add(terms) if terms else Zero(self.strides[rows[0]])(first[:, : self.channels])
        if self.partial == 1:
            return mixed
        across = sample.weights.get(self.input_group)
        sources = [source for source, row in enumerate(rows) if active[row]]
        weight = None if across is None else across[node - self.topology.inputs, sources].to(first.dtype)
        if sources:
            (beside,) = _combine([passed[source] for source in sources], 1, weight)
        else:
            beside = passed[0].new_zeros(passed[0].shape)
        return F.channel_shuffle(torch.cat([mixed, beside], dim=1), self.partial)

    def _bypass(self, x: Tensor, source: int) -> Tensor:
        """The channels that no candidate sees, at the resolution that the edges lead to."""
        rest = x[:, self.channels :]
        rows = [row for row, (_, start) in enumerate(self.topology.edges) if start == source]
        return F.max_pool2d(rest, 2, 2) if rows and self.strides[rows[0]] == 2 else rest


def _again(cell: MixedCell, state: dict[str, Tensor], states: tuple[Tensor, ...], sample: Sample) -> Tensor:
    """Run a checkpointed cell with given weights."""
    kept, cell.checkpoint = cell.checkpoint, False
    try:
        out: Tensor = functional_call(cell, state, (states, sample))
    finally:
        cell.checkpoint = kept
    return out


def _repeated(weight: Tensor, times: int) -> Tensor:
    """Each entry `times` times; contiguous, for the normalisation of a CPU reads a stride of zero past its end."""
    return weight.unsqueeze(1).expand(-1, times).reshape(-1).contiguous()


def _combine(values: list[Tensor], edges: int, weight: Tensor | None) -> list[Tensor]:
    """Weighted sums of maps ``(N, C, H, W)``, one for each edge, with weights ``(edges * maps,)`` in that order."""
    if weight is None:
        return [_add(values)] * edges
    if len(values) == edges == 1:
        return [values[0] * weight.to(values[0].dtype)]
    shape = values[0].shape
    together = torch.cat(values)
    last = together.is_contiguous(memory_format=torch.channels_last) and not together.is_contiguous()
    flat = (together.permute(0, 2, 3, 1) if last else together).reshape(len(values), -1)
    mixed = weight.to(flat.dtype).view(edges, -1) @ flat
    if last:
        n, c, h, w = shape
        return [part.view(n, h, w, c).permute(0, 3, 1, 2) for part in mixed.unbind(0)]
    return [part.view(shape) for part in mixed.unbind(0)]


def _add(terms: list[Tensor]) -> Tensor:
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total = total.add_(term)
    return total
