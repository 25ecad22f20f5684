"""The spaces of NAS-Bench-1Shot1: sizes, wirings, texts, classes, and the skeleton of the supernet."""

from __future__ import annotations

import json
import random
from itertools import combinations, permutations, product
from math import comb, prod

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.spaces import CellPlace, NASBench1Shot1Space, NetworkSize, get_space, load_genotype

POOL, CONV3, CONV1 = "maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu"
# how many parents nodes 1, 2, ... have, the output last; genotypes; neighbors of each
SPACES = {
    1: ((1, 2, 2, 2, 2), 14_580, 4 * 2 + 2 * 1 + 2 * 2 + 2 * 3),
    2: ((1, 1, 2, 2, 3), 29_160, 4 * 2 + 1 * 1 + 2 * 1 + 2 * 2 + 3 * 2),
    3: ((1, 1, 1, 2, 2, 2), 1_312_200, 5 * 2 + 1 * 1 + 1 * 2 + 2 * 2 + 2 * 3 + 2 * 4),
}
numbers = pytest.mark.parametrize("number", SPACES)


def every(space: NASBench1Shot1Space, ops: tuple[int, ...] = (0, 1, 2)) -> list[Genotype]:
    """All genotypes with some of the operations."""
    options = {}
    for group, rows in space.decisions.items():
        for row in rows:
            allowed = ops if group == "ops" else range(len(row.choices))
            options[row.name] = list(combinations(allowed, row.keep))
    return [Genotype(space.name, dict(zip(options, picks, strict=True))) for picks in product(*options.values())]


@numbers
def test_number_of_genotypes(number: int) -> None:
    parents, size, _ = SPACES[number]
    space = NASBench1Shot1Space(number)
    wirings = prod(comb(node, keep) for node, keep in enumerate(parents, start=1))
    assert wirings * 3 ** (len(parents) - 1) == size
    assert prod(comb(len(row.choices), row.keep) for rows in space.decisions.values() for row in rows) == size
    if size < 100_000:
        genotypes = every(space)
        assert len({space.format(genotype) for genotype in genotypes}) == len(genotypes) == size


@numbers
def test_every_node_has_its_published_number_of_earlier_parents(number: int) -> None:
    space = NASBench1Shot1Space(number)
    for seed in range(30):
        data = json.loads(space.format(space.sample(random.Random(seed))))
        assert tuple(map(len, data["parents"])) == SPACES[number][0]
        for node, into in enumerate(data["parents"], start=1):
            assert into == sorted(set(into))
            assert all(0 <= parent < node for parent in into)
        assert sum(map(len, data["parents"])) == 9  # the most edges that NAS-Bench-101 allows


@pytest.mark.parametrize(("number", "first"), [(1, 3), (2, 2), (3, 2)])
def test_rows_are_those_of_the_published_parameters(number: int, first: int) -> None:
    """A matrix of operations, one vector for the output, one for each block from the first that has a choice."""
    space, blocks = NASBench1Shot1Space(number), len(SPACES[number][0]) - 1
    assert [len(row.choices) for row in space.decisions["ops"]] == [3] * blocks
    assert [row.choices for row in space.decisions["ops"]] == [(POOL, CONV3, CONV1)] * blocks
    assert [len(row.choices) for row in space.decisions["inputs"]] == list(range(first, blocks + 1))
    assert [len(row.choices) for row in space.decisions["output"]] == [blocks + 1]
    assert [space.input_row(block) for block in range(1, first + 2)] == [None] * (first - 1) + [0, 1]


@numbers
def test_neighbors_differ_in_one_decision_by_one_choice(number: int) -> None:
    space, rng = NASBench1Shot1Space(number), random.Random(number)
    for _ in range(5):
        genotype = space.sample(rng)
        neighbors = list(space.neighbors(genotype))
        assert len(set(neighbors)) == len(neighbors) == SPACES[number][2]
        for neighbor in neighbors:
            space.check(neighbor)
            changed = [name for name in genotype.picks if genotype.picks[name] != neighbor.picks[name]]
            assert len(changed) == 1
            assert len(set(genotype.picks[changed[0]]) - set(neighbor.picks[changed[0]])) == 1
        assert genotype in set(space.neighbors(rng.choice(neighbors)))


def test_samples_are_uniform() -> None:
    """Each choice of each decision within five standard deviations of its share."""
    space, rng, draws = NASBench1Shot1Space(2), random.Random(0), 3000
    drawn = [space.sample(rng).picks for _ in range(draws)]
    for rows in space.decisions.values():
        for row in rows:
            share = row.keep / len(row.choices)
            for k in range(len(row.choices)):
                count = sum(k in picks[row.name] for picks in drawn)
                assert abs(count - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


def graph_key(space: NASBench1Shot1Space, genotype: Genotype) -> tuple[object, ...]:
    """What all isomorphic cells share, loose ends cut off: the least relabelling of whatever reaches the output."""
    parents, ops = space.cell(genotype)
    last = space.blocks + 1
    adjacency = torch.zeros(last + 1, last + 1, dtype=torch.long)
    for node, into in enumerate(parents, start=1):
        adjacency[list(into), node] = 1
    ways = torch.linalg.matrix_power(torch.eye(last + 1, dtype=torch.long) + adjacency, last)
    live = [node for node in range(1, last) if ways[node, last]]
    keys = []
    for order in permutations(range(1, len(live) + 1)):
        new = {0: 0, last: last, **dict(zip(live, order, strict=True))}
        edges = sorted((new[s], new[t]) for t in (*live, last) for s in parents[t - 1])
        keys.append((edges, sorted((new[node], ops[node - 1]) for node in live)))
    return tuple(map(tuple, min(keys)))


@pytest.mark.parametrize("number", [1, 2])
def test_canonical_has_one_representative_for_each_class(number: int) -> None:
    space = NASBench1Shot1Space(number)
    by_key: dict[object, set[Genotype]] = {}
    keys: dict[Genotype, object] = {}
    for genotype in every(space, ops=(0, 2)):
        canonical, key = space.canonical(genotype), graph_key(space, genotype)
        by_key.setdefault(key, set()).add(canonical)
        assert keys.setdefault(canonical, key) == key
        assert graph_key(space, canonical) == key
    assert all(len(representatives) == 1 for representatives in by_key.values())


def test_blocks_that_reach_the_output() -> None:
    space = NASBench1Shot1Space(1)
    text = {"space": space.name, "ops": [CONV1] * 4, "parents": [[0], [0, 1], [0, 1], [1, 2], [0, 3]]}
    assert space.reached(space.parse(json.dumps(text))) == (1, 3)
    text["parents"] = [[0], [0, 1], [0, 1], [1, 2], [3, 4]]
    assert space.reached(space.parse(json.dumps(text))) == (1, 2, 3, 4)


@numbers
def test_texts_lead_back(number: int) -> None:
    space = get_space(f"nasbench1shot1_{number}")
    for seed in range(20):
        genotype = space.sample(random.Random(seed))
        for text in (space.format(genotype), space.to_json(genotype)):
            loaded, back = load_genotype(text)
            assert (loaded.name, back) == (space.name, genotype) == (space.name, space.parse(f" {text}\n"))


GOOD = {
    "space": "nasbench1shot1_1",
    "ops": [POOL, CONV3, CONV1, POOL],
    "parents": [[0], [0, 1], [0, 2], [1, 3], [3, 4]],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": "nasbench1shot1_2"}, "space 'nasbench1shot1_2' was given to space 'nasbench1shot1_1'"),
        ({"ops": [POOL, CONV3]}, "list of 4 operations"),
        ({"ops": "maxpool"}, "list of 4 operations"),
        ({"ops": [POOL, CONV3, CONV1, "skip"]}, "unknown operation 'skip'; allowed are"),
        ({"ops": [POOL, CONV3, CONV1, ["x"]]}, "unknown operation"),
        ({"parents": [[0], [0, 1], [0, 2], [1, 3]]}, "parents must be 5 lists"),
        ({"parents": [[0], [1], [0, 2], [1, 3], [3, 4]]}, "node 2 takes 2 of the nodes 0 to 1, not .1."),
        ({"parents": [[0], [0, 1], [0, 3], [1, 3], [3, 4]]}, "node 3 takes 2 of the nodes 0 to 2"),
        ({"parents": [[0], [0, 1], [0, 0], [1, 3], [3, 4]]}, "node 3 takes 2"),
        ({"parents": [[0], [0, 1], [0, -1], [1, 3], [3, 4]]}, "node 3 takes 2"),
        ({"parents": [[0], [0, 1], [0, True], [1, 3], [3, 4]]}, "node 3 takes 2"),
        ({"parents": [[0], [0, 1], 5, [1, 3], [3, 4]]}, "node 3 takes 2"),
        ({"parents": [[0], [0, 1], [0, 1, 2], [1, 3], [3, 4]]}, "node 3 takes 2"),
        ({"parents": [[0], [0, 1], [0, {}], [1, 3], [3, 4]]}, "node 3 takes 2"),
    ],
)
def test_texts_that_are_no_cell(change: dict[str, object], words: str) -> None:
    space = NASBench1Shot1Space(1)
    space.parse(json.dumps(GOOD))
    with pytest.raises(ValueError, match=words) as error:
        space.parse(json.dumps(GOOD | change))
    assert "\n" not in str(error.value)


def test_genotypes_that_are_none() -> None:
    space = NASBench1Shot1Space(1)
    genotype = space.parse(json.dumps(GOOD))
    for picks, words in [
        ({"output": (1,)}, "'output' of 'nasbench1shot1_1' keeps 2 of"),
        ({"ops/9": (1,)}, "has no decision"),
        ({"inputs/1": (0,)}, "has no decision"),
    ]:
        with pytest.raises(ValueError, match=words):
            space.check(Genotype(space.name, {**genotype.picks, **picks}))
    with pytest.raises(ValueError, match="lacks the decision 'ops/1'"):
        space.check(Genotype(space.name, {k: v for k, v in genotype.picks.items() if k != "ops/1"}))
    with pytest.raises(ValueError, match="was given to space 'nasbench1shot1_2'"):
        NASBench1Shot1Space(2).check(genotype)
    with pytest.raises(ValueError, match=r"no space 4; give one of \[1, 2, 3\]"):
        NASBench1Shot1Space(4)


@numbers
def test_scores_select_the_best_operation_and_the_best_parents(number: int) -> None:
    space = NASBench1Shot1Space(number)
    generator = torch.Generator().manual_seed(number)
    scores: dict[str, Tensor] = {}
    for group, rows in space.decisions.items():
        scores[group] = torch.rand(len(rows), max(len(row.choices) for row in rows), generator=generator)
        for index, row in enumerate(rows):
            scores[group][index, len(row.choices) :] = 9.0  # padding counts for nothing
    picks = space.discretize(scores).picks
    for group, rows in space.decisions.items():
        for index, row in enumerate(rows):
            value = scores[group][index].tolist()[: len(row.choices)]
            best = max(combinations(range(len(value)), row.keep), key=lambda kept, v=value: sum(v[k] for k in kept))
            assert picks[row.name] == best
    assert CONV3 not in space.format(space.discretize(scores, exclude=(CONV3,)))


def test_closed_choices_and_groups_without_scores() -> None:
    space = NASBench1Shot1Space(2)
    output = torch.tensor([[0.9, -torch.inf, 0.1, 0.2, -torch.inf]])
    picks = space.discretize({"output": output}).picks
    assert picks["output"] == (0, 2, 3)
    assert picks["inputs/4"] == (0, 1)
    assert picks["ops/3"] == (0,)


@numbers
def test_the_vertex_is_read_back(number: int) -> None:
    space = NASBench1Shot1Space(number)
    for seed in range(10):
        genotype = space.sample(random.Random(seed))
        vertex = space.vertex(genotype)
        assert space.discretize(vertex.weights) == genotype
        for group, rows in space.decisions.items():
            assert vertex.open(group) == tuple(genotype.picks[row.name] for row in rows)


def test_the_graph_has_operations_on_its_nodes() -> None:
    space = NASBench1Shot1Space(1)
    graph = space.graphs(space.parse(json.dumps(GOOD)))["cell"]
    assert graph.nodes == ("input", f"1: {POOL}", f"2: {CONV3}", f"3: {CONV1}", f"4: {POOL}", "output")
    assert {(s, t) for s, t, _ in graph.edges} == {
        (0, 1), (0, 2), (1, 2), (0, 3), (2, 3), (1, 4), (3, 4), (3, 5), (4, 5)
    }  # fmt: skip
    assert all(label == "" for *_, label in graph.edges)


class Fake(nn.Module):
    """A cell that remembers the shape of its input and gives zeros of the shape it has to give."""

    def __init__(self, place: CellPlace, blocks: int) -> None:
        super().__init__()
        self.place, self.blocks, self.seen = place, blocks, (0, 0, 0)

    def forward(self, states: tuple[Tensor, ...], sample: object = None) -> Tensor:
        (x,) = states
        self.seen = tuple(x.shape[1:])
        return x.new_zeros(x.shape[0], self.blocks * self.place.channels, *x.shape[2:])


@numbers
def test_the_skeleton_pools_before_the_fourth_and_the_seventh_cell(number: int) -> None:
    space = NASBench1Shot1Space(number)
    cells: list[Fake] = []
    network = space.network(lambda p: cells.append(Fake(p, space.blocks)) or cells[-1], NetworkSize(16, 9))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    b = space.blocks
    sides = [32] * 3 + [17] * 3 + [9] * 3  # a padded pooling of 32 gives 17, of 17 gives 9
    widths = [16, 16 * b, 16 * b, 16 * b, 32 * b, 32 * b, 32 * b, 64 * b, 64 * b]
    assert [cell.seen for cell in cells] == [(width, side, side) for width, side in zip(widths, sides, strict=True)]
    assert [cell.place.channels for cell in cells] == [16] * 3 + [32] * 3 + [64] * 3
    assert [cell.place.in_channels for cell in cells] == [(width,) for width in widths]
    assert network.num_features == 64
    assert isinstance(network.tail[0], nn.ReLU)  # type: ignore[index]
    assert not network.tail[2].affine  # type: ignore[index]
    assert network(torch.zeros(1, 3, 15, 13)).shape == (1, 10)


def test_the_stem_is_activated_and_may_be_that_for_large_pictures() -> None:
    space = NASBench1Shot1Space(1)
    for stem, shape in (("cifar", (16, 32, 32)), ("imagenet", (16, 8, 8))):
        size = NetworkSize(16, 3, stem=stem)  # type: ignore[arg-type]
        network = space.network(lambda p: Fake(p, 4), size)
        (out,) = network.stem(torch.randn(4, 3, 32, 32))
        assert out.shape[1:] == shape
        assert out.min() == 0
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
