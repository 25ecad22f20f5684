"""NAS-Bench-101: known hashes and parameters, isomorphism, validity, texts, and the networks of its cells."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.nasbench101 import NASBench101Cell
from lightning_nas.reports import draw_text
from lightning_nas.spaces import CellPlace, NASBench1Shot1Space
from lightning_nas.spaces.module_hash import least_module, live_vertices
from lightning_nas.spaces.module_repair import repair
from lightning_nas.spaces.nasbench101 import (
    NB101_OPS,
    NASBench101Space,
    module_hash,
    prune,
    to_nasbench101,
    vertex_channels,
)

CONV3, CONV1, POOL = NB101_OPS
SPACE = NASBench101Space()
# the cell of the benchmark's README, as written there and as stored in the table
README = (
    ["0111010", "0000001", "0000001", "0000100", "0000001", "0000001", "0000000"],
    ["input", CONV1, CONV3, CONV3, CONV3, POOL, "output"],
)
DIRECT = (["01", "00"], ["input", "output"])
ONE_CONV = (["010", "001", "000"], ["input", CONV3, "output"])
LARGE_EDGES = [(0, 1), (0, 2), (0, 5), (0, 6), (1, 5), (2, 3), (3, 4), (4, 5), (5, 6)]
LARGE = (
    [[int((s, t) in LARGE_EDGES) for t in range(7)] for s in range(7)],
    ["input", CONV1, CONV3, POOL, CONV3, CONV3, "output"],
)


def reordered(matrix: np.ndarray, ops: list[str], order: list[int]) -> tuple[np.ndarray, list[str]]:
    """The module with vertex ``order[i]`` in place ``i``."""
    return matrix[np.ix_(order, order)], [ops[vertex] for vertex in order]


def random_order(matrix: np.ndarray, rng: random.Random) -> list[int]:
    """A random order of the vertices in which edges lead forward and the ends stay."""
    left, order = set(range(1, len(matrix) - 1)), [0]
    while left:
        free = [v for v in sorted(left) if not any(matrix[s, v] for s in left)]
        order.append(rng.choice(free))
        left.remove(order[-1])
    return [*order, len(matrix) - 1]


# --- hash


@pytest.mark.parametrize(
    ("module", "known"),
    [
        (README, "28cfc7874f6d200472e1a9dcd8650aa0"),
        (DIRECT, "043721b9c7fe8c5fad811d47d83132ec"),
        (ONE_CONV, "b49ac8c578b4561d79ac7087988f1c61"),
    ],
)
def test_known_hashes(module: tuple[list[str], list[str]], known: str) -> None:
    assert module_hash(*module) == known
    assert SPACE.hash(SPACE.from_cell(*module)) == known


def test_hash_and_canonical_do_not_see_the_order_of_vertices() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(10):
        genotype = SPACE.sample(rng)
        matrix, ops = SPACE.cell(genotype)
        for _ in range(10):
            rows = np.array(matrix)
            moved = SPACE.from_cell(*reordered(rows, list(ops), random_order(rows, rng)))
            seen.add(moved)
            assert SPACE.hash(moved) == SPACE.hash(genotype)
            assert SPACE.canonical(moved) == SPACE.canonical(genotype)
    assert len(seen) > 30


def test_the_edge_that_is_turned_and_the_operation_that_is_moved_change_the_hash() -> None:
    rows, ops = ["0110", "0001", "0001", "0000"], ["input", CONV3, POOL, "output"]
    chain = ["0100", "0010", "0001", "0000"]
    hashes = {module_hash(rows, ops), module_hash(chain, ops), module_hash(chain, ["input", POOL, CONV3, "output"])}
    assert len(hashes) == 3
    assert module_hash(rows, ["input", POOL, CONV3, "output"]) == module_hash(rows, ops)


def full_modules(vertices: int) -> Iterator[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]]:
    """Every matrix of at most 9 edges that loses nothing when it is pruned, with every labelling."""
    pairs = [(s, t) for s in range(vertices) for t in range(s + 1, vertices)]
    for bits in product((0, 1), repeat=len(pairs)):
        kept = {pair for pair, bit in zip(pairs, bits, strict=True) if bit}
        rows = tuple(tuple(int((s, t) in kept) for t in range(vertices)) for s in range(vertices))
        if len(kept) <= 9 and len(live_vertices(rows)) == vertices:
            for labels in product(range(3), repeat=vertices - 2):
                yield rows, labels


@pytest.mark.parametrize(("vertices", "known"), [(2, 1), (3, 6), (4, 84), (5, 2441)])
def test_number_of_graphs(vertices: int, known: int) -> None:
    """The published counts, by the hash and by the canonical form, which agree on what is the same."""
    pairs = set()
    for rows, labels in full_modules(vertices):
        names = ["input", *(NB101_OPS[label] for label in labels), "output"]
        pairs.add((module_hash(rows, names), least_module(rows, labels)))
    assert len(pairs) == len({key for key, _ in pairs}) == len({least for _, least in pairs}) == known


def test_the_least_module_is_found_by_brute_force() -> None:
    rng = random.Random(1)
    for _ in range(20):
        matrix, ops = SPACE.pruned(SPACE.sample(rng))
        labels = [0, *(NB101_OPS.index(op) for op in ops[1:-1]), 0]
        rows = np.array(matrix)
        found = []
        for inner in permutations(range(1, len(rows) - 1)):
            order = [0, *inner, len(rows) - 1]
            moved = rows[np.ix_(order, order)]
            if not np.tril(moved).any():
                found.append((tuple(map(tuple, moved.tolist())), tuple(labels[v] for v in inner)))
        assert least_module(matrix, tuple(labels[1:-1])) == min(found)


# --- pruning and validity


def test_pruning_takes_away_what_is_on_no_way_from_input_to_output() -> None:
    # 1 is a dead end, 2 is not reached, 3 is on the way
    rows = ["01010", "00000", "00001", "00001", "00000"]
    assert prune(rows, ["input", POOL, POOL, CONV1, "output"]) == (
        ((0, 1, 0), (0, 0, 1), (0, 0, 0)),
        ("input", CONV1, "output"),
    )
    with pytest.raises(ValueError, match="no way leads from the input to the output"):
        prune(["010", "000", "000"], ["input", POOL, "output"])


@pytest.mark.parametrize(
    ("matrix", "ops", "words"),
    [
        (["01", "0"], ["input", "output"], "square"),
        (["0"], ["input"], "at least two vertices"),
        (["11", "00"], ["input", "output"], "row 0 reads"),
        (["01", "10"], ["input", "output"], "row 1 reads"),
        (["02", "00"], ["input", "output"], "edges are 0 or 1"),
        (["0x", "00"], ["input", "output"], "rows of 0 and 1"),
        (7, ["input", "output"], "rows of 0 and 1"),
        (["010", "001", "000"], ["input", "output"], "ops names each of 3 vertices"),
        (["010", "001", "000"], ["input", "skip", "output"], "unknown operation 'skip'; allowed are"),
        (["010", "001", "000"], [POOL, POOL, "output"], "'input' first"),
        (["010", "000", "000"], ["input", POOL, "output"], "no way leads"),
        (["0" * 8] * 8, ["input", *[POOL] * 6, "output"], "at most 7 vertices, not 8"),
        (["01111", "00111", "00011", "00001", "00000"], ["input", POOL, POOL, POOL, "output"], "9 edges, not 10"),
    ],
)
def test_what_is_no_cell(matrix: object, ops: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        SPACE.from_cell(matrix, ops)
    assert "\n" not in str(error.value)


def test_edges_that_are_pruned_do_not_count() -> None:
    rows = np.triu(np.ones((7, 7), int), 1)
    rows[1:, 6] = 0  # only the edge from the input leads to the output
    genotype = SPACE.from_cell(rows, ["input", *[POOL] * 5, "output"])
    assert rows.sum() == 16
    assert SPACE.hash(genotype) == module_hash(*DIRECT)
    assert SPACE.canonical(genotype) == SPACE.from_cell(*DIRECT)


def test_samples_are_those_of_the_rejection() -> None:
    """An edge or an operation of a vertex that is pruned is as likely as not, and each as any other."""
    rng = random.Random(0)
    drawn = [SPACE.sample(rng) for _ in range(400)]
    loose = [0, 0]
    ops = [0, 0, 0]
    for genotype in drawn:
        kept = set(live_vertices(SPACE.cell(genotype)[0]))
        ops[genotype.picks["ops/3"][0]] += 1
        if not {1, 2, 3} & kept:
            loose[genotype.picks["edges/2<-1"][0]] += 1
            loose[genotype.picks["edges/3<-2"][0]] += 1
    n = sum(loose)
    assert n > 20
    assert abs(loose[0] - n / 2) < 5 * (n / 4) ** 0.5
    assert all(abs(count - 400 / 3) < 5 * (400 * 2 / 9) ** 0.5 for count in ops)


# --- variation


def test_neighbors_are_all_valid_cells_that_differ_in_one_decision() -> None:
    genotype = SPACE.from_cell(*README)
    neighbors = set(SPACE.neighbors(genotype))
    expected = set()
    for name, row in ((d.name, d) for rows in SPACE.decisions.values() for d in rows):
        for choice in range(len(row.choices)):
            other = Genotype(SPACE.name, {**genotype.picks, name: (choice,)})
            if other != genotype and SPACE.valid(other):
                expected.add(other)
    assert neighbors == expected
    assert len(neighbors) == 19  # each of its 9 edges may go, none may come, and 5 vertices have two other operations
    assert {SPACE.mutate(genotype, random.Random(seed)) for seed in range(300)} == neighbors


def test_the_published_mutation_flips_three_edges_and_one_operation_on_average() -> None:
    space, rng = NASBench101Space(edge_rate=1 / 7, op_rate=1 / 5), random.Random(0)
    genotype = space.from_cell(*DIRECT)
    changed = {"edges": 0, "ops": 0}
    for _ in range(300):
        mutant = space.check(space.mutate(genotype, rng))
        for name in mutant.picks:
            changed[name.split("/")[0]] += mutant.picks[name] != genotype.picks[name]
    assert abs(changed["ops"] - 300) < 5 * (300 * 0.8) ** 0.5
    assert 600 < changed["edges"] < 900  # 21/7 each, and few of them invalid from here but for the edge that must stay


@pytest.mark.parametrize("rates", [(0.1, None), (None, 0.1), (0.6, 0.1), (-0.1, 0.1), (0.1, 1.1)])
def test_rates_that_are_none(rates: tuple[float | None, float | None]) -> None:
    with pytest.raises(ValueError, match="edge_rate="):
        NASBench101Space(*rates)


# --- scores


def test_the_vertex_is_read_back() -> None:
    rng = random.Random(2)
    for _ in range(20):
        genotype = SPACE.sample(rng)
        assert SPACE.discretize(SPACE.vertex(genotype).weights) == genotype


def test_scores_that_make_no_cell_are_repaired() -> None:
    generator = torch.Generator().manual_seed(0)
    for shift in (-2.0, 0.0, 2.0):
        for _ in range(10):
            edges = torch.randn(21, 2, generator=generator)
            edges[:, 1] += shift
            genotype = SPACE.discretize({"edges": edges, "ops": torch.randn(5, 3, generator=generator)})
            SPACE.check(genotype)
    SPACE.check(SPACE.discretize({"edges": torch.tensor([[0.0, 1.0]] * 21)}))
    assert SPACE.discretize({}) == SPACE.from_cell(*DIRECT)
    assert POOL not in SPACE.format(SPACE.discretize({"ops": torch.tensor([[0, 0, 1.0]] * 5)}, exclude=(POOL,)))


def test_closed_edges_stay_away() -> None:
    edges = torch.zeros(21, 2)
    edges[:, 1] = -torch.inf
    with pytest.raises(ValueError, match="lead on no way"):
        SPACE.discretize({"edges": edges})
    gain = dict.fromkeys([(0, 1), (0, 2), (1, 2)], np.inf)
    with pytest.raises(ValueError, match="3 edges must be, and at most 2"):
        repair(gain, 3, 2)
    # the weakest edge goes first, unless it is all that leads on
    assert repair({(0, 1): 3.0, (0, 2): 1.0, (1, 2): 2.0}, 3, 2) == {(0, 1), (1, 2)}
    assert repair({(0, 1): 3.0, (0, 2): 9.0, (1, 2): 2.0}, 3, 2) == {(0, 1), (0, 2)}
    assert repair({(0, 1): -1.0, (0, 2): -3.0, (1, 2): -2.0}, 3, 2) == {(0, 1), (1, 2)}


# --- texts and drawings


def test_texts_lead_back() -> None:
    rng = random.Random(3)
    for _ in range(20):
        genotype = SPACE.sample(rng)
        for text in (SPACE.format(genotype), SPACE.to_json(genotype)):
            assert SPACE.parse(f" {text}\n") == genotype
        assert "\n" not in SPACE.format(genotype)
    lists = {"matrix": [[0, 1, 0], [0, 0, 1], [0, 0, 0]], "ops": ONE_CONV[1]}
    assert SPACE.parse(json.dumps(lists)) == SPACE.from_cell(*ONE_CONV)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "not a NAS-Bench-101 cell"),
        ("[1]", "not a genotype in JSON"),
        ('{"space": "darts", "matrix": [], "ops": []}', "space 'darts' was given to space 'nasbench101'"),
        ('{"matrix": "01", "ops": []}', "must be lists"),
        ('{"matrix": [[0, 1], [0, 0]], "ops": ["input", ["x"]]}', "ops names each of 2 vertices"),
        ('{"matrix": [[0, [1]], [0, 0]], "ops": ["input", "output"]}', "rows of 0 and 1"),
    ],
)
def test_texts_that_are_no_cell(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        SPACE.parse(text)
    assert "\n" not in str(error.value)


def test_the_drawing_shows_the_pruned_cell() -> None:
    graph = SPACE.graphs(SPACE.from_cell(*ONE_CONV))["cell"]
    assert graph.nodes == ("input", f"1: {CONV3}", "output")
    assert graph.edges == ((0, 1, ""), (1, 2, ""))
    assert draw_text(SPACE, SPACE.from_cell(*README)).splitlines() == [
        "cell ┬ 1      = conv1x1-bn-relu(input)",
        "     ├ 2      = conv3x3-bn-relu(input)",
        "     ├ 3      = conv3x3-bn-relu(input)",
        "     ├ 4      = conv3x3-bn-relu(3)",
        "     ├ 5      = maxpool3x3(input)",
        "     └ output = concat(1, 2, 4, 5)",
    ]


# --- networks


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("module", "known"),
    [(README, 2_694_282), (DIRECT, 882_570), (ONE_CONV, 10_177_674), (LARGE, 32_426_634)],
)
def test_published_numbers_of_parameters(module: tuple[list[str], list[str]], known: int) -> None:
    with torch.device("meta"):
        network = DerivedNetwork(SPACE.from_cell(*module), space=SPACE)
    assert parameters(network) == known
    assert {(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-5, 0.003)}
    assert network.num_features == 512


def test_channels_are_shared_by_what_the_output_joins() -> None:
    # 1 -> 2 -> output, 1 -> 3 -> output, input -> 4 -> output: 10 = 4 + 3 + 3, and vertex 1 is as wide as 2
    rows = ["010010", "001100", "000001", "000001", "000001", "000000"]
    assert vertex_channels(7, 10, rows) == (7, 4, 4, 3, 3, 10)
    assert vertex_channels(7, 9, rows) == (7, 3, 3, 3, 3, 9)
    assert vertex_channels(7, 9, ["01", "00"]) == (7, 9)
    with pytest.raises(ValueError, match="2 channels cannot be shared by 3 vertices"):
        vertex_channels(7, 2, rows)


def test_a_cell_computes_what_is_published() -> None:
    """Against a loop over the vertices with the cell's own operations: sum inside, concatenation and sum at the end."""
    rows = ["0100011", "0011010", "0000001", "0000001", "0000000", "0000001", "0000000"]
    ops = ["input", CONV3, POOL, CONV1, POOL, POOL, "output"]
    torch.manual_seed(0)
    cell = NASBench101Cell(SPACE, SPACE.from_cell(rows, ops), CellPlace("cell", 0, (6,), 10)).eval()
    x = torch.randn(2, 6, 5, 5)
    op, project = cell.ops, cell.projections
    # pruned: vertex 4 goes, 5 becomes 4; 2, 3 and 4 share ten channels, 1 feeds all of them
    assert cell.widths == (6, 4, 4, 3, 3, 10)
    assert sorted(project) == ["1", "4", "5"]
    one = op["1"](project["1"](x))
    two = op["2"](one)
    three = op["3"](one[:, :3])
    four = op["4"](one[:, :3] + project["4"](x))
    torch.testing.assert_close(cell((x,)), torch.cat([two, three, four], 1) + project["5"](x))
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    assert all(isinstance(m, kind) for m, kind in zip(project["1"].children(), kinds, strict=True))
    assert op["1"][0].kernel_size == (3, 3)  # type: ignore[index]


def test_the_network_trains_and_drops_and_has_an_auxiliary_head() -> None:
    torch.manual_seed(0)
    network = DerivedNetwork(SPACE.format(SPACE.from_cell(*README)), space=SPACE, channels=8, cells=1, num_classes=7)
    x = torch.randn(2, 3, 16, 16)
    network(x).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    plain = network.eval()(x)
    network.set_drop_path(0.5)
    assert torch.equal(network(x), plain)
    statistics = [m.running_mean for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(bool(mean.any()) for mean in statistics if mean is not None)
    torch.manual_seed(0)
    assert not torch.allclose(network.train()(x), network(x))
    helped = DerivedNetwork(SPACE.from_cell(*README), space=SPACE, channels=8, cells=1, auxiliary=True, stem="imagenet")
    assert [out.shape for out in helped.forward_with_auxiliary(torch.randn(2, 3, 64, 64))] == [(2, 10), (2, 10)]


def test_weights_begin_as_published() -> None:
    """Convolutions with variance 1 / fan-in, cut at two deviations; a uniform classifier without bias."""
    torch.manual_seed(0)
    network = DerivedNetwork(SPACE.from_cell(*ONE_CONV), space=SPACE, channels=32, cells=1)
    conv = network.body.blocks[-1].ops["1"][0].weight  # type: ignore[index, union-attr]
    fan_in = 128 * 9
    assert abs(conv.std() * fan_in**0.5 - 1) < 0.01
    assert conv.abs().max() * fan_in**0.5 <= 2 / 0.8796 + 1e-3
    head = network.get_classifier()
    assert isinstance(head, nn.Linear)
    assert not head.bias.any()
    assert abs(head.weight.std() / (2 / (128 + 10)) ** 0.5 - 1) < 0.1


# --- NAS-Bench-1Shot1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_networks_of_one_shot_cells_are_those_of_their_nasbench101_cells(number: int) -> None:
    space, rng = NASBench1Shot1Space(number), random.Random(number)
    genotype = space.sample(rng)
    cell = to_nasbench101(space, genotype)
    with torch.device("meta"):
        assert parameters(DerivedNetwork(genotype)) == parameters(DerivedNetwork(cell, space=SPACE))
    network = DerivedNetwork(genotype, channels=8, cells=1, auxiliary=True)
    assert network.space.name == space.name
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    assert len(network.body.blocks) == 5


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_shot_cells_that_are_the_same_there_are_the_same_here(number: int) -> None:
    space, rng = NASBench1Shot1Space(number), random.Random(number)
    genotypes = [space.sample(rng) for _ in range(40)]
    genotypes += [neighbor for genotype in genotypes[:3] for neighbor in space.neighbors(genotype)]
    classes = {(space.canonical(g), SPACE.canonical(to_nasbench101(space, g))) for g in genotypes}
    assert len({there for there, _ in classes}) == len({here for _, here in classes}) == len(classes)


def test_the_wiring_of_a_one_shot_cell_is_kept() -> None:
    space = NASBench1Shot1Space(1)
    data = {"space": space.name, "ops": [POOL, CONV3, CONV1, POOL], "parents": [[0], [0, 1], [0, 2], [1, 3], [0, 4]]}
    expected = (
        ["0111001", "0010100", "0001000", "0000100", "0000001", "0000000", "0000000"],
        ["input", POOL, CONV3, CONV1, POOL, CONV3, "output"],
    )
    assert to_nasbench101(space, space.parse(json.dumps(data))) == SPACE.from_cell(*expected)
    with pytest.raises(ValueError, match="was given to space"):
        to_nasbench101(NASBench1Shot1Space(2), space.sample(random.Random(0)))
