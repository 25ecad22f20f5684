"""The spaces of the reinforcement-learning searches: their rules, their texts and their neighbors."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.blockqnn import BlockQNNSpace
from lightning_nas.spaces.metaqnn import META_QNN_LAYERS, MetaQNNSpace
from lightning_nas.spaces.nas_rl import NASRLSpace, Wiring
from lightning_nas.spaces.nasnet import NASNET_OPS, NASNetSpace
from lightning_nas.spaces.sequential import Picks, SequentialSpace

MAKE: dict[str, Callable[[], SequentialSpace]] = {
    "nas_rl": NASRLSpace,
    "nas_rl_strides": lambda: NASRLSpace(strides=True),
    "nasnet": NASNetSpace,
    "metaqnn": MetaQNNSpace,
    "blockqnn_6": lambda: BlockQNNSpace(6),
}
every = pytest.mark.parametrize("name", MAKE)


class Stops(SequentialSpace):
    """Up to three layers: `x`, or the end."""

    def __init__(self) -> None:
        super().__init__("stops", {"layer": tuple(Decision(f"layer/{i}", ("x", "stop")) for i in range(3))})

    def allowed(self, name: str, picks: Picks) -> tuple[int, ...]:
        return (0, 1) if all(kept == (0,) for kept in picks.values()) and len(picks) == int(name[-1]) else ()

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        return {}


@every
def test_a_sample_is_valid_and_survives_every_text(name: str) -> None:
    space = MAKE[name]()
    assert space.name == name
    for seed in range(20):
        genotype = space.sample(random.Random(seed))
        assert space.check(genotype) is genotype == space.sample(random.Random(seed))
        text = space.format(genotype)
        assert space.parse(text) == space.parse(f"  {text}\n") == space.parse(text.partition(": ")[2]) == genotype
        assert space.from_json(space.to_json(genotype)) == space.parse(space.to_json(genotype)) == genotype
        assert space.check(space.canonical(genotype)) == space.canonical(space.canonical(genotype))
        for graph in space.graphs(genotype).values():
            assert all(source < target < len(graph.nodes) for source, target, _ in graph.edges)
            assert {target for _, target, _ in graph.edges} >= {len(graph.nodes) - 1}


@every
def test_neighbors_are_valid_and_a_mutation_is_one_of_them(name: str) -> None:
    space = MAKE[name]()
    for seed in range(3):
        rng = random.Random(seed)
        genotype = space.sample(rng)
        neighbors = list(space.neighbors(genotype))
        assert genotype not in neighbors
        assert all(space.check(neighbor) is neighbor for neighbor in neighbors)
        assert space.mutate(genotype, rng) in set(neighbors)


@every
def test_the_vertex_gives_its_genotype_back(name: str) -> None:
    space = MAKE[name]()
    genotype = space.sample(random.Random(1))
    vertex = space.vertex(genotype)
    assert space.discretize(vertex.weights) == genotype
    assert vertex.active is not None
    for group, rows in space.decisions.items():
        assert [genotype.picks.get(row.name, ()) for row in rows] == list(vertex.active[group])
    assert sum(weight.sum().item() for weight in vertex.weights.values()) == len(genotype.picks)


@every
def test_genotypes_that_are_not_of_the_space_are_refused(name: str) -> None:
    space = MAKE[name]()
    genotype = space.sample(random.Random(0))
    first = space.order[0]
    rest = {key: kept for key, kept in genotype.picks.items() if key != first}
    for picks in (rest, {**rest, first: (99,)}, {**rest, first: (0, 1)}, {**genotype.picks, "more": (0,)}):
        with pytest.raises(ValueError, match=r"keeps one of|no decision"):
            space.check(Genotype(name, picks))
    with pytest.raises(ValueError, match="other"):
        space.check(Genotype("other", genotype.picks))
    with pytest.raises(ValueError, match="allowed are"):
        space.parse(f"{name}: nonsense")
    with pytest.raises(ValueError, match="left over"):
        space.parse(space.format(genotype) + " more")
    with pytest.raises(ValueError, match="'else'"):
        space.parse("else: 1 2")


def test_all_sequences_and_their_neighbors() -> None:
    space = Stops()
    texts = {"x x x", "x x stop", "x stop", "stop"}
    assert {" ".join(space.words(space.sample(random.Random(seed)))) for seed in range(100)} == texts
    neighbors = {" ".join(space.words(g)) for g in space.neighbors(space.parse("x stop"))}
    assert neighbors == {"stop", "x x stop"}
    assert space.state("layer/1", {"layer/0": (0,)}) == "0"
    best = space.discretize({"layer": torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 0.0]])})
    assert space.words(best) == ("x", "stop")
    assert space.words(space.discretize({}, exclude=("x",))) == ("stop",)


def test_the_repair_rules_of_nas_rl() -> None:
    """Layer 2 has no input and takes the picture; 1 and 3 feed nobody and go to the classifier."""
    space = NASRLSpace(layers=4, start=4)
    layers = ["3 3 24", "5 1 36 yes", "1 1 24 no no", "7 7 64 no no yes"]
    genotype = space.parse(f"nas_rl_4: 4 {' '.join(layers)}")
    assert space.wiring(genotype) == Wiring(((-1,), (0,), (-1,), (2,)), (1, 3))
    graph = space.graphs(genotype)["network"]
    assert graph.nodes == ("input", "0: 3x3, 24", "1: 5x1, 36", "2: 1x1, 24", "3: 7x7, 64", "output")
    assert set(graph.edges) == {(0, 1, ""), (1, 2, ""), (0, 3, ""), (3, 4, ""), (2, 5, ""), (4, 5, "")}
    strided = NASRLSpace(layers=1, start=1, strides=True)
    text = strided.parse("1 3 5 2 3 48")
    assert strided.graphs(text)["network"].nodes[1] == "0: 3x5, 48 /2x3"


def test_only_the_layers_of_the_depth_are_decided() -> None:
    space = NASRLSpace(layers=8, start=6)
    for text, layers in (("6", 6), ("8", 8)):
        genotype = next(g for s in range(50) if space.format(g := space.sample(random.Random(s))).split()[1] == text)
        assert len(genotype.picks) == 1 + 3 * layers + layers * (layers - 1) // 2


def test_metaqnn_keeps_its_rules() -> None:
    space, rng = MetaQNNSpace(), random.Random(0)
    for _ in range(300):
        layers = space.network_layers(genotype := space.sample(rng))
        kinds = [layer.split("_")[0] for layer in layers]
        assert 1 <= len(layers) <= 18
        assert kinds[0] not in ("pool", "terminate")
        assert not any(a == b == "pool" for a, b in pairwise(kinds))
        assert kinds.count("fc") <= 2
        assert "fc" not in kinds[: len(kinds) - kinds.count("fc")]
        sizes = (32, *space.sizes(genotype))
        assert all(size <= 7 for size, kind in zip(sizes, kinds, strict=False) if kind == "fc")
        assert min(sizes) >= 1
    assert [space.bucket(size) for size in (32, 8, 7, 4, 3, 1)] == [8, 8, 4, 4, 1, 1]
    assert len(META_QNN_LAYERS) == 12 + 3 + 3 + 1


def test_metaqnn_does_not_pool_what_is_too_small() -> None:
    space = MetaQNNSpace(size=4)
    names = {META_QNN_LAYERS[k] for k in space.allowed("layers/1", {"layers/0": (0,)})}
    assert {name for name in names if name.startswith("pool")} == {"pool_3_2", "pool_2_2"}


def test_codes_of_blockqnn() -> None:
    space = BlockQNNSpace(5)
    for seed in range(100):
        genotype = space.sample(random.Random(seed))
        codes = space.codes(genotype)
        assert 1 <= len(codes) <= 5
        for index, (kind, sources) in enumerate(codes, start=1):
            assert len(sources) == (2 if kind in ("add", "concat") else 1)
            assert all(source < index for source in sources)
        assert len(codes) in space.loose_ends(genotype)
    assert [len(row.choices) for row in space.decisions["layers"]] == [8, 8 * 2 + 2 + 1, 8 * 3 + 6 + 1, 45, 61]


def test_nasnet_counts_and_forgets_the_order_of_blocks() -> None:
    space = NASNetSpace(2)
    assert (len(NASNetSpace().order), len(NASNET_OPS)) == (2 * 5 * 5, 13)
    one = ("add", ((0, 1), (1, 2)))
    two = ("concat", ((1, 3), (0, 4)))
    turned = dict.fromkeys(space.kinds, (("concat", ((0, 4), (1, 3))), ("add", ((1, 2), (0, 1)))))
    first, second = space.from_cells(dict.fromkeys(space.kinds, (one, two))), space.from_cells(turned)
    assert first != second
    assert space.canonical(first) == space.canonical(second)
    other = space.from_cells(dict.fromkeys(space.kinds, (("concat", one[1]), two)))
    assert space.canonical(other) != space.canonical(first)
    assert space.loose_ends(first, "normal") == (2, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NASRLSpace(5, 6), "layers=5"),
        (lambda: NASRLSpace(7, 6), "layers=7"),
        (lambda: NASNetSpace(0), "blocks=0"),
        (lambda: MetaQNNSpace(0), "layers=0"),
        (lambda: BlockQNNSpace(0), "layers=0"),
    ],
)
def test_what_is_wrong_is_said(make: Callable[[], SequentialSpace], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
