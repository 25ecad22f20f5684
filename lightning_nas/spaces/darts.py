"""The DARTS space: normal and reduction cells of four nodes (Liu, Simonyan and Yang, "DARTS", ICLR 2019)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import permutations
from typing import ClassVar

from torch import nn

from lightning_nas.arch import Genotype
from lightning_nas.ops import FactorizedReduce, ReLUConvBN
from lightning_nas.spaces.base import CellTopology
from lightning_nas.spaces.cell_space import CellSpace, OpLists
from lightning_nas.spaces.skeleton import CellFactory, CellNetwork, CellPlace, NetworkSize, two_reductions

__all__ = ["DARTS_OPS", "DARTSSpace"]

DARTS_OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class DARTSSpace(CellSpace):
    """Two kinds of cell with two inputs; each intermediate node keeps two inputs; the output concatenates the nodes.

    Args:
        name: ``"darts"`` for the eight published operations.
        ops: Candidate operations of every edge, or per kind and edge.
        nodes: Number of intermediate nodes.
        kinds: The kinds of cell; ``("normal",)`` for one cell that serves as reduction cell too, with stride 2 on the
            edges from its inputs.

    Example:
        >>> space = DARTSSpace()
        >>> len(space.decisions["normal"]), len(space.decisions["normal"][0].choices)
        (14, 8)
        >>> genotype = space.sample(__import__("random").Random(0))
        >>> space.parse(space.format(genotype)) == genotype
        True
    """

    exclude: ClassVar[tuple[str, ...]] = ("none",)
    pool_bn: ClassVar[bool] = True
    default_cells: ClassVar[int] = 8
    derived_cells: ClassVar[int] = 20
    derived_channels: ClassVar[int] = 36

    def __init__(
        self,
        name: str = "darts",
        ops: OpLists = DARTS_OPS,
        nodes: int = 4,
        kinds: tuple[str, ...] = ("normal", "reduce"),
    ) -> None:
        super().__init__(name, kinds, CellTopology(2, nodes, "concat"), ops, keep_inputs=2)

    def network(self, make_cell: CellFactory, size: NetworkSize) -> CellNetwork:
        """The published skeleton: reduction cells at one and two thirds of the depth, where channels double."""
        return two_reductions(make_cell, size, self.kinds, self.topology.nodes)

    def preprocess(self, place: CellPlace, affine: bool) -> list[nn.Module]:
        """ReLU-conv1x1-BN on each input; a factorized reduction on the first where the cell before halved."""
        before, last = place.in_channels
        c = place.channels
        first = FactorizedReduce(before, c, affine) if place.reduced_before else ReLUConvBN(before, c, affine=affine)
        return [first, ReLUConvBN(last, c, affine=affine)]

    def canonical(self, genotype: Genotype) -> Genotype:
        """The least of the genotypes that differ only in the order of the intermediate nodes, in each kind of cell.

        Renumbering nodes permutes the channels of the cell's output and nothing else. Where edges have lists of their
        own, an order counts only if every edge finds its operation in its new list.
        """
        self.check(genotype)
        return self.from_rows(
            {kind: dict(min(self._relabelings(kind, self.kept_rows(genotype, kind)))) for kind in self.kinds}
        )

    def _relabelings(self, kind: str, kept: dict[int, int]) -> Iterator[tuple[tuple[int, int], ...]]:
        """The cell under every order of its nodes in which edges still point forward and have their operation."""
        first, row_of = self.topology.inputs, {edge: row for row, edge in enumerate(self.topology.edges)}
        op_of = {row: self.op_name(kind, row, choice) for row, choice in kept.items()}
        for order in permutations(range(self.topology.nodes)):
            new = {i: i for i in range(first)} | {first + old: first + at for at, old in enumerate(order)}
            rows = {row: row_of.get((new[t], new[s])) for row, (t, s) in enumerate(self.topology.edges) if row in kept}
            moved = [(row, op_of[old]) for old, row in rows.items() if row is not None]
            if len(moved) == len(kept) and all(op in self.decisions[kind][row].choices for row, op in moved):
                yield tuple(sorted((row, self.decisions[kind][row].choices.index(op)) for row, op in moved))

    def format(self, genotype: Genotype) -> str:
        """The published named tuple as text: ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=...)``."""
        self.check(genotype)
        parts = []
        for kind in self.kinds:
            pairs = [
                (self.op_name(kind, row, choice), self.topology.edges[row][1])
                for row, choice in sorted(self.kept_rows(genotype, kind).items())
            ]
            parts.append(f"{kind}={pairs}, {kind}_concat=range(2, {2 + self.topology.nodes})")
        return f"Genotype({', '.join(parts)})"

    def parse(self, text: str) -> Genotype:
        """Read the published named tuple, or JSON.

        Raises:
            ValueError: If it is not a genotype of this space; the message says what is wrong.
        """
        if text.lstrip().startswith("{"):
            return self.from_json(text)
        fields = _read_call(text)
        rows = {}
        for kind in self.kinds:
            if kind not in fields:
                raise ValueError(
                    f"the genotype lacks {kind!r}; expected Genotype(normal=[...], ..., reduce=[...], ...)"
                )
            rows[kind] = self._read_cell(kind, fields[kind])
            concat = fields.get(f"{kind}_concat", list(range(2, 2 + self.topology.nodes)))
            if concat != list(range(2, 2 + self.topology.nodes)):
                raise ValueError(
                    f"{kind}_concat={concat}: only the concatenation of all intermediate nodes is supported"
                )
        return self.from_rows(rows)

    def _read_cell(self, kind: str, pairs: object) -> dict[int, int]:
        if not isinstance(pairs, list) or len(pairs) != 2 * self.topology.nodes:
            raise ValueError(
                f"{kind} must be a list of {2 * self.topology.nodes} pairs (operation, input), not {str(pairs)[:80]}"
            )
        kept: dict[int, int] = {}
        for index, pair in enumerate(pairs):
            target = 2 + index // 2
            if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and type(pair[1]) is int):
                raise ValueError(f"{kind}: {pair!r} is not an (operation, input) pair")
            op, source = pair
            if not 0 <= source < target:
                given = str(source)[:20]
                raise ValueError(f"{kind}: node {target} cannot take node {given}; allowed are 0 to {target - 1}")
            row = self.topology.rows_into(target)[source]
            choices = self.decisions[kind][row].choices
            if op not in choices:
                raise ValueError(f"unknown operation {op!r} on {kind}/{target}<-{source}; allowed are {choices}")
            if row in kept:
                raise ValueError(f"{kind}: node {target} takes node {source} twice; its two inputs must differ")
            kept[row] = choices.index(op)
        return kept


def _read_call(text: str) -> dict[str, object]:
    """The keyword arguments of ``Genotype(...)``: literals and ``range`` only, nothing is evaluated."""
    example = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=...)"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"not a genotype: {text[:60]!r}; expected {example}") from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise ValueError(f"not a genotype: {text[:60]!r}; expected {example}")
    names = ("normal", "normal_concat", "reduce", "reduce_concat")
    given = [*zip(names, call.args, strict=False), *((k.arg or "**", k.value) for k in call.keywords)]
    return {name: _read_literal(name, value) for name, value in given}


def _read_literal(name: str, value: ast.expr) -> object:
    """A literal, or ``range(...)`` of literals as a list."""
    try:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
            bounds = [ast.literal_eval(arg) for arg in value.args]
            if not 1 <= len(bounds) <= 2 or not all(type(b) is int and 0 <= b < 100 for b in bounds):
                raise ValueError(f"{name}: a range takes one or two small numbers, not {bounds}")
            return list(range(*bounds))
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{name} of the genotype is not a plain list ({error})") from None
