"""Modules of NAS-Bench-101 as labelled graphs: what reaches the output, their hash, their least form, their widths.

A module is an adjacency matrix, strictly upper triangular with entries 0 and 1, and a name for each vertex. The first
vertex is the input and the last one the output; their names are not looked at.

Reference:
    Ying, Klein, Christiansen, Real, Murphy and Hutter, "NAS-Bench-101: Towards Reproducible Neural Architecture
    Search", ICML 2019.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np

__all__ = ["NB101_OPS", "Matrix", "least_module", "module_hash", "prune", "read_matrix", "vertex_channels"]

NB101_OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""Operations in the order of the labels that the hash takes."""

Matrix = tuple[tuple[int, ...], ...]
"""``matrix[i][j]`` is 1 if vertex `j` takes the output of vertex `i`, else 0."""


def read_matrix(matrix: Any) -> Matrix:
    """An adjacency matrix from rows of 0 and 1: lists, an array, or strings.

    Raises:
        ValueError: If it is not square with at least two vertices, or not strictly upper triangular of 0 and 1.

    Example:
        >>> read_matrix(["01", "00"])
        ((0, 1), (0, 0))
    """
    try:
        rows = tuple(tuple(int(entry) for entry in row) for row in matrix)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"not an adjacency matrix: {str(matrix)[:80]!r}; give rows of 0 and 1") from None
    if len(rows) < 2 or any(len(row) != len(rows) for row in rows):
        sizes = [len(row) for row in rows][:9]
        raise ValueError(f"a module's matrix is square with at least two vertices; given are rows of {sizes} entries")
    for source, row in enumerate(rows):
        if any(row[: source + 1]) or not set(row) <= {0, 1}:
            given = str(row)[:80]
            raise ValueError(f"row {source} reads {given}; edges are 0 or 1 and lead to later vertices only")
    return rows


def prune(matrix: Any, ops: Sequence[str]) -> tuple[Matrix, tuple[str, ...]]:
    """Take away every vertex that is not on a way from the input to the output.

    Args:
        matrix: Adjacency matrix, as `read_matrix` takes it.
        ops: Name of each vertex.

    Returns:
        The matrix and the names of what is left, in the same order.

    Raises:
        ValueError: If the matrix is none, the names do not fit, or no way leads from the input to the output.

    Example:
        >>> prune(["0101", "0010", "0000", "0000"], ("input", "maxpool3x3", "maxpool3x3", "output"))
        (((0, 1), (0, 0)), ('input', 'output'))
    """
    rows = read_matrix(matrix)
    if len(ops) != len(rows):
        raise ValueError(f"{len(ops)} operations were given for {len(rows)} vertices; input and output count too")
    kept = live_vertices(rows)
    if not kept:
        raise ValueError("no way leads from the input to the output of the module; add an edge")
    return tuple(tuple(rows[i][j] for j in kept) for i in kept), tuple(ops[i] for i in kept)


@lru_cache(maxsize=65536)
def live_vertices(rows: Matrix) -> tuple[int, ...]:
    """The vertices on ways from the input to the output; none if there is no way."""
    last = len(rows) - 1
    after, before = {0}, {last}
    for vertex in range(1, last + 1):
        if any(rows[source][vertex] for source in after):
            after.add(vertex)
    for vertex in range(last - 1, -1, -1):
        if any(rows[vertex][target] for target in before):
            before.add(vertex)
    kept = after & before
    return tuple(sorted(kept)) if {0, last} <= kept else ()


def module_hash(matrix: Any, ops: Sequence[str]) -> str:
    """The benchmark's key of a module: 32 hexadecimal digits, the same for all modules that compute the same.

    The module is pruned first. Then each vertex has a digest of its degrees and its operation, which takes in those
    of its neighbours as many times as there are vertices.

    Args:
        matrix: Adjacency matrix, as `read_matrix` takes it.
        ops: Name of each vertex; those between input and output are of `NB101_OPS`.

    Raises:
        ValueError: If the module is none, has no way to its output, or an operation is unknown.

    Example:
        >>> module_hash(["01", "00"], ("input", "output"))
        '043721b9c7fe8c5fad811d47d83132ec'
    """
    kept, names = prune(matrix, ops)
    return _hash(kept, op_labels(names))


def op_labels(names: Sequence[str]) -> tuple[int, ...]:
    """The number of the operation of each vertex between input and output.

    Raises:
        ValueError: If an operation is unknown.
    """
    unknown = [str(name)[:60] for name in names[1:-1] if name not in NB101_OPS]
    if unknown:
        raise ValueError(f"unknown operation {unknown[0]!r}; allowed are {NB101_OPS}")
    return tuple(NB101_OPS.index(name) for name in names[1:-1])


@lru_cache(maxsize=65536)
def _hash(rows: Matrix, labels: tuple[int, ...]) -> str:
    vertices = range(len(rows))
    into = [[w for w in vertices if rows[w][v]] for v in vertices]
    out = [[w for w in vertices if rows[v][w]] for v in vertices]
    digests = [_md5(str((len(out[v]), len(into[v]), label))) for v, label in enumerate((-1, *labels, -2))]
    for _ in vertices:
        digests = [_md5(f"{_joined(digests, into[v])}|{_joined(digests, out[v])}|{digests[v]}") for v in vertices]
    return _md5(str(sorted(digests)))


def _joined(digests: list[str], vertices: list[int]) -> str:
    return "".join(sorted(digests[vertex] for vertex in vertices))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=65536)
def least_module(rows: Matrix, labels: tuple[int, ...]) -> tuple[Matrix, tuple[int, ...]]:
    """Of all orders of the inner vertices in which edges lead forward, the least matrix, and then the least labels.

    Args:
        rows: Adjacency matrix, ``(V, V)``, of at most 7 vertices.
        labels: A small number for each of the ``V - 2`` inner vertices.

    Returns:
        Matrix and labels; the same for isomorphic modules, and for no others.

    Example:
        >>> least_module(((0, 1, 1, 0), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0)), (2, 0))[1]
        (0, 2)
    """
    orders = _orders(len(rows))
    moved = np.array(rows)[orders[:, :, None], orders[:, None, :]]
    named = np.array((0, *labels, 0))[orders]
    forward = ~np.tril(moved).any(axis=(1, 2))
    best, names = min(zip(moved[forward].tolist(), named[forward].tolist(), strict=True))
    return tuple(map(tuple, best)), tuple(names[1:-1])


@lru_cache(maxsize=8)
def _orders(vertices: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """All orders of the vertices that leave the first and the last in place, ``((V - 2)!, V)``."""
    inner = [(0, *order, vertices - 1) for order in permutations(range(1, vertices - 1))]
    return np.array(inner, dtype=np.int64)


def vertex_channels(in_channels: int, out_channels: int, matrix: Any) -> tuple[int, ...]:
    """The width of each vertex of a pruned module.

    The vertices that the output concatenates share its channels evenly; the first ones have one more where that does
    not come out. The others are as wide as the widest vertex that they feed.

    Args:
        in_channels: Channels of the module's input.
        out_channels: Channels of its output.
        matrix: Adjacency matrix of a pruned module.

    Raises:
        ValueError: If fewer channels than vertices are to be shared.

    Example:
        >>> vertex_channels(8, 5, ["0110", "0001", "0001", "0000"])
        (8, 3, 2, 5)
    """
    rows = read_matrix(matrix)
    last = len(rows) - 1
    sharing = [v for v in range(1, last) if rows[v][last]]
    if len(sharing) > out_channels:
        raise ValueError(f"{out_channels} channels cannot be shared by {len(sharing)} vertices; give more channels")
    widths = {0: in_channels, last: out_channels}
    for place, vertex in enumerate(sharing):
        widths[vertex] = out_channels // len(sharing) + (place < out_channels % len(sharing))
    for vertex in range(last - 1, 0, -1):
        if vertex not in widths:
            widths[vertex] = max(widths[target] for target in range(vertex + 1, last) if rows[vertex][target])
    return tuple(widths[vertex] for vertex in range(last + 1))
