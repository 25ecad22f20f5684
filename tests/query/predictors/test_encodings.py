"""Known answers of the encodings."""

from __future__ import annotations

import random
from itertools import product

import networkx as nx
import pytest
import torch

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import AdjacencyEncoder, GraphEncoder, PathEncoder
from lightning_nas.query.searchers import BANANAS, BRPNAS, NASBOT, NASBOWL, GATESSearch
from lightning_nas.spaces import CellGraph, NASBench101Space, NASBench201Space, Space, get_space
from lightning_nas.spaces.hierarchical import HierarchicalSpace
from lightning_nas.spaces.operation_graph import OperationGraph, cell_graph, operation_graph, operations, vocabulary
from lightning_nas.spaces.restricted import RestrictedSpace

# The cell of the NAS-Bench-101 README: like a cell of Inception
MATRIX = ["0111010", "0000001", "0000001", "0000100", "0000001", "0000001", "0000000"]
OPS = ["input", "conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output"]
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


def hot(features: torch.Tensor) -> list[int]:
    return features.nonzero().flatten().tolist()


def brute_paths(graph: OperationGraph, ops: tuple[str, ...]) -> set[int]:
    """The numbers of all paths, one by one."""
    net = nx.DiGraph(graph.edges)
    start, end = graph.labels.index("input"), graph.labels.index("output")
    found = set()
    for path in nx.all_simple_paths(net, start, end) if net.has_node(start) and net.has_node(end) else ():
        found.add(sum(len(ops) ** i * (ops.index(graph.labels[v]) + 1) for i, v in enumerate(path[1:-1])))
    return found


def test_paths_of_the_readme_cell() -> None:
    space = NASBench101Space()
    assert hot(PathEncoder(space)([space.from_cell(MATRIX, OPS)])[0]) == [1, 2, 3, 4]


@pytest.mark.parametrize(("name", "length"), [("nasbench101", 364), ("nasbench201", 155), ("darts", 18_724)])
def test_lengths(name: str, length: int) -> None:
    encoder = PathEncoder(name)
    assert encoder([encoder.space.sample(random.Random(0))]).shape == (1, length)


@pytest.mark.parametrize(("name", "length"), [("nasbench101", 40), ("nasbench201", 30)])
def test_truncated_to_the_shortest_paths(name: str, length: int) -> None:
    whole, short = PathEncoder(name), PathEncoder(name, length)
    genotypes = [whole.space.sample(random.Random(k)) for k in range(20)]
    assert torch.equal(short(genotypes), whole(genotypes)[:, :length])


@pytest.mark.parametrize(("name", "shift"), [("nasbench101", 0), ("nasbench1shot1_1", 0), ("nasbench201", 1)])
def test_paths_equal_those_found_one_by_one(name: str, shift: int) -> None:
    encoder = PathEncoder(name)
    genotypes = [encoder.space.sample(random.Random(k)) for k in range(60)]
    ops = operations(encoder.space)
    for genotype, row in zip(genotypes, encoder(genotypes), strict=True):
        assert {k + shift for k in hot(row)} == brute_paths(operation_graph(encoder.space, genotype), ops)


def test_paths_of_nasbench201_by_hand() -> None:
    # none, skip, 1x1, 3x3, pool are 0 to 4; paths: edge 3; edges 0, 4; 1, 5; 0, 2, 5 with blocks from 0, 5 and 30
    encoder = PathEncoder("nasbench201")
    expected = sorted([4, 5 + 3 + 5 * 0, 5 + 0 + 5 * 2, 30 + 3 + 5 * 1 + 25 * 2])
    assert hot(encoder([encoder.space.parse(CELL)])[0]) == expected


def test_cells_with_the_same_paths_collide() -> None:
    encoder, space = PathEncoder("nasbench201"), get_space("nasbench201")
    texts = [
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|avg_pool_3x3~2|",
        "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|none~0|avg_pool_3x3~1|skip_connect~2|",
    ]
    a, b = encoder([space.parse(text) for text in texts])
    assert hot(a)[:3] == hot(b)[:3]


def test_every_string_of_nasbench201_comes_back_from_its_one_hot_code() -> None:
    encoder = AdjacencyEncoder("nasbench201")
    rows = encoder.space.decisions["cell"]
    every = [
        Genotype("nasbench201", {row.name: (k,) for row, k in zip(rows, ops, strict=True)})
        for ops in product(range(5), repeat=6)
    ]
    codes = encoder(every)
    assert codes.shape == (15_625, 30)
    assert codes.sum(dim=1).eq(6).all()
    assert len(codes.unique(dim=0)) == 15_625
    back = codes.reshape(-1, 6, 5).argmax(dim=2)
    assert back.tolist() == [[genotype.picks[row.name][0] for row in rows] for genotype in every]


def test_forms_of_the_adjacency_of_nasbench101() -> None:
    space = NASBench101Space()
    genotype = space.from_cell(MATRIX, OPS)
    one_hot = AdjacencyEncoder(space)([genotype])[0]
    ordinal = AdjacencyEncoder(space, "ordinal")([genotype])[0]
    continuous = AdjacencyEncoder(space, "continuous")([genotype])[0]
    bits = [float(MATRIX[s][t]) for s in range(7) for t in range(s + 1, 7)]
    assert one_hot[:21].tolist() == ordinal[:21].tolist() == bits
    assert one_hot[21:].reshape(5, 3).argmax(dim=1).tolist() == [1, 0, 0, 0, 2]
    assert ordinal[21:].tolist() == [0.5, 0.0, 0.0, 0.0, 1.0]
    assert continuous[:26].tolist() == ordinal.tolist()
    assert continuous[26].item() == pytest.approx(sum(bits) / 21)
    with pytest.raises(ValueError, match="one-hot"):
        AdjacencyEncoder(space, "two-hot")  # type: ignore[arg-type]


def test_canonical_codes_of_equal_cells_are_equal() -> None:
    encoder, space = AdjacencyEncoder("nasbench201", canonical=True), get_space("nasbench201")
    rng = random.Random(0)
    genotypes = [space.sample(rng) for _ in range(50)]
    codes = encoder(genotypes)
    assert torch.equal(codes, encoder([space.canonical(genotype) for genotype in genotypes]))


def test_wires_of_the_graph_of_a_nasbench201_cell() -> None:
    space = get_space("nasbench201")
    graph = operation_graph(space, space.parse(CELL))
    edges = ["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "none", "nor_conv_1x1"]  # in the string's order
    assert graph.labels == ("input", *edges, "output")
    into = {1: {0}, 2: {0}, 3: {1}, 4: {0}, 5: {1}, 6: {2, 3}, 7: {4, 5, 6}}
    assert set(graph.edges) == {(s, t) for t, sources in into.items() for s in sources}


def test_pruned_cells_that_compute_the_same_have_the_same_paths() -> None:
    # not always the same graph: an operation that is used twice equals two of them on the same input
    space, rng, checked = get_space("nasbench201"), random.Random(1), 0
    ops = operations(space)
    for _ in range(300):
        genotype = space.sample(rng)
        other = space.canonical(genotype)
        if other != genotype:
            a, b = (operation_graph(space, cell, prune=True) for cell in (genotype, other))
            assert brute_paths(a, ops) == brute_paths(b, ops)
            assert not {"none", "skip_connect"} & {*a.labels, *b.labels}
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("name", ["darts", "nasbench101", "nasbench201", "enas_micro", "enas_macro", "fbnet"])
@pytest.mark.parametrize("prune", [False, True])
def test_graphs_are_ordered_and_named(name: str, prune: bool) -> None:
    space, rng = get_space(name), random.Random(2)
    for _ in range(30):
        graph = operation_graph(space, space.sample(rng), prune)
        assert all(source < target for source, target in graph.edges)
        assert set(graph.labels) <= set(vocabulary(space))
        assert "output" in graph.labels


def test_an_unknown_label_and_too_many_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        GraphEncoder("nasbench201").encode([]).stack([OperationGraph(("input", "magic"), ((0, 1),))], ("input",))
    with pytest.raises(ValueError, match="length="):
        PathEncoder("enas_macro")


def part_of(base: Space, number: int = 40) -> RestrictedSpace:
    return RestrictedSpace(base, [base.sample(random.Random(k)) for k in range(number)])


@pytest.mark.parametrize("name", ["nasbench201", "nasbench101", "darts", "small_sep"])
@pytest.mark.parametrize("length", [30, 40])
def test_paths_of_a_restricted_space_are_those_of_the_whole(name: str, length: int) -> None:
    space = part_of(get_space(name))
    assert torch.equal(PathEncoder(space, length)(space.members), PathEncoder(name, length)(space.members))
    if name == "nasbench201":
        assert torch.equal(PathEncoder(space)(space.members), PathEncoder(name)(space.members))


def test_bananas_of_a_restricted_space_keeps_the_paths_of_two_operations() -> None:
    whole, part = BANANAS("nasbench201"), BANANAS(part_of(get_space("nasbench201")))
    cell = whole.space.parse("|avg_pool_3x3~0|+|none~0|none~1|+|none~0|avg_pool_3x3~1|none~2|")  # the path of number 30
    assert torch.equal(part.encoder([cell]), whole.encoder([cell]))
    assert hot(part.encoder([cell])[0])[-1] == 29  # type: ignore[arg-type]


class OwnNames(NASBench201Space):
    """Calls the first node of a cell x, the last y."""

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        ((kind, cell),) = super().graphs(genotype).items()
        return {kind: CellGraph(("x", *cell.nodes[1:-1], "y"), cell.edges)}


@pytest.mark.parametrize("preset", [NASBOWL, NASBOT, BRPNAS, BANANAS, GATESSearch])
def test_cells_without_an_input_or_an_output_are_refused(preset: type) -> None:
    with pytest.raises(ValueError, match=r"none of the nodes \['x', '1', '2', 'y'\] of a cell is an input; label"):
        preset(OwnNames())
    with pytest.raises(ValueError, match=r"\['c_\{k-1\}', '2', 'out'\] of a cell is an output; label"):
        cell_graph(CellGraph(("c_{k-1}", "2", "out"), ((0, 1, "conv"), (1, 2, ""))))


@pytest.mark.parametrize("preset", [PathEncoder, BANANAS, GATESSearch])
def test_what_needs_the_same_cells_in_all_genotypes_says_so_at_once(preset: type) -> None:
    with pytest.raises(ValueError, match=r"some genotypes of 'hierarchical' have no cell \['level2/.*AdjacencyEncoder"):
        preset(HierarchicalSpace())
    assert BRPNAS(HierarchicalSpace()).ask()  # the way out that the message names
