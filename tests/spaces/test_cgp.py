"""The grid of CGP-CNN: what is active, and what mutations do to it."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.grid import GridLayers
from lightning_nas.query import Result
from lightning_nas.query.searchers.cgp import CGP
from lightning_nas.spaces import CellPlace
from lightning_nas.spaces.cgp import CGPSpace

SMALL = CGPSpace(3, 6, 2, active=(2, 10))


def genotypes(space: CGPSpace, count: int) -> list[Genotype]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


def test_the_published_grid() -> None:
    space = CGPSpace()
    assert space.name == "cgp_conv"
    assert len(space.functions) == 13
    assert {group: len(rows) for group, rows in space.decisions.items()} == {
        "functions": 150,
        "inputs": 300,
        "output": 1,
    }
    assert CGPSpace(functions="res").functions[0] == "res_32_1x1"
    assert len(space.decisions["output"][0].choices) == 50


def test_inputs_are_within_level_back() -> None:
    space = CGPSpace(3, 6, 2)
    assert list(space.sources(1)) == list(space.sources(3)) == [0]
    assert list(space.sources(4)) == [0, 1, 2, 3]
    assert list(space.sources(9)) == [1, 2, 3, 4, 5, 6]  # the picture would be three columns back
    assert list(space.sources(18)) == list(range(10, 16))
    assert space.decisions["output"][0].choices == tuple(map(str, range(13, 19)))


def test_active_nodes_are_those_that_the_output_needs() -> None:
    space = CGPSpace(1, 4, 4, ("sum", "conv", "max_pool"))
    genes = [1, 0, 0, 0, 1, 0, 2, 0, 1, 0, 2, 1, 3]  # 1 = conv(0), 2 = 1 + 0, 3 = pool(0), 4 = 2 + 1; the output is 4
    genotype = space.from_indices(genes)
    assert space.layers(genotype) == {1: ("conv", (0,)), 2: ("sum", (1, 0)), 4: ("sum", (2, 1))}
    canonical = space.canonical(genotype)
    assert space.layers(canonical) == space.layers(genotype)
    assert [canonical.picks[name][0] for name in space.order] == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 1, 3]
    graph = space.graphs(genotype)["network"]
    assert graph.nodes == ("input", "1: conv", "2: sum", "3: sum", "output")
    assert set(graph.edges) == {(0, 1, ""), (1, 2, ""), (0, 2, ""), (2, 3, ""), (1, 3, ""), (3, 4, "")}


@pytest.mark.parametrize("space", [SMALL, CGPSpace()], ids=["small", "published"])
def test_genotypes_survive_every_text(space: CGPSpace) -> None:
    for genotype in genotypes(space, 5):
        assert space.parse(space.format(genotype)) == space.parse(space.to_json(genotype)) == genotype
        canonical = space.canonical(genotype)
        assert space.canonical(canonical) == canonical
        assert space.layers(canonical) == space.layers(genotype)


def test_limits_hold() -> None:
    space = CGPSpace(3, 6, 2, active=(3, 5), pools=1)
    rng = random.Random(1)
    for genotype in genotypes(space, 20):
        for other in (genotype, space.mutate(genotype, rng), space.forced(genotype, rng), space.neutral(genotype, rng)):
            layers = space.layers(space.check(other))
            assert 3 <= len(layers) <= 5
            assert sum("pool" in function for function, _ in layers.values()) <= 1
    long = next(
        genotype for genotype in genotypes(CGPSpace(3, 6, 2), 50) if len(CGPSpace(3, 6, 2).layers(genotype)) > 5
    )
    with pytest.raises(ValueError, match="3 to 5 active nodes"):
        space.check(long)


def test_a_neutral_mutation_leaves_the_network_and_a_forced_one_does_not() -> None:
    rng = random.Random(2)
    drifted = 0
    for genotype in genotypes(SMALL, 60):
        neutral = SMALL.neutral(genotype, rng)
        assert SMALL.layers(neutral) == SMALL.layers(genotype)
        assert SMALL.canonical(neutral) == SMALL.canonical(genotype)
        drifted += neutral != genotype
        forced = SMALL.forced(genotype, rng)
        assert SMALL.canonical(forced) != SMALL.canonical(genotype)
        assert SMALL.layers(forced) != SMALL.layers(genotype)
    assert drifted > 40


def test_every_gene_changes_at_the_rate() -> None:
    """Without the condition of a forced mutation, which a neutral one does not have either."""
    space = CGPSpace(3, 6, 2)
    (genotype,) = genotypes(space, 1)
    still = set(space._used(space._genes(genotype)))
    free = [k for k, size in enumerate(space._sizes) if size > 1 and k not in still]
    rng, changes = random.Random(0), 0
    for _ in range(400):
        child = space.neutral(genotype, rng, 0.3)
        changes += sum(child.picks[space.order[k]] != genotype.picks[space.order[k]] for k in free)
    assert changes / (400 * len(free)) == pytest.approx(0.3, abs=0.02)


def test_a_mutation_is_a_neighbor() -> None:
    space, rng = CGPSpace(2, 3, 2, ("sum", "conv")), random.Random(0)
    for genotype in genotypes(space, 10):
        neighbors = set(space.neighbors(genotype))
        assert all(space.mutate(genotype, rng) in neighbors for _ in range(5))
        assert all(genotype in set(space.neighbors(neighbor)) for neighbor in list(neighbors)[:5])


def test_wrong_settings_and_texts_are_refused() -> None:
    for wrong in ({"rows": 0}, {"active": (5, 2)}, {"active": (0, 2)}, {"functions": "dense"}, {"functions": ()}):
        with pytest.raises(ValueError):
            CGPSpace(**wrong)  # type: ignore[arg-type]
    for text in ("", "{}", '{"space": "cgp_conv", "genes": []}', SMALL.format(genotypes(SMALL, 1)[0])[:-3] + ', "x"]}'):
        with pytest.raises(ValueError):
            SMALL.parse(text)
    with pytest.raises(ValueError, match="give wider limits"):
        CGPSpace(2, 3, 2, ("conv",), active=(6, 6)).sample(random.Random(0))
    with pytest.raises(ValueError, match="give a CGPSpace"):
        CGP("nasbench201")


def test_layers_compute_the_grid() -> None:
    space = CGPSpace(1, 6, 6, ("sum", "concat", "conv_32_3x3", "max_pool", "avg_pool", "res_64_1x1"))
    # 1 = conv(0), 2 = max-pool(1), 3 = sum(2, 0), 4 = concat(3, 1), 5 = avg-pool(4), 6 = res(5)
    genes = [2, 0, 0, 3, 1, 0, 0, 2, 0, 1, 3, 1, 4, 4, 0, 5, 5, 0, 5]
    genotype = space.from_indices(genes)
    assert list(space.layers(genotype)) == [1, 2, 3, 4, 5, 6]
    layers = GridLayers(space, genotype, CellPlace("network", 0, (8,), 8)).eval()
    assert (layers.out_channels, layers.pools) == (12, 2)
    x = torch.randn(2, 8, 8, 8)
    n1 = layers.nodes["1"](x)
    assert n1.shape[1] == 4
    n3 = F.max_pool2d(x, 2).clone()
    n3[:, :4] += F.max_pool2d(n1, 2)
    n5 = F.avg_pool2d(torch.cat([n3, F.max_pool2d(n1, 2)], dim=1), 2)
    n6 = n5.clone()
    n6[:, :8] += layers.nodes["6"].body(n5)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(layers((x,)), F.relu(n6))


@pytest.mark.parametrize("functions", ["conv", "res"])
def test_networks_are_those_of_the_active_nodes(functions: str) -> None:
    space = CGPSpace(functions=functions)  # type: ignore[arg-type]
    for genotype in genotypes(space, 4):
        outs = []
        for same in (genotype, space.canonical(genotype), space.neutral(genotype, random.Random(0))):
            torch.manual_seed(0)
            network = DerivedNetwork(same, space=space, channels=4, num_classes=5)
            outs.append(network(torch.ones(2, 3, 16, 16)))
        assert outs[0].shape == (2, 5)
        assert torch.equal(outs[0], outs[1])
        assert torch.equal(outs[0], outs[2])
        assert network.reductions <= 3


# --- the searcher


def score(genotype: Genotype) -> float:
    return float(len(SMALL.layers(genotype)))


def test_a_better_child_takes_the_place_and_otherwise_the_parent_drifts() -> None:
    searcher = CGP(SMALL, children=2, generations=40, seed=1)
    (first,) = searcher.ask(5)
    searcher.tell([Result(first, score(first.genotype))])
    parent, value, moved, drifted = first.genotype, score(first.genotype), 0, 0
    for _ in range(40):
        children = searcher.ask(5)
        assert len(children) == 2
        assert searcher.parent is not None
        assert SMALL.canonical(searcher.parent) == SMALL.canonical(parent)
        drifted += searcher.parent != parent
        assert all(SMALL.canonical(child.genotype) != SMALL.canonical(parent) for child in children)
        searcher.tell([Result(child, score(child.genotype)) for child in children])
        best = max(children, key=lambda child: score(child.genotype))
        parent = searcher.parent
        if score(best.genotype) > value:
            parent, value, moved = best.genotype, score(best.genotype), moved + 1
    assert searcher.ask() == []
    assert moved >= 1
    assert drifted >= 10
    assert value == searcher.score == 10.0
