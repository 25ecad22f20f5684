"""Genotypes that build the same network have one representative, and others have not."""

from __future__ import annotations

import random
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nas.spaces import DARTSSpace, NASBench201Space

Cell = list[tuple[int, int, str]]
"""``(target, source, operation)`` for each edge."""


def relabelings(cell: Cell, nodes: int) -> list[Cell]:
    """The cell under every renumbering of its nodes after which edges still point forward."""
    found = []
    for order in permutations(range(2, 2 + nodes)):
        new = {0: 0, 1: 1} | dict(zip(range(2, 2 + nodes), order, strict=True))
        moved = [(new[target], new[source], op) for target, source, op in cell]
        if all(source < target for target, source, _ in moved):
            found.append(sorted(moved))
    return found


def text(normal: Cell, reduce: Cell, nodes: int) -> str:
    """The published form."""
    both = {"normal": normal, "reduce": reduce}
    cells = {kind: [(op, source) for _, source, op in sorted(cell)] for kind, cell in both.items()}
    concat = f"range(2, {2 + nodes})"
    return (
        f"Genotype(normal={cells['normal']}, normal_concat={concat}, reduce={cells['reduce']}, reduce_concat={concat})"
    )


def edges(space: DARTSSpace, seed: int) -> list[Cell]:
    """The two cells of a random genotype."""
    genotype = space.sample(random.Random(seed))
    return [
        [
            (*space.topology.edges[row], space.op_name(kind, row, k))
            for row, k in space.kept_rows(genotype, kind).items()
        ]
        for kind in space.kinds
    ]


@settings(max_examples=40, deadline=None, database=None)
@given(seed=st.integers(0, 2**32))
def test_darts_canonical_is_blind_to_the_order_of_nodes(seed: int) -> None:
    space = DARTSSpace()
    normal, reduce = edges(space, seed)
    canonical = space.canonical(space.parse(text(normal, reduce, 4)))
    for moved_normal, moved_reduce in zip(relabelings(normal, 4), reversed(relabelings(reduce, 4)), strict=False):
        assert space.canonical(space.parse(text(moved_normal, moved_reduce, 4))) == canonical
    for moved in relabelings(normal, 4):
        assert space.canonical(space.parse(text(moved, reduce, 4))) == canonical


def test_darts_canonical_tells_all_other_cells_apart() -> None:
    """Every normal cell of a space with three nodes and two operations: as many classes as orbits by brute force."""
    space = DARTSSpace("small", ("skip_connect", "sep_conv_3x3"), nodes=3)
    fixed: Cell = edges(space, 0)[1]
    wirings = product([(0, 1)], [(0, 1), (0, 2), (1, 2)], [(a, b) for a in range(4) for b in range(a + 1, 4)])
    orbits, representatives = set(), set()
    for wiring in wirings:
        for ops in product(("skip_connect", "sep_conv_3x3"), repeat=6):
            pairs = [(2 + node, source) for node, sources in enumerate(wiring) for source in sources]
            cell = [(*pair, op) for pair, op in zip(pairs, ops, strict=True)]
            orbits.add(min(map(tuple, relabelings(cell, 3))))
            representatives.add(space.canonical(space.parse(text(cell, fixed, 3))))
    assert len(representatives) == len(orbits)
    assert len(orbits) < 3 * 6 * 2**6


def test_darts_canonical_where_edges_have_lists_of_their_own() -> None:
    """As many classes as orbits, where an order counts only if every operation is on the list of its new edge."""
    names, rng = ("skip_connect", "sep_conv_3x3", "none"), random.Random(2)
    lists = tuple(tuple(rng.sample(names, 2)) for _ in range(9))
    space = DARTSSpace("ragged", {"normal": lists, "reduce": lists}, nodes=3)
    allowed = dict(zip(space.topology.edges, lists, strict=True))
    fixed: Cell = edges(space, 0)[1]
    cells: list[Cell] = []
    for into_3, into_4 in product([(0, 1), (0, 2), (1, 2)], [(a, b) for a in range(4) for b in range(a + 1, 4)]):
        pairs = [(2, 0), (2, 1), *((3, s) for s in into_3), *((4, s) for s in into_4)]
        choices = product(*(allowed[pair] for pair in pairs))
        cells += [[(*pair, op) for pair, op in zip(pairs, ops, strict=True)] for ops in choices]
    orbits, representatives, narrowed = {}, {}, 0
    for cell in cells:
        moved = relabelings(cell, 3)
        inside = [m for m in moved if all(op in allowed[target, source] for target, source, op in m)]
        narrowed += len(moved) > len(inside) > 1
        orbits.setdefault(tuple(min(inside)), []).append(tuple(cell))
        representatives.setdefault(space.canonical(space.parse(text(cell, fixed, 3))), []).append(tuple(cell))
    assert sorted(orbits.values()) == sorted(representatives.values())
    assert len(orbits) < len(cells)
    assert narrowed


def test_nasbench201_counts_the_published_number_of_classes() -> None:
    space = NASBench201Space()
    genotypes = [space.from_rows({"cell": dict(enumerate(ops))}) for ops in product(range(5), repeat=6)]
    assert [space.index(genotype) for genotype in genotypes] == list(range(15625))
    canonical = [space.canonical(genotype) for genotype in genotypes]
    assert len(set(canonical)) == 6466
    assert all(space.index(c) <= space.index(g) for c, g in zip(canonical, genotypes, strict=True))


def test_nasbench201_classes_are_those_of_the_benchmark(benchmark_data: Path) -> None:
    table = benchmark_data / "nb201.npz"
    if not table.is_file():
        pytest.skip(f"no benchmark table {table}; set LIGHTNING_NAS_DATA to a folder with it")
    with np.load(table, allow_pickle=False) as data:
        ops, representative, names = data["ops"], data["iso_rep"].astype(int), [str(n) for n in data["op_names"]]
    space = NASBench201Space()
    assert tuple(names) == space.ops
    ours = [space.canonical(space.from_rows({"cell": dict(enumerate(row))})) for row in ops.tolist()]
    assert all(ours[row] == ours[first] for row, first in enumerate(representative))
    assert len(set(representative)) == len(set(ours)) == 6466


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # a skip passes its source on
        (
            "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
            "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",
        ),
        # what nothing reaches is nothing
        (
            "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|",
            "|none~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|",
        ),
    ],
)
def test_nasbench201_cells_of_equal_value_share_a_representative(one: str, other: str) -> None:
    space = NASBench201Space()
    assert space.canonical(space.parse(one)) == space.canonical(space.parse(other))
