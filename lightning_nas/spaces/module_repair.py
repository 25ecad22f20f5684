"""From scores of edges to a module of NAS-Bench-101 that has a way from its input to its output and few edges."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_nas.spaces.module_hash import live_vertices

__all__ = ["repair"]


def repair(gain: Mapping[tuple[int, int], float], vertices: int, most: int) -> set[tuple[int, int]]:
    """The edges of a valid module, near those that gain something.

    If no way leads from the input to the output, the one whose weakest edge is the strongest is added. While more than
    `most` edges are on such ways, the weakest that can go goes.

    Args:
        gain: ``(source, target)`` -> how much better an edge is than none; ``-inf`` if it must not be, ``inf`` if it
            must be.
        vertices: Number of vertices.
        most: How many edges may be on ways from the input to the output.

    Raises:
        ValueError: If no such module has all edges that must be and none that must not be.

    Example:
        >>> repair({(0, 1): -1.0, (0, 2): -3.0, (1, 2): 2.0}, vertices=3, most=2) == {(0, 1), (1, 2)}
        True
    """
    edges = {edge for edge, value in gain.items() if value > 0}
    if not _live_edges(edges, vertices):
        edges |= _widest_way(gain, vertices)
    while len(live := _live_edges(edges, vertices)) > most:
        spare = [e for e in live if gain[e] < math.inf and _live_edges(edges - {e}, vertices)]
        if not spare:
            raise ValueError(f"{len(live)} edges must be, and at most {most} may be; leave more edges open")
        edges -= {min(spare, key=lambda edge: (gain[edge], edge))}
    return edges


def _live_edges(edges: set[tuple[int, int]], vertices: int) -> list[tuple[int, int]]:
    rows = tuple(tuple(int((s, t) in edges) for t in range(vertices)) for s in range(vertices))
    kept = live_vertices(rows)
    return [edge for edge in sorted(edges) if set(edge) <= set(kept)]


def _widest_way(gain: Mapping[tuple[int, int], float], vertices: int) -> set[tuple[int, int]]:
    """The edges of the way to the last vertex whose weakest edge is the strongest; of several the shortest."""
    ways: list[tuple[float, int, set[tuple[int, int]]]] = [(math.inf, 0, set())]
    for target in range(1, vertices):
        longer = [(min(ways[s][0], gain[s, target]), ways[s][1] - 1, ways[s][2] | {(s, target)}) for s in range(target)]
        ways.append(max(longer, key=lambda way: way[:2]))
    if ways[-1][0] == -math.inf:
        raise ValueError("the edges that are open lead on no way from input to output; leave more edges open")
    return ways[-1][2]
