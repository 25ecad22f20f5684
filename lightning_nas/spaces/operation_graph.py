"""Genotypes of any space as graphs with the operations on the vertices, for encodings and predictors."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from graphlib import TopologicalSorter

from lightning_nas.arch import Genotype
from lightning_nas.spaces.base import CellGraph, Space

__all__ = [
    "INPUT",
    "OUTPUT",
    "OperationGraph",
    "cell_graph",
    "cell_kinds",
    "operation_graph",
    "operations",
    "vocabulary",
]

INPUT, OUTPUT = "input", "output"

_SUM = re.compile(r"\d+")  # a node that only sums or concatenates
_CELL_INPUT = re.compile(r"c_\{k-(\d+)\}")
_NUMBERED = re.compile(r"\d+: (.+)")
_NOTHING = ("none", "Zero")
_PASSES_ON = ("skip_connect", "skip", "Identity", "identity")


@dataclass(frozen=True)
class OperationGraph:
    """A directed acyclic graph with one vertex for each operation, and for each input and output of a cell.

    Args:
        labels: What each vertex is: an operation, ``"input"`` (of a cell with two: ``"input 2"`` is the one before the
            last cell's), ``"output"``; in topological order, cell by cell.
        edges: Pairs ``(source, target)`` of vertices, ascending.
    """

    labels: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


@lru_cache(maxsize=20_000)  # searches ask for the same graphs again and again
def operation_graph(space: Space, genotype: Genotype, prune: bool = False) -> OperationGraph:
    """The graph of a genotype: all its cells in one, an operation on an edge becomes a vertex on that edge.

    Args:
        space: The genotype's space.
        genotype: The genotype.
        prune: Whether what computes nothing is left out: skip connections become wires, operations that return zero
            and vertices that are on no way from an input to an output are deleted.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
        >>> operation_graph(space, space.parse(text), prune=True)
        OperationGraph(labels=('input', 'nor_conv_3x3', 'nor_conv_1x1', 'output'), edges=((0, 1), (1, 2), (2, 3)))
    """
    labels: list[str] = []
    edges: list[tuple[int, int]] = []
    for graph in space.graphs(genotype).values():
        cell = cell_graph(graph, prune)
        edges += [(source + len(labels), target + len(labels)) for source, target in cell.edges]
        labels += cell.labels
    return OperationGraph(tuple(labels), tuple(edges))


def cell_graph(graph: CellGraph, prune: bool = False) -> OperationGraph:
    """One cell as such a graph, its sums dissolved into wires.

    Args:
        graph: The cell.
        prune: As in `operation_graph`.

    Raises:
        ValueError: If none of its nodes is an input, or none is an output; see `CellGraph` for their labels.
    """
    kinds = [_kind(label) for label in graph.nodes]
    if not any(kind.startswith(INPUT) for kind in kinds) or OUTPUT not in kinds:
        side = "output" if any(kind.startswith(INPUT) for kind in kinds) else "input"
        raise ValueError(
            f"none of the nodes {list(graph.nodes)[:20]} of a cell is an {side}; label inputs 'input' (or 'c_{{k-2}}'"
            " and 'c_{k-1}'), the output 'output', and nodes that only sum by numbers, see CellGraph"
        )
    after: dict[int, list[int]] = {vertex: [] for vertex in range(len(kinds))}
    for source, target, op in graph.edges:
        if not op:
            after[source].append(target)
        else:
            after[source].append(len(kinds))
            after[len(kinds)] = [target]
            kinds.append(op)
    if prune:
        kinds = ["" if kind in _PASSES_ON else kind for kind in kinds]
        alive = _between(kinds, after)
    else:
        alive = set(after)
    kept = [vertex for vertex in _sorted(after, len(graph.nodes)) if kinds[vertex] and vertex in alive]
    place = {vertex: index for index, vertex in enumerate(kept)}
    edges = {(place[v], place[w]) for v in kept for w in _reached(v, kinds, after) if w in place}
    return OperationGraph(tuple(kinds[vertex] for vertex in kept), tuple(sorted(edges)))


def _kind(label: str) -> str:
    """What a node is; empty for one that only sums."""
    if _SUM.fullmatch(label):
        return ""
    if found := _CELL_INPUT.fullmatch(label):
        return INPUT if found[1] == "1" else f"{INPUT} {found[1]}"
    found = _NUMBERED.fullmatch(label)
    return label if found is None else found[1]


def _sorted(after: Mapping[int, list[int]], nodes: int) -> list[int]:
    """A topological order: the nodes as they stand, each operation of an edge before the node that it ends in."""
    order = []
    into: dict[int, list[int]] = {node: [] for node in range(nodes)}
    for vertex in range(nodes, len(after)):
        into[after[vertex][0]].append(vertex)
    for node in TopologicalSorter({v: [u for u in after if v in after[u]] for v in after}).static_order():
        if node < nodes:
            order += [*into[node], node]
    return order


def _between(kinds: list[str], after: Mapping[int, list[int]]) -> set[int]:
    """The vertices on a way from an input to an output that nothing blocks."""
    open_ = {v: [w for w in into if kinds[w] not in _NOTHING] for v, into in after.items() if kinds[v] not in _NOTHING}
    back: dict[int, list[int]] = {v: [] for v in after}
    for v, into in open_.items():
        for w in into:
            back[w].append(v)
    starts = [v for v, kind in enumerate(kinds) if kind.startswith(INPUT)]
    ends = [v for v, kind in enumerate(kinds) if kind == OUTPUT]
    return (_closure(starts, open_) & _closure(ends, back)) | set(starts) | set(ends)


def _closure(start: list[int], after: Mapping[int, list[int]]) -> set[int]:
    found, left = set(start), list(start)
    while left:
        new = [w for w in after.get(left.pop(), ()) if w not in found]
        found.update(new)
        left += new
    return found


def _reached(vertex: int, kinds: list[str], after: Mapping[int, list[int]]) -> set[int]:
    """The next vertices that are more than a sum."""
    found: set[int] = set()
    left, seen = list(after[vertex]), set()
    while left:
        w = left.pop()
        if w in seen:
            continue
        seen.add(w)
        if kinds[w]:
            found.add(w)
        else:
            left += after[w]
    return found


@lru_cache(maxsize=64)
def cell_kinds(space: Space) -> tuple[str, ...]:
    """The kinds of cell of a space, for what tells cells apart by their kind.

    Args:
        space: A space whose genotypes all have the same kinds; a few hundred random ones are looked at.

    Raises:
        ValueError: If some genotypes lack a kind that others have.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> cell_kinds(get_space("darts"))
        ('normal', 'reduce')
    """
    rng = random.Random(0)  # noqa: S311
    seen = [tuple(space.graphs(space.sample(rng))) for _ in range(300)]
    lacking = sorted({kind for kinds in seen for kind in kinds if not all(kind in others for others in set(seen))})
    if lacking:
        raise ValueError(
            f"some genotypes of {space.name!r} have no cell {lacking}, so cells cannot be told apart by their kind, as"
            " PathEncoder and GATES do; take decisions (AdjacencyEncoder), or a graph with a predictor that reads all"
            " of it (BRPNAS)"
        )
    return seen[0]


def operations(space: Space) -> tuple[str, ...]:
    """The names of a space's operations, in the order of its decisions.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> operations(get_space("nasbench101"))
        ('conv3x3-bn-relu', 'conv1x1-bn-relu', 'maxpool3x3')
    """
    return tuple(label for label in vocabulary(space) if label != OUTPUT and not label.startswith(INPUT))


@lru_cache(maxsize=64)
def vocabulary(space: Space) -> tuple[str, ...]:
    """All labels that vertices of a space's graphs may have: inputs, output, then the operations.

    They are those of the decisions' choices that appear in graphs, in the order of the decisions, and whatever else a
    few hundred random genotypes show.
    """
    choices = [choice for rows in space.decisions.values() for row in rows for choice in row.choices]
    rng = random.Random(0)  # noqa: S311
    seen = {label for _ in range(300) for label in operation_graph(space, space.sample(rng)).labels}
    inputs = sorted(label for label in seen if label.startswith(INPUT))
    named = [choice for choice in dict.fromkeys(choices) if not choice.isdigit()]
    rest = sorted(seen - set(inputs) - {OUTPUT} - set(named))
    return (*inputs, OUTPUT, *named, *rest)
