"""The micro space of ENAS: its decisions, counts, texts, symmetries and skeleton."""

from __future__ import annotations

import random
from itertools import permutations, product
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.spaces import ENAS_MICRO_OPS, CellPlace, ENASMicroSpace, NetworkSize, get_space, load_genotype

PUBLISHED = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
some = settings(max_examples=40, deadline=None, database=None)


def test_decisions_and_architectures_are_as_many_as_published() -> None:
    space = ENASMicroSpace()
    assert {group: len(rows) for group, rows in space.decisions.items()} == {
        "normal/ops": 10, "normal/inputs": 10, "reduce/ops": 10, "reduce/inputs": 10
    }  # fmt: skip
    rows = [row for rows in space.decisions.values() for row in rows]
    assert prod(len(row.choices) for row in rows) == prod((2 + b) * 5 for b in range(5)) ** 4  # two cells of two sides
    assert {row.keep for row in rows} == {1}
    assert space.relaxed == tuple(space.decisions)
    assert (space.default_cells, space.derived_cells, space.derived_channels) == (8, 17, 36)


def test_every_string_of_one_block_is_another_genotype() -> None:
    """One block in each cell: (2 * 5)^2 cells of each kind."""
    space = ENASMicroSpace(1)
    strings = [" ".join(map(str, integers)) for integers in product(*[range(2), range(5)] * 4)]
    assert len({space.check(space.parse(string)) for string in strings}) == len(strings) == (2 * 5) ** 4


@some
@given(seed=st.integers(0, 2**32))
def test_neighbors_differ_in_one_decision(seed: int) -> None:
    space = ENASMicroSpace()
    genotype = space.sample(random.Random(seed))
    neighbors = list(space.neighbors(genotype))
    assert len(set(neighbors)) == len(neighbors) == 2 * (10 * 4 + 2 * (1 + 2 + 3 + 4 + 5))
    for neighbor in neighbors:
        changed = [name for name, kept in space.check(neighbor).picks.items() if kept != genotype.picks[name]]
        assert len(changed) == 1


def test_samples_are_uniform() -> None:
    """Each choice of each decision within five standard deviations of its share."""
    space, rng, draws = ENASMicroSpace(), random.Random(0), 3000
    drawn = [space.sample(rng).picks for _ in range(draws)]
    for rows in space.decisions.values():
        for row in rows:
            share = 1 / len(row.choices)
            for k in range(len(row.choices)):
                count = sum(picks[row.name] == (k,) for picks in drawn)
                assert abs(count - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


# --- texts


def test_the_published_string_is_read_as_it_is_meant() -> None:
    space = ENASMicroSpace()
    genotype = space.parse(PUBLISHED)
    sep3, sep5, avg, mx, skip = range(5)
    assert [ENAS_MICRO_OPS[k] for k in (sep3, sep5, avg, mx, skip)] == [
        "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect"
    ]  # fmt: skip
    assert space.cell(genotype, "normal")[:2] == (((0, avg), (0, sep3)), ((0, skip), (0, sep5)))
    assert space.cell(genotype, "reduce")[2] == ((1, sep5), (3, sep5))
    assert space.loose_ends(genotype, "normal") == (2, 3, 4, 5, 6)
    assert space.loose_ends(genotype, "reduce") == (2, 4, 5, 6)
    assert genotype.picks["normal/ops/4/left"] == (skip,)
    assert genotype.picks["normal/inputs/4/right"] == (1,)
    assert space.format(genotype) == f"enas_micro: {PUBLISHED}"


@some
@given(seed=st.integers(0, 2**32))
def test_texts_lead_back(seed: int) -> None:
    space = get_space("enas_micro")
    genotype = space.sample(random.Random(seed))
    for text in (space.format(genotype), space.to_json(genotype)):
        loaded, back = load_genotype(f" {text}\n")
        assert (loaded.name, back) == ("enas_micro", genotype) == ("enas_micro", space.parse(text))
    assert space.parse(space.format(genotype).partition(":")[2].replace(" ", "\n  ")) == genotype


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PUBLISHED[:-2], "39 integers were given; 'enas_micro' has 40 decisions"),
        (f"{PUBLISHED} 0", "41 integers"),
        (PUBLISHED.replace("0 2", "2 2", 1), r"'normal/inputs/2/left' is 2; allowed are 0 to 1, for 0, 1"),
        (PUBLISHED.replace("0 2", "0 5", 1), r"'normal/ops/2/left' is 5; allowed are 0 to 4, for sep_conv_3x3, "),
        (PUBLISHED.replace("0", "-1", 1), "not an ENAS architecture: '-1 2"),
        (PUBLISHED.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}", 1), "not an ENAS architecture"),
        (f"enas_macro: {PUBLISHED}", "space 'enas_macro' was given to space 'enas_micro'"),
        ("enas_micro: ", "not an ENAS architecture"),
        ("99999999999", "not an ENAS architecture"),
    ],
)
def test_texts_that_are_no_cell(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        ENASMicroSpace().parse(text)
    assert "\n" not in str(error.value)


def test_a_text_of_an_unknown_space() -> None:
    with pytest.raises(ValueError, match="unknown space 'enas_other'"):
        load_genotype("enas_other: 0 1")


def test_a_file_may_be_named_as_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"enas_micro: {PUBLISHED}"
    Path("enas_micro.txt").write_text(text, encoding="utf-8")
    assert load_genotype("enas_micro.txt")[1] == load_genotype(text)[1]


def test_genotypes_that_are_none() -> None:
    space = ENASMicroSpace()
    genotype = space.parse(PUBLISHED)
    for picks, words in [
        ({"normal/ops/2/left": (5,)}, "'normal/ops/2/left' of 'enas_micro' keeps 1 of"),
        ({"normal/inputs/2/left": (0, 1)}, "keeps 1 of"),
        ({"normal/ops/9/left": (0,)}, "has no decision"),
    ]:
        with pytest.raises(ValueError, match=words):
            space.check(Genotype(space.name, {**genotype.picks, **picks}))
    with pytest.raises(ValueError, match="lacks the decision 'reduce/ops/6/right'"):
        space.check(Genotype(space.name, {k: v for k, v in genotype.picks.items() if k != "reduce/ops/6/right"}))
    with pytest.raises(ValueError, match="was given to space 'enas_micro_4'"):
        ENASMicroSpace(4).check(genotype)
    with pytest.raises(ValueError, match="blocks=0"):
        ENASMicroSpace(0)


# --- symmetries


def tree(cell: tuple[tuple[tuple[int, int], tuple[int, int]], ...], node: int) -> object:
    """What a node computes, as nested sorted terms: blocks lose their numbers and their sides."""
    if node < 2:
        return ("", node)
    return ("+", *sorted(((op, tree(cell, source)) for source, op in cell[node - 2]), key=repr))


def test_canonical_has_one_representative_for_each_class_of_small_cells() -> None:
    """Cells are alike if some bijection of their blocks, and of each block's sides, leads from one to the other."""
    space = ENASMicroSpace(2)
    ops = (0, 4)
    sides = [list(product(range(n), ops)) for n in (2, 2, 3, 3)]
    cells = [((a, b), (c, d)) for a, b, c, d in product(*sides)]
    classes: dict[object, set[Genotype]] = {}
    for cell in cells:
        keys = []
        for order in permutations(range(2)):
            new = {0: 0, 1: 1} | {2 + old: 2 + at for at, old in enumerate(order)}
            moved = tuple(tuple(sorted((new[s], op) for s, op in cell[old])) for old in order)
            keys.append(moved)  # also orders in which a block takes a later one: any bijection counts
        integers = [n for block in cell for side in block for n in side]
        genotype = space.parse(" ".join(map(str, integers * 2)))
        canonical = space.canonical(genotype)
        assert space.cell(canonical, "normal") == space.cell(canonical, "reduce")
        classes.setdefault(min(keys), set()).add(canonical)
        assert sorted(map(repr, (tree(space.cell(canonical, "normal"), 2 + k) for k in range(2)))) == sorted(
            map(repr, (tree(cell, 2 + k) for k in range(2)))
        )
    assert all(len(found) == 1 for found in classes.values())
    assert len(set().union(*classes.values())) == len(classes) < len(cells)


@some
@given(seed=st.integers(0, 2**32))
def test_canonical_does_not_see_sides_nor_the_order_of_blocks(seed: int) -> None:
    space, rng = ENASMicroSpace(), random.Random(seed)
    genotype = space.sample(rng)
    integers: list[int] = []
    for kind in space.kinds:
        blocks = space.cell(genotype, kind)
        order: list[int] = []
        while len(order) < 5:  # a random order in which blocks still take earlier nodes
            free = [b for b in range(5) if b not in order and all(s < 2 or s - 2 in order for s, _ in blocks[b])]
            order.append(rng.choice(free))
        new = {0: 0, 1: 1} | {2 + old: 2 + at for at, old in enumerate(order)}
        for old in order:
            for source, op in rng.sample(blocks[old], 2):
                integers += [new[source], op]
    moved = space.parse(" ".join(map(str, integers)))
    canonical = space.canonical(genotype)
    assert space.canonical(moved) == canonical == space.canonical(canonical)


# --- scores, vertex, graph


def test_scores_select_the_best_choice_of_each_row() -> None:
    space = ENASMicroSpace()
    generator = torch.Generator().manual_seed(0)
    scores: dict[str, Tensor] = {}
    for group, rows in space.decisions.items():
        scores[group] = torch.rand(len(rows), max(len(row.choices) for row in rows), generator=generator)
        for index, row in enumerate(rows):
            scores[group][index, len(row.choices) :] = 9.0  # padding counts for nothing
    picks = space.discretize(scores).picks
    for group, rows in space.decisions.items():
        for index, row in enumerate(rows):
            value = scores[group][index].tolist()[: len(row.choices)]
            assert picks[row.name] == (value.index(max(value)),)
    without = space.discretize(scores, exclude=("sep_conv_3x3", "skip_connect"))
    assert {without.picks[row.name][0] for row in space.decisions["normal/ops"]} <= {1, 2, 3}
    scores["normal/inputs"][0] = torch.tensor([-torch.inf, 0.1, *[9.0] * 4])
    assert space.discretize(scores).picks["normal/inputs/2/left"] == (1,)
    assert space.discretize({}) == space.parse(" ".join(["0"] * 40))


def test_the_vertex_is_read_back() -> None:
    space = ENASMicroSpace()
    for seed in range(10):
        genotype = space.sample(random.Random(seed))
        vertex = space.vertex(genotype)
        assert space.discretize(vertex.weights) == genotype
        for group, rows in space.decisions.items():
            assert vertex.open(group) == tuple(genotype.picks[row.name] for row in rows)


def test_graphs_have_every_side_as_an_edge_and_every_loose_end_as_a_wire() -> None:
    space = ENASMicroSpace()
    graph = space.graphs(space.parse(PUBLISHED))["reduce"]
    assert graph.nodes == ("c_{k-2}", "c_{k-1}", "2", "3", "4", "5", "6", "output")
    assert graph.edges[:2] == ((1, 2, "sep_conv_3x3"), (1, 2, "sep_conv_3x3"))
    assert len([edge for edge in graph.edges if edge[2]]) == 10
    assert [edge for edge in graph.edges if not edge[2]] == [(2, 7, ""), (4, 7, ""), (5, 7, ""), (6, 7, "")]
    unused = space.graphs(space.parse(" ".join(["0 0"] * 20)))["normal"]  # the second input is a loose end
    assert [edge for edge in unused.edges if not edge[2]] == [(node, 7, "") for node in range(1, 7)]


# --- skeleton


class Fake(nn.Module):
    """A cell that remembers the shapes of its prepared inputs."""

    def __init__(self, space: ENASMicroSpace, place: CellPlace) -> None:
        super().__init__()
        self.place, self.prepare = place, nn.ModuleList(space.preprocess(place, affine=False))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, states: tuple[Tensor, ...], sample: object = None) -> Tensor:
        assert [state.shape[1] for state in states] == list(self.place.in_channels)
        prepared = [module(state) for module, state in zip(self.prepare, states, strict=True)]
        self.seen = [tuple(x.shape[1:]) for x in prepared]
        return prepared[1]


@pytest.mark.parametrize("cells", [1, 2, 3, 8])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_both_inputs_of_every_cell_have_its_shape(cells: int, stem: str) -> None:
    space, made = ENASMicroSpace(), []
    network = space.network(lambda p: made.append(Fake(space, p)) or made[-1], NetworkSize(8, cells, stem=stem))  # type: ignore[arg-type,func-returns-value]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    side, c = 32 // (8 if stem == "imagenet" else 1), 8
    for index, cell in enumerate(made):
        if index in (cells // 3, 2 * cells // 3):
            side, c = side // 2, 2 * c
        assert cell.seen == [(c, side, side)] * 2
        assert cell.place.kind == ("reduce" if index in (cells // 3, 2 * cells // 3) else "normal")
    assert network.num_features == c


def test_a_cell_of_the_same_shape_takes_its_inputs_as_they_are() -> None:
    space = ENASMicroSpace()
    assert [type(m) for m in space.preprocess(CellPlace("normal", 2, (8, 8), 8), False)] == [nn.Identity] * 2
