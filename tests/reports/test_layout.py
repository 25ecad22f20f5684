"""The layout of a cell: nothing overlaps, no edge passes through a box, and every edge joins what it should."""

from __future__ import annotations

from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from lightning_nas.reports.layout import _GAP, Box, Route, _Layers, _order, _settle, layout_cell
from lightning_nas.spaces import GENOTYPES, SPACES, CellGraph, get_space, load_genotype

ALL = {name: get_space(name) for name in SPACES}
some = settings(max_examples=40, deadline=None, database=None)


def edges(*of: tuple[int, int, str]) -> CellGraph:
    return CellGraph(tuple(map(str, range(max(target for _, target, _ in of) + 1))), of)


def points(route: Route, steps: int = 24) -> list[tuple[float, float]]:
    """Points on the way: straight through each layer, between them a cubic that starts and ends level."""
    found = []
    for (x0, y0), (x1, y1) in route.lines:
        found += [(x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps) for k in range(steps + 1)]
    for (_, (x0, y0)), ((x1, y1), _) in zip(route.lines, route.lines[1:], strict=False):
        for t in np.linspace(0, 1, steps + 1):
            basis = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            middle = (x0 + x1) / 2
            found.append((float(np.dot(basis, (x0, middle, middle, x1))), float(np.dot(basis, (y0, y0, y1, y1)))))
    return found


def inside(box: Box, x: float, y: float, margin: float) -> bool:
    return abs(x - box.x) < box.width / 2 - margin and abs(y - box.y) < box.height / 2 - margin


def check(graph: CellGraph, op_width: float = 0.9) -> None:
    layout = layout_cell(graph, [0.3 + 0.1 * (k % 3) for k in range(len(graph.nodes))], [op_width] * len(graph.edges))
    assert set(layout.ops) == {k for k, (_, _, label) in enumerate(graph.edges) if label}
    named = {("node", k): box for k, box in enumerate(layout.nodes)} | {("op", k): b for k, b in layout.ops.items()}
    for box in named.values():
        assert -1e-9 <= box.x - box.width / 2 <= box.x + box.width / 2 <= layout.width + 1e-9
        assert -1e-9 <= box.y - box.height / 2 <= box.y + box.height / 2 <= layout.height + 1e-9
    for (a, one), (b, other) in combinations(named.items(), 2):
        x_apart = abs(one.x - other.x) - (one.width + other.width) / 2
        y_apart = abs(one.y - other.y) - (one.height + other.height) / 2
        assert max(x_apart, y_apart) > 0.1, f"{a} and {b} touch"
    for k, ((source, target, label), route) in enumerate(zip(graph.edges, layout.routes, strict=True)):
        start, end = layout.nodes[source], layout.nodes[target]
        assert route.lines[0][0][0] == pytest.approx(start.x + start.width / 2)
        assert route.lines[-1][1][0] == pytest.approx(end.x - end.width / 2)
        assert abs(route.lines[0][0][1] - start.y) < start.height / 2
        assert abs(route.lines[-1][1][1] - end.y) < end.height / 2
        way = points(route)
        assert all(-1e-9 <= y <= layout.height + 1e-9 for _, y in way)
        if label:
            assert any(inside(layout.ops[k], x, y, 0.1) for x, y in way), "the label is on the way"
        for name, box in named.items():
            if name != ("op", k):
                assert not any(inside(box, x, y, 1e-6) for x, y in way), f"edge {k} passes through {name}"
    for port in (0, -1):
        ends = [route.lines[port][port] for route in layout.routes]
        assert len(set(ends)) == len(ends), "two edges share an end"
        for node in range(len(graph.nodes)):  # edges do not cross beside a node
            at = [r for e, r in zip(graph.edges, layout.routes, strict=True) if e[-port] == node]
            at.sort(key=lambda route: route.lines[port][port][1])
            beside = [route.lines[1][0][1] if port == 0 else route.lines[-2][1][1] for route in at]
            far = [len(route.lines) > 2 for route in at]
            kept = [y for y, is_far in zip(beside, far, strict=True) if is_far]
            assert kept == sorted(kept)


@pytest.mark.parametrize("name", list(ALL))
@some
@given(seed=st.integers(0, 2**32))
def test_samples(name: str, seed: int) -> None:
    for graph in ALL[name].graphs(ALL[name].sample(Random(seed))).values():
        check(graph)


@pytest.mark.parametrize("name", list(GENOTYPES))
def test_published_cells(name: str) -> None:
    space, genotype = load_genotype(name)
    for graph in space.graphs(genotype).values():
        check(graph)


@some
@given(data=st.data(), nodes=st.integers(2, 8))
def test_any_graph_with_several_edges_between_two_nodes(data: st.DataObject, nodes: int) -> None:
    pair = st.tuples(st.integers(0, nodes - 2), st.integers(1, nodes - 1)).filter(lambda p: p[0] < p[1])
    found = data.draw(st.lists(st.tuples(pair, st.sampled_from(["", "none", "conv"])), max_size=12))
    check(CellGraph(tuple(map(str, range(nodes))), tuple((*p, label) for p, label in found)))


def test_layers_run_from_the_inputs_to_the_output() -> None:
    space, genotype = load_genotype("gdas_v1")
    for graph in space.graphs(genotype).values():
        layout = layout_cell(graph, [0.3] * 7, [0.9] * len(graph.edges))
        assert all(layout.nodes[s].x < layout.nodes[t].x for s, t, _ in graph.edges)
        assert layout.nodes[0].x == layout.nodes[1].x
        assert layout.nodes[0].y < layout.nodes[1].y  # the older input on top
        assert max(node.x for node in layout.nodes[:-1]) < layout.nodes[-1].x


@pytest.mark.parametrize("seed", range(12))
def test_the_older_input_stands_on_top(seed: int) -> None:
    for graph in ALL["darts"].graphs(ALL["darts"].sample(Random(seed))).values():
        layout = layout_cell(graph, [0.3] * 7, [0.9] * len(graph.edges))
        assert layout.nodes[0].y < layout.nodes[1].y


def test_a_layout_is_reproducible() -> None:
    space, genotype = load_genotype("darts_v2")
    graph = space.graphs(genotype)["reduce"]
    first, second = (layout_cell(graph, [0.3] * 7, [0.9] * len(graph.edges)) for _ in range(2))
    assert first == second


# --- the order within the layers


def crossings(layers: _Layers) -> int:
    """Pairs of links between the same layers whose ends stand in opposite order, one by one."""
    rank = {item: r for r, column in enumerate(layers.columns) for item in column}
    at = layers.positions()
    return sum(
        rank[a] == rank[c] and (at[a] - at[c]) * (at[b] - at[d]) < 0 for (a, b), (c, d) in combinations(layers.links, 2)
    )


@pytest.mark.parametrize("seed", range(20))
def test_crossings_are_counted_and_never_made_more(seed: int) -> None:
    space = ALL["darts"]
    layers = _Layers.of(space.graphs(space.sample(Random(seed)))["normal"])
    before = crossings(layers)
    assert layers.crossings() == before
    _order(layers)
    assert layers.crossings() == crossings(layers) <= before


@pytest.mark.parametrize(
    "graph",
    [
        edges((0, 1, "a"), (0, 2, "b"), (1, 2, "c"), (0, 3, "d"), (1, 3, "e"), (2, 3, "f")),
        edges((0, 3, "a"), (1, 2, "b"), (2, 4, ""), (3, 4, "")),
        edges((0, 2, "a"), (1, 3, "b"), (0, 4, "c"), (2, 5, ""), (3, 5, ""), (4, 5, "")),
        edges((0, 1, "a"), (0, 1, "b"), (0, 1, "")),
    ],
)
def test_what_can_be_drawn_without_a_crossing_is(graph: CellGraph) -> None:
    layers = _Layers.of(graph)
    _order(layers)
    assert crossings(layers) == 0
    check(graph)
    routes = layout_cell(graph, [0.3] * len(graph.nodes), [0.9] * len(graph.edges)).routes
    for one, other in combinations(routes, 2):
        common = [(y, z) for x, y in points(one) for w, z in points(other) if abs(x - w) < 1e-9]
        signs = {np.sign(y - z) for y, z in common}
        assert len(signs) <= 1, "the edges cross in the picture"


# --- heights


@pytest.mark.parametrize("seed", range(8))
def test_heights_are_the_nearest_that_keep_the_gaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 8))
    wanted, size = rng.normal(size=count), rng.uniform(0, 0.5, count)
    y = [0.0] * count
    _settle(list(range(count)), wanted.tolist(), size.tolist(), y)
    gaps = (size[1:] + size[:-1]) / 2 + _GAP
    assert (np.diff(y) >= gaps - 1e-12).all()
    reference = minimize(
        lambda v: ((v - wanted) ** 2).sum(),
        np.arange(count, dtype=float),
        jac=lambda v: 2 * (v - wanted),
        constraints=LinearConstraint(np.diff(np.eye(count), axis=0), gaps, np.inf),
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(y, reference.x, atol=1e-5)
