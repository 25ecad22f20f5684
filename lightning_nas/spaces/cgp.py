"""The space of CGP-CNN (Suganuma, Shirakawa and Nagao, "A Genetic Programming Approach", GECCO 2017)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.json_text import read_value
from lightning_nas.spaces.skeleton import StemName

__all__ = ["CGPSpace"]

_BLOCKS = tuple(f"{{}}_{channels}_{kernel}x{kernel}" for channels in (32, 64, 128) for kernel in (1, 3, 5))
_JOINS = ("sum", "concat")
_POOLS = ("max_pool", "avg_pool")
_TRIES = 10_000


class CGPSpace(IndependentSpace):
    """A grid of nodes, each a function of one or two nodes of the columns before it; one of them is the output.

    Only the nodes that the output needs are active and become layers; the others drift. Nodes are numbered column by
    column from 1, and 0 is the picture. The groups are ``"functions"`` (rows ``"function/{node}"``), ``"inputs"`` (rows
    ``"input/{node}/0"`` and ``"input/{node}/1"``; all but sum and concatenation use the first) and ``"output"``. A node
    takes its inputs from the `level_back` columns before it, the picture counting as a column; the output is a node of
    the last `level_back` columns.

    Args:
        rows: Rows of the grid.
        columns: Columns of the grid.
        level_back: How many columns back an input may be.
        functions: ``"conv"`` for convolutions, ``"res"`` for residual blocks, in both with sum, concatenation and
            poolings; or the names of candidates, the joins of two inputs among them called `sum` and `concat`.
        active: Least and largest number of active nodes.
        pools: Largest number of active poolings; ``None`` for what pictures of 32 pixels allow, which is 3.

    Raises:
        ValueError: If a number is not positive, the limits cannot be met, or there are no functions.

    Example:
        >>> space = CGPSpace(2, 3, 2)
        >>> genotype = space.sample(random.Random(0))
        >>> space.canonical(space.neutral(genotype, random.Random(1))) == space.canonical(genotype)
        True
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_channels: ClassVar[int] = 64
    derived_cells: ClassVar[int] = 1

    def __init__(
        self,
        rows: int = 5,
        columns: int = 30,
        level_back: int = 10,
        functions: Literal["conv", "res"] | Sequence[str] = "conv",
        active: tuple[int, int] = (1, 30),
        pools: int | None = None,
    ) -> None:
        if min(rows, columns, level_back) < 1 or not 1 <= active[0] <= active[1] or active[0] > rows * columns:
            raise ValueError(
                f"rows={rows}, columns={columns}, level_back={level_back}, active={active}: give positive numbers, and"
                " limits in rising order of which the first is at most the number of nodes"
            )
        names = (
            (*(b.format(functions) for b in _BLOCKS), *_JOINS, *_POOLS) if functions in ("conv", "res") else functions
        )
        self.functions = tuple(names)
        if isinstance(names, str) or not self.functions:
            raise ValueError(f"functions={functions!r}: give 'conv', 'res' or a list of names")
        self.rows, self.columns, self.level_back, self.limits = rows, columns, level_back, tuple(active)
        self.pools = int(math.log2(32)) - 2 if pools is None else pools
        nodes = range(1, rows * columns + 1)
        inputs = tuple(Decision(f"input/{n}/{k}", tuple(map(str, self.sources(n)))) for n in nodes for k in (0, 1))
        decisions = {
            "functions": tuple(Decision(f"function/{n}", self.functions) for n in nodes),
            "inputs": inputs,
            "output": (Decision("output", tuple(map(str, nodes[-rows * min(level_back, columns) :]))),),
        }
        order = [name for n in nodes for name in (f"function/{n}", f"input/{n}/0", f"input/{n}/1")]
        published = (rows, columns, level_back) == (5, 30, 10) and functions in ("conv", "res")
        name = f"cgp_{functions}" if published else f"cgp_{rows}x{columns}_{level_back}"
        super().__init__(name, decisions, [*order, "output"])
        self._sizes = [len(self._rows[row].choices) for row in self.order]

    def sources(self, node: int) -> range:
        """The nodes, or the picture, that a node may take."""
        column = (node - 1) // self.rows
        first = 0 if column < self.level_back else 1 + (column - self.level_back) * self.rows
        return range(first, 1 + column * self.rows)

    def layers(self, genotype: Genotype) -> dict[int, tuple[str, tuple[int, ...]]]:
        """Active node, in rising order, -> its function and the nodes that it takes; the last is the output."""
        genes = self._genes(genotype)
        return {n: (self.functions[genes[3 * n - 3]], self._inputs(genes, n)) for n in self._active(genes)}

    def _genes(self, genotype: Genotype) -> list[int]:
        super().check(genotype)
        return [genotype.picks[name][0] for name in self.order]

    def _inputs(self, genes: Sequence[int], node: int) -> tuple[int, ...]:
        sources = self.sources(node)
        first, second = sources[genes[3 * node - 2]], sources[genes[3 * node - 1]]
        return (first, second) if self.functions[genes[3 * node - 3]] in _JOINS else (first,)

    def _active(self, genes: Sequence[int]) -> list[int]:
        """The nodes that the output needs, in rising order."""
        last = self.rows * self.columns
        needed, stack = set[int](), [last - self._sizes[-1] + 1 + genes[-1]]
        while stack:
            node = stack.pop()
            if node and node not in needed:
                needed.add(node)
                stack += self._inputs(genes, node)
        return sorted(needed)

    def _used(self, genes: Sequence[int]) -> list[int]:
        """The positions of the genes that make a difference."""
        used = [len(genes) - 1]
        for node in self._active(genes):
            used += range(3 * node - 3, 3 * node - 2 + len(self._inputs(genes, node)))
        return used

    def _within(self, genes: Sequence[int]) -> bool:
        active = self._active(genes)
        pools = sum(self.functions[genes[3 * node - 3]] in _POOLS for node in active)
        return self.limits[0] <= len(active) <= self.limits[1] and pools <= self.pools

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        if not self._within(self._genes(genotype)):
            raise ValueError(
                f"a genotype of {self.name!r} has {self.limits[0]} to {self.limits[1]} active nodes, and at most"
                f" {self.pools} poolings among them; this one has {len(self._active(self._genes(genotype)))} nodes"
            )
        return genotype

    def _first_within(self, draw: Callable[[], list[int] | None]) -> Genotype:
        """The first draw for which the limits hold."""
        for _ in range(_TRIES):
            genes = draw()
            if genes is not None and self._within(genes):
                return self.from_indices(genes)
        raise ValueError(f"{self.name!r}: active={self.limits}, pools={self.pools} hold too seldom; give wider limits")

    def sample(self, rng: random.Random) -> Genotype:
        """Every gene uniformly, until the limits hold."""
        return self._first_within(lambda: [rng.randrange(size) for size in self._sizes])

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """Another choice in one gene, active or not, such that the limits hold."""
        old = self._genes(genotype)
        movable = [k for k, size in enumerate(self._sizes) if size > 1]

        def draw() -> list[int]:
            place = rng.choice(movable)
            return [*old[:place], _another(old[place], self._sizes[place], rng), *old[place + 1 :]]

        return self._first_within(draw)

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes with another choice in one gene for which the limits hold."""
        old = self._genes(genotype)
        for place, size in enumerate(self._sizes):
            for choice in set(range(size)) - {old[place]}:
                genes = [*old[:place], choice, *old[place + 1 :]]
                if self._within(genes):
                    yield self.from_indices(genes)

    def forced(self, genotype: Genotype, rng: random.Random, rate: float = 0.1) -> Genotype:
        """Each gene changes with probability `rate`, again and again from the start until an active one has.

        Args:
            genotype: A genotype.
            rng: Source of randomness.
            rate: Probability, more than 0.
        """
        old = self._genes(genotype)
        used = self._used(old)

        def draw() -> list[int] | None:
            genes = self._changed(old, set(), rng, rate)
            return genes if any(genes[place] != old[place] for place in used) else None

        return self._first_within(draw)

    def neutral(self, genotype: Genotype, rng: random.Random, rate: float = 0.1) -> Genotype:
        """Each gene that makes no difference changes with probability `rate`; the network stays the same.

        Args:
            genotype: A genotype.
            rng: Source of randomness.
            rate: Probability.
        """
        old = self._genes(genotype)
        return self.from_indices(self._changed(old, set(self._used(old)), rng, rate))

    def _changed(self, old: Sequence[int], still: set[int], rng: random.Random, rate: float) -> list[int]:
        """The genes, those that may change and have another choice changed by chance."""
        genes = list(old)
        for place, size in enumerate(self._sizes):
            if place not in still and size > 1 and rng.random() < rate:
                genes[place] = _another(genes[place], size, rng)
        return genes

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype whose genes that make no difference are 0; the same layers elsewhere in the grid differ."""
        genes = self._genes(genotype)
        used = set(self._used(genes))
        return self.from_indices([gene if place in used else 0 for place, gene in enumerate(genes)])

    def format(self, genotype: Genotype) -> str:
        """JSON in one line: function and two inputs of each node, and the output, all as indices of the choices."""
        return json.dumps({"space": self.name, "genes": self._genes(genotype)})

    def parse(self, text: str) -> Genotype:
        """Read what `format` or `to_json` wrote.

        Raises:
            ValueError: If it is no genotype of this space; the message says what is wrong.
        """
        genes = read_value(self.name, text, "genes")
        if genes is None:
            return self.from_json(text)
        if not isinstance(genes, list) or len(genes) != len(self.order) or any(type(gene) is not int for gene in genes):
            raise ValueError(f"genes must be {len(self.order)} whole numbers, not {str(genes)[:60]!r}")
        return self.check(self.from_indices(genes))

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The active nodes with their functions, and plain wires."""
        layers = self.layers(genotype)
        at = {0: 0} | {node: index for index, node in enumerate(layers, start=1)}
        edges = [(at[source], at[node], "") for node, (_, inputs) in layers.items() for source in dict.fromkeys(inputs)]
        names = (f"{at[node]}: {function}" for node, (function, _) in layers.items())
        last = len(layers)
        return {"network": CellGraph(("input", *names, "output"), (*edges, (last, last + 1, "")))}


def _another(choice: int, size: int, rng: random.Random) -> int:
    """A choice other than this one, of at least two."""
    other = rng.randrange(size - 1)
    return other + (other >= choice)
