"""The part that all cell spaces share."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_nas.arch import Decision, Genotype, Sample
from lightning_nas.ops import OPS
from lightning_nas.spaces.base import CellGraph, CellTopology, Space
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, NetworkSize, StemName

__all__ = ["CellSpace", "OpLists", "check_pick"]

OpLists = tuple[str, ...] | Mapping[str, tuple[tuple[str, ...], ...]]
"""Candidate operations: one list for every edge, or kind of cell -> a list for each edge."""


class CellSpace(Space):
    """A space of repeated cells over a fixed macro skeleton.

    For each kind of cell there is a group of that name with an operation decision ``"{kind}/{j}<-{i}"`` per edge, and,
    where nodes keep only some of their inputs, a group ``"{kind}/inputs"`` with a decision ``"{kind}/inputs/{j}"`` per
    intermediate node. The input groups are not relaxed by default: edges are then ranked by their operations.

    Args:
        name: The space's name.
        kinds: The kinds of cell.
        topology: The edges of a cell (the same for all kinds).
        ops: Candidate operations: one list for every edge, or one list per kind and edge.
        keep_inputs: How many inputs an intermediate node keeps; ``None`` for all.

    Raises:
        ValueError: If an operation is unknown, or a kind or an edge has no list of its own.
    """

    exclude: ClassVar[tuple[str, ...]] = ()
    """Operations that a derivation, `sample` and `mutate` never choose."""
    pool_bn: ClassVar[bool] = False
    """Whether poolings are followed by batch normalisation in the supernet."""
    default_cells: ClassVar[int]
    """Number of cells of the published supernet (DARTS: in all; NAS-Bench-201: in each stage)."""
    derived_cells: ClassVar[int]
    """The same for the derived network."""
    derived_channels: ClassVar[int]
    """Channels of the published derived network's first stage."""
    default_stem: ClassVar[StemName] = "cifar"
    """The stem of the published supernet."""

    def __init__(
        self, name: str, kinds: tuple[str, ...], topology: CellTopology, ops: OpLists, keep_inputs: int | None = None
    ) -> None:
        per_edge = {kind: _per_edge(kind, ops, len(topology.edges)) for kind in kinds}
        for op in {op for rows in per_edge.values() for row in rows for op in row}:
            if op not in OPS:
                raise ValueError(f"unknown operation {op!r}; known are {', '.join(sorted(OPS))}; add it to ops.OPS")
        self.name, self.kinds, self.topology, self.keep_inputs = name, kinds, topology, keep_inputs
        decisions: dict[str, tuple[Decision, ...]] = {}
        for kind in kinds:
            decisions[kind] = tuple(
                Decision(f"{kind}/{j}<-{i}", row) for (j, i), row in zip(topology.edges, per_edge[kind], strict=True)
            )
            if keep_inputs is not None:
                decisions[self.input_group(kind)] = tuple(
                    Decision(f"{kind}/inputs/{j}", tuple(map(str, range(j))), min(keep_inputs, j))
                    for j in range(topology.inputs, topology.inputs + topology.nodes)
                )
        self.decisions, self.relaxed = decisions, kinds

    @staticmethod
    def input_group(kind: str) -> str:
        """The group of the decisions which inputs the nodes of a cell keep."""
        return f"{kind}/inputs"

    @abstractmethod
    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The macro skeleton with a cell from `make_cell` in each place; supernet and derived network share it."""

    def preprocess(self, place: CellPlace, affine: bool) -> list[nn.Module]:
        """What brings each input of a cell to its channels and resolution; by default they fit as they are."""
        return [nn.Identity() for _ in place.in_channels]

    def strides(self, place: CellPlace) -> tuple[int, ...]:
        """The stride of each edge: 2 on the edges from the inputs of a reduction cell."""
        return tuple(2 if place.reduction and i < self.topology.inputs else 1 for _, i in self.topology.edges)

    def kept_rows(self, genotype: Genotype, kind: str) -> dict[int, int]:
        """Row of each edge that the genotype keeps -> index of its operation."""
        return {
            row: genotype.picks[d.name][0] for row, d in enumerate(self.decisions[kind]) if d.name in genotype.picks
        }

    def op_name(self, kind: str, row: int, choice: int) -> str:
        """The name of a candidate on an edge."""
        return self.decisions[kind][row].choices[choice]

    def from_rows(self, rows: Mapping[str, Mapping[int, int]]) -> Genotype:
        """The genotype that keeps, for each kind of cell, the given rows with the given operations."""
        picks: dict[str, tuple[int, ...]] = {}
        for kind, kept in rows.items():
            picks |= {self.decisions[kind][row].name: (choice,) for row, choice in kept.items()}
            for d in self.decisions.get(self.input_group(kind), ()):
                into = self.topology.rows_into(int(d.name.rsplit("/", 1)[1]))
                picks[d.name] = tuple(i for i, row in enumerate(into) if row in kept)
        return self.check(Genotype(self.name, picks))

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        if genotype.space != self.name:
            raise ValueError(
                f"a genotype of space {genotype.space!r} was given to space {self.name!r}; parse its text there"
            )
        left = dict(genotype.picks)
        for kind in self.kinds:
            kept_edges = set()
            for d in self.decisions.get(self.input_group(kind), ()):
                check_pick(d, left.pop(d.name, None), self.name)
                kept_edges |= {f"{kind}/{d.name.rsplit('/', 1)[1]}<-{i}" for i in genotype.picks[d.name]}
            for d in self.decisions[kind]:
                if self.keep_inputs is None or d.name in kept_edges:
                    check_pick(d, left.pop(d.name, None), self.name)
        if left:
            raise ValueError(
                f"a genotype of {self.name!r} has no place for {sorted(left)}: no decision, or an edge not kept"
            )
        return genotype

    def sample(self, rng: random.Random) -> Genotype:  # noqa: D102
        rows: dict[str, dict[int, int]] = {}
        for kind in self.kinds:
            rows[kind] = {}
            for node in range(self.topology.inputs, self.topology.inputs + self.topology.nodes):
                into = list(self.topology.rows_into(node))
                if self.keep_inputs is not None:
                    into = sorted(rng.sample(into, min(self.keep_inputs, len(into))))
                rows[kind] |= {row: rng.choice(self._ops(kind, row)) for row in into}
        return self.from_rows(rows)

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:  # noqa: D102
        rows = {kind: self.kept_rows(self.check(genotype), kind) for kind in self.kinds}
        kind, kept = rng.choice(list(self._changes(rows)))
        return self.from_rows(rows | {kind: kept})

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:  # noqa: D102
        rows = {kind: self.kept_rows(self.check(genotype), kind) for kind in self.kinds}
        for kind, kept in self._changes(rows):
            yield self.from_rows(rows | {kind: kept})

    def _changes(self, rows: Mapping[str, Mapping[int, int]]) -> Iterator[tuple[str, dict[int, int]]]:
        """What may be kept instead in one kind of cell, for each neighbor."""
        for kind, kept in rows.items():
            for row, choice in kept.items():
                for other in self._ops(kind, row):
                    if other != choice:
                        yield kind, {**kept, row: other}
                for new in sorted(self._rows_beside(row) - set(kept)):
                    rest = {r: c for r, c in kept.items() if r != row}
                    for moved in self._moved(kind, row, choice, new):
                        yield kind, {**rest, new: moved}

    def _moved(self, kind: str, row: int, choice: int, new: int) -> list[int]:
        """What an edge may do where it moves to: the same, or what its list lacks; all if the new list lacks its own.

        So being neighbors is mutual, and with one list for every edge an edge takes its operation along.
        """
        op, here = self.op_name(kind, row, choice), [self.op_name(kind, row, k) for k in self._ops(kind, row)]
        there = {k: self.op_name(kind, new, k) for k in self._ops(kind, new)}
        return [k for k, other in there.items() if other == op or op not in there.values() or other not in here]

    def _ops(self, kind: str, row: int) -> list[int]:
        """The choices of an edge that a genotype may take."""
        choices = self.decisions[kind][row].choices
        return [k for k, op in enumerate(choices) if op not in self.exclude] or list(range(len(choices)))

    def _rows_beside(self, row: int) -> set[int]:
        """The rows of all edges that end where this one ends, if nodes choose among their inputs."""
        if self.keep_inputs is None:
            return set()
        return set(self.topology.rows_into(self.topology.edges[row][0]))

    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:
        """The best operation of each edge, then the best edges into each node.

        An edge's strength is the score of its best operation, times its own score where the inputs are relaxed.
        Operations in `exclude` (the space's own by default) compete inside a softmax but are never chosen.
        """
        exclude = self.exclude if exclude is None else exclude
        rows: dict[str, dict[int, int]] = {}
        for kind in self.kinds:
            table = scores[kind].detach().double().clone()
            for row, d in enumerate(self.decisions[kind]):
                banned = [k for k, op in enumerate(d.choices) if op in exclude]
                table[row, banned if len(banned) < len(d.choices) else []] = -torch.inf
            strength, choice = table.max(dim=1)
            rows[kind] = {}
            for index in range(self.topology.nodes):
                into = self.topology.rows_into(self.topology.inputs + index)
                value = strength[into.start : into.stop].clone()
                if self.input_group(kind) in scores:
                    own = scores[self.input_group(kind)][index, : len(into)].detach().double()
                    value = torch.where(own.isneginf(), own, value * own)
                keep = len(into) if self.keep_inputs is None else min(self.keep_inputs, len(into))
                best = torch.sort(value, descending=True, stable=True).indices[:keep].tolist()
                rows[kind] |= {into[i]: int(choice[into[i]]) for i in sorted(best)}
        return self.from_rows(rows)

    def vertex(self, genotype: Genotype) -> Sample:  # noqa: D102
        weights, active = {}, {}
        for kind in self.kinds:
            kept = self.kept_rows(self.check(genotype), kind)
            rows = self.decisions[kind]
            weight = torch.zeros(len(rows), max(len(d.choices) for d in rows))
            for row, choice in kept.items():
                weight[row, choice] = 1.0
            weights[kind] = weight
            active[kind] = tuple((kept[row],) if row in kept else () for row in range(len(rows)))
        return Sample(weights, active)

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:  # noqa: D102
        return {kind: self._graph(self.check(genotype), kind) for kind in self.kinds}

    def _graph(self, genotype: Genotype, kind: str) -> CellGraph:
        t = self.topology
        last = t.inputs + t.nodes - 1
        inputs = ("input",) if t.inputs == 1 else tuple(f"c_{{k-{t.inputs - i}}}" for i in range(t.inputs))
        edges = [
            (t.edges[row][1], t.edges[row][0], self.op_name(kind, row, choice))
            for row, choice in self.kept_rows(genotype, kind).items()
        ]
        if t.output == "last":
            return CellGraph((*inputs, *(str(i) for i in range(t.inputs, last)), "output"), tuple(edges))
        edges += [(node, last + 1, "") for node in range(t.inputs, last + 1)]
        return CellGraph((*inputs, *(str(i) for i in range(t.inputs, last + 1)), "output"), tuple(edges))


def _per_edge(kind: str, ops: OpLists, edges: int) -> tuple[tuple[str, ...], ...]:
    """The list of each edge of a kind of cell."""
    if not isinstance(ops, Mapping):
        return (tuple(ops),) * edges
    if len(ops.get(kind, ())) != edges:
        given = len(ops.get(kind, ()))
        raise ValueError(f"ops[{kind!r}] has {given} lists; give one for each of the {edges} edges, or one for all")
    return tuple(map(tuple, ops[kind]))


def check_pick(decision: Decision, kept: tuple[int, ...] | None, space: str) -> None:
    """Raise ValueError unless a genotype of a space keeps as many valid choices as the decision asks for."""
    if kept is None:
        raise ValueError(f"a genotype of {space!r} lacks the decision {decision.name!r}")
    valid = len(set(kept)) == len(kept) == decision.keep and all(0 <= k < len(decision.choices) for k in kept)
    if not valid:
        raise ValueError(
            f"{decision.name!r} of {space!r} keeps {decision.keep} of {decision.choices}, not indices {kept}"
        )
