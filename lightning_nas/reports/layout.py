"""Where the parts of a cell stand in its picture: layers from left to right, one place for each edge in each layer."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from random import Random

import networkx as nx

from lightning_nas.spaces import CellGraph

__all__ = ["Box", "CellLayout", "Route", "layout_cell"]

_OP_HEIGHT, _PORT, _GAP, _STUB = 0.24, 0.15, 0.11, 0.1
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle, in inches from the upper left corner: centre and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Route:
    """The way of an edge: a straight line through each layer, ``(x, y)`` to ``(x, y)``, with curves between them."""

    lines: tuple[tuple[Point, Point], ...]


@dataclass(frozen=True)
class CellLayout:
    """A picture of a cell, in inches.

    Args:
        width: Width of everything.
        height: Height of everything.
        nodes: A box for each node.
        ops: Index of each labelled edge -> the box of its label.
        routes: The way of each edge.
    """

    width: float
    height: float
    nodes: tuple[Box, ...]
    ops: dict[int, Box]
    routes: tuple[Route, ...]


def layout_cell(graph: CellGraph, node_widths: Sequence[float], op_widths: Sequence[float]) -> CellLayout:
    """Lay out a cell so that boxes do not overlap and no edge passes through the box of another.

    Nodes stand in layers by their longest path from the inputs. Each edge has a place of its own in every layer that
    it crosses, and a labelled one a box in the layer before its target; the order within the layers has few crossings
    (K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system structures", IEEE
    Transactions on Systems, Man, and Cybernetics, 1981).

    Args:
        graph: The cell.
        node_widths: Width of each node's box in inches.
        op_widths: Width of each edge's box in inches; not used for an edge without label.

    Example:
        >>> layout = layout_cell(CellGraph(("a", "b"), ((0, 1, "skip"), (0, 1, "conv"))), [0.3, 0.3], [0.6, 0.6])
        >>> len(layout.ops), layout.nodes[0].x < layout.ops[0].x < layout.nodes[1].x
        (2, True)
    """
    layers = _Layers.of(graph)
    _order(layers)
    y = _heights(layers)
    widths = [*node_widths, *(0.0 for _ in layers.size[len(graph.nodes) :])]
    for edge, item in layers.box.items():
        widths[item] = op_widths[edge]
    return _place(graph, layers, y, widths)


@dataclass
class _Layers:
    """Items in layers: first the nodes, then what stands for an edge in the layers that it crosses."""

    columns: list[list[int]]
    chains: list[list[int]]
    size: list[float]
    box: dict[int, int] = field(default_factory=dict)
    links: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, graph: CellGraph) -> _Layers:
        rank = _ranks(graph)
        columns: list[list[int]] = [[] for _ in range(max(rank) + 1)]
        for node, r in enumerate(rank):
            columns[r].append(node)
        degree = [max(sum(e[k] == node for e in graph.edges) for k in (0, 1)) for node in range(len(rank))]
        layers = cls(columns, [], [max(0.3, _PORT * d + 0.08) for d in degree])
        for index, (source, target, label) in enumerate(graph.edges):
            chain = [source]
            for r in range(rank[source] + 1, rank[target]):
                chain.append(len(layers.size))
                columns[r].append(chain[-1])
                layers.size.append(_OP_HEIGHT if label and r == rank[target] - 1 else 0.0)
            if label:
                layers.box[index] = chain[-1]
            layers.chains.append([*chain, target])
        layers.links = [link for chain in layers.chains for link in pairwise(chain)]
        return layers

    def positions(self) -> dict[int, int]:
        """Item -> its place in its layer."""
        return {item: place for column in self.columns for place, item in enumerate(column)}

    def neighbours(self, side: int) -> list[list[int]]:
        """Item -> the items that it is joined to on the left (0) or on the right (1)."""
        found: list[list[int]] = [[] for _ in self.size]
        for link in self.links:
            found[link[1 - side]].append(link[side])
        return found

    def crossings(self) -> int:
        """How many pairs of links between neighbouring layers cross."""
        at, count = self.positions(), 0
        rank = {item: r for r, column in enumerate(self.columns) for item in column}
        between: dict[int, list[tuple[int, int]]] = {}
        for left, right in self.links:
            between.setdefault(rank[left], []).append((at[left], at[right]))
        for pairs in between.values():
            passed: list[int] = []
            for _, right in sorted(pairs):
                count += len(passed) - bisect_right(passed, right)
                insort(passed, right)
        return count


def _ranks(graph: CellGraph) -> list[int]:
    """The layer of each node: by the longest path to it, with a layer before it for the labels of its edges, if any.

    The output, which is the last node, stands behind all others.
    """
    dag = nx.DiGraph((source, target) for source, target, _ in graph.edges)
    dag.add_nodes_from(range(len(graph.nodes)))
    depth = {node: 2 * d for d, layer in enumerate(nx.topological_generations(dag)) for node in layer}
    last = len(graph.nodes) - 1
    depth[last] = max((d + 2 for node, d in depth.items() if node != last), default=0)
    used = {*depth.values(), *(depth[target] - 1 for _, target, label in graph.edges if label)}
    dense = {d: r for r, d in enumerate(sorted(used))}
    return [dense[depth[node]] for node in range(len(graph.nodes))]


def _order(layers: _Layers, restarts: int = 6, sweeps: int = 6) -> None:
    """Order each layer by the mean place of its neighbours, back and forth; keep what crosses least."""
    rng = Random(0)  # noqa: S311
    best, fewest = [list(column) for column in layers.columns], layers.crossings()
    sides = (layers.neighbours(0), layers.neighbours(1))
    for _ in range(restarts):
        for sweep in range(2 * sweeps):
            columns = layers.columns if sweep % 2 == 0 else layers.columns[::-1]
            for column in columns:
                _sort(layers, column, sides[sweep % 2])
            count = layers.crossings()
            if count < fewest:
                best, fewest = [list(column) for column in layers.columns], count
        for column in layers.columns:
            rng.shuffle(column)
    layers.columns = best
    if layers.columns[0][0] != 0:
        layers.columns = [column[::-1] for column in layers.columns]  # the first input stands on top


def _sort(layers: _Layers, column: list[int], neighbours: list[list[int]]) -> None:
    at = layers.positions()
    mean = {i: sum(at[n] for n in neighbours[i]) / len(neighbours[i]) if neighbours[i] else at[i] for i in column}
    column.sort(key=mean.__getitem__)


def _heights(layers: _Layers, sweeps: int = 40) -> list[float]:
    """The vertical centre of each item: near its neighbours, straight where an edge only passes."""
    y = [0.0] * len(layers.size)
    sides = (layers.neighbours(0), layers.neighbours(1))
    for column in layers.columns:
        _settle(column, [0.0] * len(column), layers.size, y)
    for sweep in range(sweeps):
        for column in layers.columns if sweep % 2 else layers.columns[::-1]:
            wanted = []
            for item in column:
                near = [(y[n], 1 if layers.size[n] or layers.size[item] else 6) for n in sides[0][item]]
                near += [(y[n], 1 if layers.size[n] or layers.size[item] else 6) for n in sides[1][item]]
                total = sum(weight for _, weight in near)
                wanted.append(sum(value * weight for value, weight in near) / total if total else y[item])
            _settle(column, wanted, layers.size, y)
    _straighten(layers, y)
    top = min(y[i] - layers.size[i] / 2 for column in layers.columns for i in column)
    return [value - top for value in y]


def _settle(column: list[int], wanted: list[float], size: list[float], y: list[float]) -> None:
    """The heights nearest to those wanted (in squares) that keep the order and a gap: pooled adjacent violators."""
    offset, offsets = 0.0, []
    for place, item in enumerate(column):
        offset += (size[column[place - 1]] + size[item]) / 2 + _GAP if place else 0.0
        offsets.append(offset)
    blocks: list[tuple[float, int]] = []
    for value, shift in zip(wanted, offsets, strict=True):
        mean, count = value - shift, 1
        while blocks and blocks[-1][0] > mean:
            last, n = blocks.pop()
            mean, count = (mean * count + last * n) / (count + n), count + n
        blocks.append((mean, count))
    settled = [mean for mean, count in blocks for _ in range(count)]
    for item, value, shift in zip(column, settled, offsets, strict=True):
        y[item] = value + shift


def _straighten(layers: _Layers, y: list[float]) -> None:
    """Bring an edge to one height in all the layers that it only passes, where its neighbours leave room for that."""
    beside: dict[int, tuple[list[int], list[int]]] = {}
    for column in layers.columns:
        for place, item in enumerate(column):
            beside[item] = (column[max(place - 1, 0) : place], column[place + 1 : place + 2])
    for chain in layers.chains:
        passed = [item for item in chain if not layers.size[item]]
        if len(passed) > 1:
            low = max([y[n] + layers.size[n] / 2 + _GAP for i in passed for n in beside[i][0]], default=-inf)
            high = min([y[n] - layers.size[n] / 2 - _GAP for i in passed for n in beside[i][1]], default=inf)
            if low <= high:
                height = min(max(sum(y[i] for i in passed) / len(passed), low), high)
                for item in passed:
                    y[item] = height


def _place(graph: CellGraph, layers: _Layers, y: list[float], widths: list[float]) -> CellLayout:
    """Columns beside each other, wider apart where edges are steep; edges leave and enter a node one above another."""
    start, bounds = 0.0, {}
    rank = {item: r for r, column in enumerate(layers.columns) for item in column}
    for r, column in enumerate(layers.columns):
        end = start + max((widths[item] for item in column), default=0.0)
        steep = max((abs(y[a] - y[b]) for a, b in layers.links if rank[a] == r), default=0.0)
        bounds[r] = (start, end)
        start = end + 0.2 + _STUB + min(0.16 * steep, 0.3)
    boxes = [Box(sum(bounds[rank[i]]) / 2, y[i], widths[i], layers.size[i]) for i in range(len(y))]
    ports = {}
    for end in (0, -1):
        for node in range(len(graph.nodes)):
            ends = [k for k, chain in enumerate(layers.chains) if chain[end] == node]
            ends.sort(key=lambda k: (y[layers.chains[k][1 if end == 0 else -2]], k))
            for place, k in enumerate(ends):
                ports[k, end] = y[node] + _PORT * (place - (len(ends) - 1) / 2)
    routes = []
    for k, chain in enumerate(layers.chains):
        source, target = boxes[chain[0]], boxes[chain[-1]]
        first = ((source.x + source.width / 2, ports[k, 0]), (bounds[rank[chain[0]]][1], ports[k, 0]))
        final = ((bounds[rank[chain[-1]]][0] - _STUB, ports[k, -1]), (target.x - target.width / 2, ports[k, -1]))
        between = [((bounds[rank[i]][0], y[i]), (bounds[rank[i]][1], y[i])) for i in chain[1:-1]]
        routes.append(Route((first, *between, final)))
    height = max(box.y + box.height / 2 for box in boxes)
    ops = {edge: boxes[item] for edge, item in layers.box.items()}
    return CellLayout(bounds[len(bounds) - 1][1], height, tuple(boxes[: len(graph.nodes)]), ops, tuple(routes))
