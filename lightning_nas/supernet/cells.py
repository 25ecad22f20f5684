"""The searched cell: on each edge a weighted sum of candidate operations, executed by source node.

Cost of a step, in forward passes over the active candidates: a weight step is one forward and one backward pass with
the gradients of inputs and weights (the sample carries no graph); a first-order architecture step is one forward and
one backward pass with the gradients of inputs only, since the gradient is asked for `theta` alone. With one forward
pass each for the gradients of inputs and for those of weights that is 3 + 2 = 5 passes, where two full backward passes
make 6; measured, a weight step of the DARTS supernet takes 1.5 times as long as an architecture step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import OpSpec, Zero, make_op
from lightning_nas.spaces import CellPlace, CellSpace
from lightning_nas.supernet.checkpointed import Checkpointed
from lightning_nas.supernet.groups import Stage, form_of, run_chains, run_reduction, stages_of
from lightning_nas.supernet.plan import Candidate, Group, Maps, Plan, make_plan
from lightning_nas.supernet.sums import add, combine, combine_dropped, drop_paths, repeated
from lightning_nas.supernet.width import Width

__all__ = ["MixedCell"]

PLANS_KEPT = 64
"""Plans a cell remembers: dense and masked samples repeat themselves, sampled paths mostly do not."""


class MixedCell(Checkpointed):
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
        start_partial: ``k`` to begin with, if the cell is to be widened later by `widen`: it has the weights for
            `partial` and runs on a slice of them.

    Attributes:
        width: How many channels the candidates see now.
        skip_dropout: In training the probability that an element of the output of an identity is dropped, on each edge
            anew (Chen et al., "P-DARTS", ICCV 2019).
        drop_path: In training the probability that a sample loses the output of a candidate other than an identity,
            each anew; what stays is divided by the share that stays (as in Zela et al., "Understanding and
            Robustifying DARTS", ICLR 2020). Both draw from torch's global generator.
        checkpoint: Whether the cell keeps only its inputs for the backward pass and runs again there: less memory for
            one more forward pass.

    Shape:
        - states: as many tensors ``(N, C_i, H, W)`` as the cell has inputs
        - output: ``(N, nodes * channels, H', W')`` concatenated, or ``(N, channels, H', W')``

    Raises:
        ValueError: If `partial` or `start_partial` does not divide the channels, `start_partial` is the smaller one, or
            the space has candidates that cannot run on a slice of their weights.
    """

    def __init__(self, space: CellSpace, place: CellPlace, partial: int = 1, start_partial: int | None = None) -> None:
        super().__init__()
        self.kind, self.topology, self.strides = place.kind, space.topology, space.strides(place)
        self.input_group = space.input_group(place.kind)
        self.skip_dropout, self.drop_path = 0.0, 0.0
        widest = Width(place.channels, partial, where=f"cell {place.index}").channels
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=False))
        self.edges = nn.ModuleList()
        for stride, decision in zip(self.strides, space.decisions[place.kind], strict=True):
            spec = OpSpec(widest, stride, affine=False, track_stats=False, pool_bn=space.pool_bn)
            self.edges.append(nn.ModuleList(make_op(op, spec) for op in decision.choices))
        self._candidates = [[Candidate(form_of(op), repr(op), stages_of(op)) for op in edge] for edge in self._ops()]
        halves = any(one.form == "reduction" for edge in self._candidates for one in edge)
        self.width = Width(place.channels, partial, start_partial, halves, f"cell {place.index}")
        if start_partial is not None:
            self._require_forms()
        self._most = max(len(edge) for edge in self._candidates)
        self._ends = [(target - self.topology.inputs, source) for target, source in self.topology.edges]
        self._plans: dict[object, Plan] = {}

    def _require_forms(self) -> None:
        for op, one in zip(chain(*self._ops()), chain(*self._candidates), strict=True):
            if one.form == "other" and op.state_dict():
                raise ValueError(
                    f"{type(op).__name__} in {self.width.where} is of no known form and cannot run on a slice of its"
                    " weights; leave start_partial out"
                )

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
            if self.width.partial > 1:
                passed.append(self._bypass(x, source))
                x = x[:, : self.width.channels]
            for row, out in self._leave(x, groups, maps, [next(weights) for _ in (*groups, *maps)]):
                terms[self.topology.edges[row][0]].append(out)
        inner = nodes[self.topology.inputs :]
        return torch.cat(inner, dim=1) if self.topology.output == "concat" else inner[-1]

    def _ops(self) -> list[list[nn.Module]]:
        return [list(edge) for edge in self.edges if isinstance(edge, nn.ModuleList)]

    def _plan(self, sample: Sample) -> Plan:
        """The plan of the sample's active choices; an edge on a closed input has none."""
        active, inputs = sample.open(self.kind), sample.open(self.input_group)
        key = (active, inputs, self.width.partial)
        if key not in self._plans:
            rows = active or tuple(tuple(range(len(edge))) for edge in self._candidates)
            if inputs is not None:
                rows = tuple(ks if i in inputs[index] else () for ks, (index, i) in zip(rows, self._ends, strict=True))
            rows = self._read(rows)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            self._plans[key] = make_plan(self.topology, self._candidates, rows, self._most)
        return self._plans[key]

    def _read(self, rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        """The rows without those into nodes that nothing reads: their weights get no gradient, as in the loop."""
        t, last = self.topology, self.topology.inputs + self.topology.nodes - 1
        if t.output == "concat":
            return rows
        read = {last}
        for (target, source), edge, ks in reversed(list(zip(t.edges, self._candidates, rows, strict=True))):
            if target in read and any(self.width.partial > 1 or edge[k].form != "zero" for k in ks):
                read.add(source)
        return tuple(ks if target in read else () for ks, (target, _) in zip(rows, t.edges, strict=True))

    def _weights(self, sample: Sample, like: Tensor) -> Tensor | None:
        """``(rows, choices)``: the weight of each candidate, that of its edge included; nothing if all are one."""
        relaxed, across = sample.weights.get(self.kind), sample.weights.get(self.input_group)
        if across is not None:
            of_edge = across[[index for index, _ in self._ends], [source for _, source in self._ends]].unsqueeze(1)
            relaxed = of_edge.expand(-1, self._most) if relaxed is None else relaxed * of_edge
        if relaxed is None:
            return None
        return relaxed.to(like.dtype) if like.dtype in (torch.float32, torch.float64) else relaxed

    def _leave(
        self, x: Tensor, groups: Sequence[Group], maps: Sequence[Maps], weights: Sequence[Tensor | None]
    ) -> list[tuple[int, Tensor]]:
        """What the active candidates make of a node: the row of an edge and its output, maybe in several parts."""
        out: list[tuple[int, Tensor]] = []
        activated = F.relu(x) if any(group.form != "other" for group in groups) else x
        chains: list[tuple[list[nn.Module], tuple[Stage, ...], Tensor | None]] = []
        places: list[tuple[int, ...]] = []
        side_by_side: list[tuple[tuple[int, ...], Tensor]] = []
        for group, weight in zip(groups, weights, strict=False):
            ops = [self.edges[row][k] for row, k in group.at]  # type: ignore[index]
            if group.form == "other":
                alone = self._dropped(ops[0](x), 1)
                out.append((group.rows[0], alone if weight is None else weight.to(alone.dtype) * alone))
                continue
            scale = None if weight is None else repeated(weight, self.width.channels)
            if group.form == "chain":
                chains.append((ops, group.stages, scale))
                places.append(group.rows)
            else:
                reduced = run_reduction(ops, activated, scale)
                side_by_side.append((group.rows, self._dropped(reduced, len(ops))))
        if chains:
            for rows, found in zip(places, run_chains(chains, activated), strict=True):
                found = self._dropped(found, len(rows))
                if side_by_side and side_by_side[-1][0] == rows:
                    side_by_side[-1][1].add_(found)  # normalisation keeps its input, not its output
                else:
                    side_by_side.append((rows, found))
        for rows, found in side_by_side:
            out += zip(rows, found.chunk(len(rows), dim=1), strict=True)
        for group_of_maps, weight in zip(maps, weights[len(groups) :], strict=True):
            out += zip(group_of_maps.rows, self._mapped(x, group_of_maps, weight), strict=True)
        return out

    def _mapped(self, x: Tensor, maps: Maps, weight: Tensor | None) -> list[Tensor]:
        ops: list[nn.Module] = [self.edges[maps.rows[0]][k] for k in maps.choices[0]]  # type: ignore[index]
        values = [op(x) for op in ops]
        if not (self.training and (self.skip_dropout or self.drop_path)):
            return combine(values, len(maps.rows), weight)
        skips = [isinstance(op, nn.Identity) for op in ops]
        return combine_dropped(values, skips, len(maps.rows), weight, self.skip_dropout, self.drop_path)

    def _dropped(self, out: Tensor, edges: int) -> Tensor:
        return drop_paths(out, edges, self.drop_path) if self.training and self.drop_path else out

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
        mixed = add(terms) if terms else Zero(self.strides[rows[0]])(first[:, : self.width.channels])
        if self.width.partial == 1:
            return mixed
        across = sample.weights.get(self.input_group)
        sources = [source for source, row in enumerate(rows) if active[row]]
        weight = None if across is None else across[node - self.topology.inputs, sources].to(first.dtype)
        if sources:
            (beside,) = combine([passed[source] for source in sources], 1, weight)
        else:
            beside = passed[0].new_zeros(passed[0].shape)
        return F.channel_shuffle(torch.cat([mixed, beside], dim=1), self.width.partial)

    def _bypass(self, x: Tensor, source: int) -> Tensor:
        """The channels that no candidate sees, at the resolution that the edges lead to."""
        rest = x[:, self.width.channels :]
        rows = [row for row, (_, start) in enumerate(self.topology.edges) if start == source]
        return F.max_pool2d(rest, 2, 2) if rows and self.strides[rows[0]] == 2 else rest
