"""The space of NAS-Bench-101: 423,624 cells (Ying et al., "NAS-Bench-101", ICML 2019)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.module_hash import (
    NB101_OPS,
    Matrix,
    least_module,
    live_vertices,
    module_hash,
    op_labels,
    prune,
    read_matrix,
    vertex_channels,
)
from lightning_nas.spaces.module_repair import repair
from lightning_nas.spaces.nasbench101_skeleton import stacks_of_modules
from lightning_nas.spaces.one_shot1 import ONE_SHOT1_OPS, NASBench1Shot1Space
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, NetworkSize, StemName

__all__ = ["NB101_OPS", "NASBench101Space", "module_hash", "prune", "to_nasbench101", "vertex_channels"]

_MAX_EDGES, _VERTICES = 9, 7
_EDGES = tuple((source, target) for source in range(_VERTICES) for target in range(source + 1, _VERTICES))


class NASBench101Space(IndependentSpace):
    """One kind of cell: at most 7 vertices and 9 edges, an operation on each inner vertex.

    Vertex 0 is the input and vertex 6 the output. The groups are ``"edges"``, a row ``"edges/{target}<-{source}"`` with
    the choices ``"0"`` and ``"1"`` for each of the 21 edges (by source, then by target), and ``"ops"``, a row for each
    of the vertices 1 to 5. A genotype is valid if a way leads from input to output, and at most 9 edges are left when
    the vertices that are on no such way are taken away.

    There is no supernet of this space; `NASBench1Shot1Space` has one for parts of it.

    Args:
        edge_rate: Probability with which `mutate` flips each edge; the benchmark's own evolution has 1/7.
        op_rate: Probability with which it puts another operation on each vertex; there 1/5. Without both, a mutation
            changes one decision.

    Raises:
        ValueError: If only one rate is given, or `edge_rate` is not in ``[0, 0.5]`` or `op_rate` not in ``[0, 1]``.

    Example:
        >>> space = NASBench101Space()
        >>> genotype = space.from_cell(["011", "001", "000"], ["input", "maxpool3x3", "output"])
        >>> space.hash(genotype) == space.hash(space.canonical(genotype))
        True
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_cells: ClassVar[int] = 3
    derived_channels: ClassVar[int] = 128

    def __init__(self, edge_rate: float | None = None, op_rate: float | None = None) -> None:
        lone = (edge_rate is None) != (op_rate is None)
        if lone or not 0 <= (edge_rate or 0) <= 0.5 or not 0 <= (op_rate or 0) <= 1:
            raise ValueError(f"edge_rate={edge_rate}, op_rate={op_rate}: give at most 0.5 and 1, or neither")
        self.edge_rate, self.op_rate = edge_rate, op_rate
        edges = tuple(Decision(f"edges/{target}<-{source}", ("0", "1")) for source, target in _EDGES)
        ops = tuple(Decision(f"ops/{vertex}", NB101_OPS) for vertex in range(1, _VERTICES - 1))
        super().__init__("nasbench101", {"edges": edges, "ops": ops})

    def cell(self, genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
        """The matrix and the operations of a genotype as they are, ``(7, 7)`` and 7."""
        return _as_cell(self.check(genotype))

    def pruned(self, genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
        """The matrix and the operations of the vertices that are on a way from input to output."""
        return prune(*self.cell(genotype))

    def hash(self, genotype: Genotype) -> str:
        """The benchmark's key, see `module_hash`."""
        return module_hash(*self.cell(genotype))

    def from_cell(self, matrix: Any, ops: Sequence[str]) -> Genotype:
        """The genotype of a module with at most 7 vertices; those that are missing stand unconnected at the end.

        Args:
            matrix: Adjacency matrix: lists, an array, or strings of 0 and 1.
            ops: Operation of each vertex, ``"input"`` and ``"output"`` at the ends.

        Raises:
            ValueError: If it is no module of the space.
        """
        rows, names = read_matrix(matrix), tuple(ops)
        if len(rows) > _VERTICES:
            raise ValueError(f"a cell of {self.name!r} has at most {_VERTICES} vertices, not {len(rows)}")
        if len(names) != len(rows) or (names[0], names[-1]) != ("input", "output"):
            given = str(names)[:80]
            raise ValueError(f"ops names each of {len(rows)} vertices, 'input' first and 'output' last; got {given}")
        labels = (*op_labels(names), *[0] * (_VERTICES - len(rows)))
        at = {vertex: vertex for vertex in range(len(rows) - 1)} | {_VERTICES - 1: len(rows) - 1}
        bits = [rows[at[s]][at[t]] if s in at and t in at else 0 for s, t in _EDGES]
        return self.check(self.from_indices([*bits, *labels]))

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        super().check(genotype)
        matrix, _ = _as_cell(genotype)
        kept = live_vertices(matrix)
        if not kept:
            raise ValueError(f"no way leads from input to output in a cell of {self.name!r}; add an edge")
        edges = sum(matrix[i][j] for i in kept for j in kept)
        if edges > _MAX_EDGES:
            raise ValueError(f"a cell of {self.name!r} has at most {_MAX_EDGES} edges, not {edges}; take some away")
        return genotype

    def valid(self, genotype: Genotype) -> bool:
        """Whether `check` lets a genotype pass."""
        try:
            self.check(genotype)
        except ValueError:
            return False
        return True

    def sample(self, rng: random.Random) -> Genotype:
        """Each edge with probability one half and each operation alike, until the cell is valid.

        This is uniform over encodings and not over graphs.
        """
        while True:
            genotype = super().sample(rng)
            if self.valid(genotype):
                return genotype

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """Change one decision, or with rates each edge and each operation by chance, until the cell is valid."""
        picks = self.check(genotype).picks
        if self.edge_rate is None or self.op_rate is None:
            near = list(super().neighbors(genotype))
            while not self.valid(mutant := rng.choice(near)):
                pass
            return mutant
        while True:
            changed = {}
            for name, row in self._rows.items():
                if rng.random() < (self.edge_rate if name.startswith("edges/") else self.op_rate):
                    changed[name] = (rng.choice([k for k in range(len(row.choices)) if (k,) != picks[name]]),)
            mutant = Genotype(self.name, {**picks, **changed})
            if self.valid(mutant):
                return mutant

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """All valid genotypes with one edge more or less, or another operation on one vertex."""
        return filter(self.valid, super().neighbors(genotype))

    def canonical(self, genotype: Genotype) -> Genotype:
        """The least genotype of all that are the same graph when they are pruned.

        Networks of isomorphic cells may differ by a channel, as the first vertices get what cannot be shared evenly.
        """
        matrix, ops = self.pruned(genotype)
        least, labels = least_module(matrix, op_labels(ops))
        return self.from_cell(least, ("input", *(NB101_OPS[label] for label in labels), "output"))

    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:
        """The best operation of each vertex, and the edges that score higher than their absence.

        If these make no cell, edges of the way whose weakest edge is the strongest are added, and the weakest edges
        taken away that can be.

        Raises:
            ValueError: If the choices that are open make no cell.
        """
        table = scores["edges"].detach().tolist() if "edges" in scores else [[0.0, 0.0]] * len(_EDGES)
        gain = {edge: with_it - without for edge, (without, with_it) in zip(_EDGES, table, strict=True)}
        kept = repair(gain, _VERTICES, _MAX_EDGES)
        edges = torch.tensor([[edge not in kept, edge in kept] for edge in _EDGES], dtype=torch.float64)
        return super().discretize({**scores, "edges": edges}, exclude)

    def format(self, genotype: Genotype) -> str:
        """JSON in one line: the rows of the matrix and the operations of its vertices."""
        matrix, ops = self.cell(genotype)
        rows = ["".join(map(str, row)) for row in matrix]
        return json.dumps({"space": self.name, "matrix": rows, "ops": list(ops)})

    def parse(self, text: str) -> Genotype:
        """Read what `format` or `to_json` wrote; the matrix may be lists of 0 and 1, and have fewer than 7 vertices.

        Raises:
            ValueError: If it is no cell of this space; the message says what is wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            wanted = '{"space": "nasbench101", "matrix": [...], "ops": [...]}'
            raise ValueError(f"not a NAS-Bench-101 cell: {text[:60]!r}; expected {wanted}") from None
        if not isinstance(data, dict) or not {"matrix", "ops"} <= set(data):
            return self.from_json(text)
        if data.get("space", self.name) != self.name:
            given = str(data["space"])[:60]
            raise ValueError(f"a genotype of space {given!r} was given to space {self.name!r}; use its own")
        if not isinstance(data["ops"], list) or not isinstance(data["matrix"], list):
            raise ValueError(f"matrix and ops must be lists, not {text[:80]!r}")
        return self.from_cell(data["matrix"], data["ops"])

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The pruned cell with operations on its vertices and plain wires; one is labelled ``"1: conv3x3-bn-relu"``."""
        matrix, ops = self.pruned(genotype)
        nodes = ("input", *(f"{vertex}: {op}" for vertex, op in enumerate(ops[1:-1], start=1)), "output")
        edges = [(s, t, "") for t in range(len(matrix)) for s in range(t) if matrix[s][t]]
        return {"cell": CellGraph(nodes, tuple(edges))}

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The published skeleton, see `stacks_of_modules`."""
        return stacks_of_modules(make_cell, size)


def _as_cell(genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
    """The matrix and the operations of complete picks, valid or not."""
    picks = genotype.picks
    matrix = [[0] * _VERTICES for _ in range(_VERTICES)]
    for source, target in _EDGES:
        matrix[source][target] = picks[f"edges/{target}<-{source}"][0]
    inner = (NB101_OPS[picks[f"ops/{vertex}"][0]] for vertex in range(1, _VERTICES - 1))
    return tuple(map(tuple, matrix)), ("input", *inner, "output")


def one_shot1_module(space: NASBench1Shot1Space, genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
    """The matrix and the operations of a genotype of NAS-Bench-1Shot1, loose ends and all."""
    parents, ops = space.cell(genotype)
    vertices = range(space.blocks + 2)
    rows = tuple(tuple(int(t > 0 and s in parents[t - 1]) for t in vertices) for s in vertices)
    return rows, ("input", *(ONE_SHOT1_OPS[op] for op in ops), "output")


def to_nasbench101(space: NASBench1Shot1Space, genotype: Genotype) -> Genotype:
    """The cell of NAS-Bench-101 that a genotype of a space of NAS-Bench-1Shot1 is; block ``b`` becomes vertex ``b``.

    Raises:
        ValueError: If the genotype is of another space.

    Example:
        >>> space = NASBench1Shot1Space(1)
        >>> to_nasbench101(space, space.sample(random.Random(0))).space
        'nasbench101'
    """
    return NASBench101Space().from_cell(*one_shot1_module(space, genotype))
