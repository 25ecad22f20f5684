"""The space of Genetic CNN: bits, text, and what is the same network."""

from __future__ import annotations

import random
from itertools import permutations, product

import networkx as nx
import pytest
import torch

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.evolved import GeneticStage
from lightning_nas.query import Result
from lightning_nas.query.searchers.genetic import GeneticCNN
from lightning_nas.spaces import CellPlace
from lightning_nas.spaces.genetic_cnn import GeneticCNNSpace

SPACE = GeneticCNNSpace()


def test_there_are_nineteen_bits() -> None:
    assert [len(rows) for rows in SPACE.decisions.values()] == [3, 6, 10]
    assert GeneticCNNSpace((4,)).format(GeneticCNNSpace((4,)).parse("1-00-111")) == "1-00-111"


def test_text_and_adjacency_agree() -> None:
    space = GeneticCNNSpace((4,))
    assert space.edges(space.parse("1-00-111"), "stage1") == ((1, 2), (1, 4), (2, 4), (3, 4))
    for bits in product("01", repeat=6):
        text = f"{bits[0]}-{''.join(bits[1:3])}-{''.join(bits[3:])}"
        genotype = space.parse(text)
        assert space.format(genotype) == text
        matrix = [[(i, j) in space.edges(genotype, "stage1") for i in range(1, 5)] for j in range(1, 5)]
        assert "-".join("".join(str(int(matrix[j][i])) for i in range(j)) for j in range(1, 4)) == text
    rng = random.Random(0)
    for _ in range(20):
        genotype = SPACE.sample(rng)
        assert SPACE.parse(SPACE.format(genotype)) == SPACE.parse(SPACE.to_json(genotype)) == genotype
        assert SPACE.mutate(genotype, rng) in set(SPACE.neighbors(genotype))
    assert len(list(SPACE.neighbors(genotype))) == 19


@pytest.mark.parametrize("text", ["1-00-111", "1-01|0-01-100", "2-01|0-01-100|1-00-111-0001", "", "{}"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        SPACE.parse(text)


def test_canonical_is_isomorphism() -> None:
    """Two codes have one representative if and only if their graphs are isomorphic."""
    space = GeneticCNNSpace((4,))
    codes = [space.from_indices(bits) for bits in product((0, 1), repeat=6)]
    graphs = []
    for code in codes:
        graph = nx.DiGraph(space.edges(code, "stage1"))
        graph.add_nodes_from(range(1, 5))
        graphs.append(graph)
    least = [space.canonical(code) for code in codes]
    assert all(space.canonical(code) == code for code in least)
    for first, second in permutations(range(64), 2):
        if first < second:
            assert (least[first] == least[second]) == nx.is_isomorphic(graphs[first], graphs[second])


def test_drawings_have_default_nodes_and_leave_lonely_nodes_out() -> None:
    space = GeneticCNNSpace((4, 2))
    graphs = space.graphs(space.parse("1-00-000|0"))
    assert graphs["stage1"].nodes == ("input", "1: conv_3x3", "2: conv_3x3", "output")
    assert set(graphs["stage1"].edges) == {(0, 1, ""), (1, 2, ""), (2, 3, "")}
    assert graphs["stage2"].edges == ((0, 1, ""),)
    graph = space.graphs(space.parse("1-00-111|0"))["stage1"]
    assert set(graph.edges) == {(0, 1, ""), (0, 3, ""), (1, 2, ""), (1, 4, ""), (2, 4, ""), (3, 4, ""), (4, 5, "")}


def test_sizes_out_of_range_are_refused() -> None:
    for nodes in ((), (1,), (8,)):
        with pytest.raises(ValueError, match="2 to 7 nodes"):
            GeneticCNNSpace(nodes)


def test_a_stage_computes_its_graph() -> None:
    space = GeneticCNNSpace((4,))
    stage = GeneticStage(space, space.parse("1-00-110"), CellPlace("stage1", 0, (3,), 4)).eval()
    x = torch.randn(2, 3, 6, 6)
    x0 = stage.input(x)
    x1 = stage.nodes["1"](x0)
    x2 = stage.nodes["2"](x1)
    torch.testing.assert_close(stage((x,)), stage.nodes["4"](x1 + x2))  # node 3 is alone
    stage = GeneticStage(space, space.parse("0-10-010"), CellPlace("stage1", 0, (3,), 4)).eval()
    x0 = stage.input(x)
    ends = stage.nodes["3"](stage.nodes["1"](x0)) + stage.nodes["4"](stage.nodes["2"](x0))
    torch.testing.assert_close(stage((x,)), ends)


@pytest.mark.parametrize(
    ("text", "nodes"), [("0-00|0-00-000|0-00-000-0000", (0, 0, 0)), ("1-01|1-00-000|1-11-111-1111", (3, 2, 5))]
)
def test_networks_have_a_convolution_for_each_node(text: str, nodes: tuple[int, ...]) -> None:
    network = DerivedNetwork(SPACE.parse(text), space=SPACE, channels=4, num_classes=5)
    expected, before = 3 * 4 * 9 + 2 * 4, 4
    for stage, count in enumerate(nodes):
        c = 4 * 2**stage
        expected += before * c * 9 + 2 * c + count * (c * c * 9 + 2 * c)
        before = c
    assert sum(weight.numel() for weight in network.parameters()) == expected + 16 * 5 + 5
    out = network(torch.randn(2, 3, 16, 16))
    assert out.shape == (2, 5)
    out.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    with pytest.raises(ValueError, match="3 stages"):
        DerivedNetwork(SPACE.parse(text), space=SPACE, cells=2)


# --- the searcher


def told(searcher: GeneticCNN, score: float) -> Genotype:
    (trial,) = searcher.ask()
    searcher.tell([Result(trial, score)])
    return trial.genotype


def test_the_roulette_is_in_proportion_to_the_merit_above_the_least() -> None:
    searcher = GeneticCNN(population=4, seed=0)
    genotypes = [told(searcher, score) for score in (90.0, 91.0, 93.0, 90.0)]
    for genotype, score in zip(genotypes, (90.0, 91.0, 93.0, 90.0), strict=True):
        searcher.sums[genotype] = score, 1
    searcher.size = 4000
    drawn = searcher.roulette(genotypes)
    assert drawn.count(genotypes[0]) == drawn.count(genotypes[3]) == 0
    assert drawn.count(genotypes[2]) / 4000 == pytest.approx(3 / 4, abs=0.03)
    for genotype in genotypes:
        searcher.sums[genotype] = 5.0, 1
    drawn = searcher.roulette(genotypes)
    assert all(drawn.count(genotype) / 4000 == pytest.approx(1 / 4, abs=0.03) for genotype in genotypes)


def test_a_pair_exchanges_whole_stages() -> None:
    searcher = GeneticCNN(population=2, crossing=1.0, crossing_stage=0.5, seed=1)
    seen = set()
    for _ in range(60):
        first, second = SPACE.parse("0-00|0-00-000|0-00-000-0000"), SPACE.parse("1-11|1-11-111|1-11-111-1111")
        one, other = (SPACE.format(child) for child in searcher._crossed(first, second))
        assert set(one.replace("-", "").split("|")) <= {"000", "111", "0" * 6, "1" * 6, "0" * 10, "1" * 10}
        assert one.translate(str.maketrans("01", "10")) == other
        seen.add(one)
    assert len(seen) == 8


@pytest.mark.parametrize(("mutating", "bit"), [(1.0, 0.05), (0.8, 0.3)])
def test_bits_flip_at_their_rate(mutating: float, bit: float) -> None:
    searcher = GeneticCNN(population=400, crossing=0.0, mutating=mutating, mutating_bit=bit, seed=1)
    genotype = SPACE.sample(random.Random(0))
    children = [searcher._mutated(genotype) for _ in range(1000)]
    flips = sum(child.picks[name] != genotype.picks[name] for child in children for name in genotype.picks)
    assert flips / 19_000 == pytest.approx(mutating * bit, rel=0.12)


def test_an_architecture_is_as_good_as_the_mean_of_its_evaluations() -> None:
    searcher = GeneticCNN(population=2, crossing=0.0, mutating=0.0, generations=3, seed=1)
    scores = iter((10.0, 50.0, 52.0, 57.0, 60.0, 0.0, 1.0, 2.0))
    asked = [told(searcher, next(scores)) for _ in range(6)]
    assert asked[2:] == [asked[1]] * 4  # the worst of two has no chance
    searcher.ask(1)
    assert searcher.merit(asked[1]) == pytest.approx((50.0 + 52.0 + 57.0 + 60.0 + 0.0) / 5)


def test_it_ends_after_its_generations_and_improves() -> None:
    searcher = GeneticCNN(population=10, generations=30, seed=0)
    means = []
    for _ in range(31):
        trials = searcher.ask(10)
        assert searcher.ask() == []
        scores = [float(SPACE.format(trial.genotype).count("1")) for trial in trials]
        searcher.tell([Result(trial, score) for trial, score in zip(trials, scores, strict=True)])
        means.append(sum(scores) / 10)
    assert searcher.ask() == []
    assert sum(means[-5:]) / 5 > sum(means[:3]) / 3 + 3
