"""The macro space of ENAS: its decisions, counts, texts and skeleton."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.spaces import ENAS_MACRO_OPS, CellPlace, ENASMacroSpace, NetworkSize, get_space, load_genotype
from lightning_nas.spaces.enas_macro import make_macro_op

some = settings(max_examples=40, deadline=None, database=None)


def test_decisions_and_architectures_are_as_many_as_published() -> None:
    space = ENASMacroSpace()
    assert {group: len(rows) for group, rows in space.decisions.items()} == {"ops": 12, "skips": 66}
    count = 1
    for rows in space.decisions.values():
        for row in rows:
            assert row.keep == 1
            count *= len(row.choices)
    assert count == 6**12 * 2**66
    assert space.relaxed == ("ops", "skips")
    assert space.default_cells == space.derived_cells == 12
    assert [space.third(layer) for layer in range(12)] == [0] * 4 + [1] * 4 + [2] * 4


def test_rows_of_skips_go_layer_by_layer() -> None:
    space = ENASMacroSpace(7)
    names = [row.name for row in space.decisions["skips"]]
    for layer in range(7):
        for earlier in range(layer):
            assert names[space.skip_row(layer, earlier)] == f"skips/{layer}<-{earlier}"
    assert len(names) == 21
    assert [space.third(layer) for layer in range(7)] == [0, 0, 1, 1, 2, 2, 2]


def test_every_genotype_of_three_layers_is_met_by_its_neighbors() -> None:
    space = ENASMacroSpace(3)
    start = space.parse("0 0 0 0 0 0")
    seen, left = {start}, [start]
    while left:
        for neighbor in space.neighbors(left.pop()):
            if neighbor not in seen:
                seen.add(space.check(neighbor))
                left.append(neighbor)
    assert len(seen) == 6**3 * 2**3
    assert len({space.format(genotype) for genotype in seen}) == 6**3 * 2**3


@some
@given(seed=st.integers(0, 2**32))
def test_neighbors_differ_in_one_decision(seed: int) -> None:
    space = ENASMacroSpace()
    genotype = space.sample(random.Random(seed))
    neighbors = list(space.neighbors(genotype))
    assert len(set(neighbors)) == len(neighbors) == 12 * 5 + 66
    for neighbor in neighbors:
        assert sum(kept != genotype.picks[name] for name, kept in space.check(neighbor).picks.items()) == 1


def test_samples_are_uniform() -> None:
    space, rng, draws = ENASMacroSpace(), random.Random(0), 3000
    drawn = [space.sample(rng).picks for _ in range(draws)]
    for rows in space.decisions.values():
        for row in rows:
            share = 1 / len(row.choices)
            for k in range(len(row.choices)):
                count = sum(picks[row.name] == (k,) for picks in drawn)
                assert abs(count - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


def test_the_rows_of_the_released_code_are_read_as_they_are_meant() -> None:
    """A row for each layer: its operation, then a bit for each layer before it."""
    space = ENASMacroSpace(4)
    genotype = space.parse("0\n3 1\n 2 0 1\n5 1 0 1\n")
    assert [(ENAS_MACRO_OPS[op], skips) for op, skips in space.chain(genotype)] == [
        ("conv_3x3", ()),
        ("sep_conv_5x5", (0,)),
        ("conv_5x5", (1,)),
        ("max_pool_3x3", (0, 2)),
    ]
    assert [ENAS_MACRO_OPS[k] for k in (1, 4)] == ["sep_conv_3x3", "avg_pool_3x3"]
    assert space.format(genotype) == "enas_macro_4: 0 3 1 2 0 1 5 1 0 1"
    assert space.canonical(genotype) == genotype


@some
@given(seed=st.integers(0, 2**32))
def test_texts_lead_back(seed: int) -> None:
    space = get_space("enas_macro")
    genotype = space.sample(random.Random(seed))
    for text in (space.format(genotype), space.to_json(genotype)):
        loaded, back = load_genotype(f" {text}\n")
        assert (loaded.name, back) == ("enas_macro", genotype) == ("enas_macro", space.parse(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 3 1 2 0", "5 integers were given; 'enas_macro_3' has 6 decisions"),
        ("0 3 2 2 0 1", "'skips/1<-0' is 2; allowed are 0 to 1, for no, yes"),
        ("6 3 1 2 0 1", "'ops/0' is 6; allowed are 0 to 5, for conv_3x3, "),
        ("enas_macro: 0 3 1 2 0 1", "space 'enas_macro' was given to space 'enas_macro_3'"),
    ],
)
def test_texts_that_are_no_network(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        ENASMacroSpace(3).parse(text)
    assert "\n" not in str(error.value)


def test_what_is_refused() -> None:
    space = ENASMacroSpace(3)
    genotype = space.parse("0 3 1 2 0 1")
    with pytest.raises(ValueError, match="'skips/2<-0' of 'enas_macro_3' keeps 1 of"):
        space.check(Genotype(space.name, {**genotype.picks, "skips/2<-0": (0, 1)}))
    with pytest.raises(ValueError, match="was given to space 'enas_macro'; use its own"):
        ENASMacroSpace().check(genotype)
    with pytest.raises(ValueError, match=r"layers=2: .* at least 3"):
        ENASMacroSpace(2)
    with pytest.raises(ValueError, match="cells=5: 'enas_macro_3' has 3 layers; leave cells out") as error:
        space.network(lambda _: nn.Identity(), NetworkSize(8, 5))
    assert "\n" not in str(error.value)


def test_scores_select_the_best_choice_of_each_row_and_the_vertex_is_read_back() -> None:
    space = ENASMacroSpace(4)
    scores = {
        "ops": torch.rand(4, 6, generator=torch.Generator().manual_seed(0)),
        "skips": torch.tensor([[0.5, 0.5]] * 6),
    }
    scores["skips"][4] = torch.tensor([0.4, 0.6])
    chain = space.chain(space.discretize(scores))
    assert [op for op, _ in chain] == scores["ops"].argmax(-1).tolist()
    assert [skips for _, skips in chain] == [(), (), (), (1,)]  # where both score the same there is none
    for seed in range(10):
        genotype = space.sample(random.Random(seed))
        assert space.discretize(space.vertex(genotype).weights) == genotype


def test_the_graph_is_a_chain_with_skips() -> None:
    space = ENASMacroSpace(3)
    graph = space.graphs(space.parse("0  3 1  5 1 0"))["network"]
    assert graph.nodes == ("input", "0", "1", "output")
    assert graph.edges == (
        (0, 1, "conv_3x3"), (1, 2, "sep_conv_5x5"), (1, 2, ""), (2, 3, "max_pool_3x3"), (1, 3, "")
    )  # fmt: skip


class Fake(nn.Module):
    out_channels = 12

    def forward(self, states: tuple[Tensor, ...], sample: object = None) -> Tensor:
        (x,) = states
        self.seen = x.shape[1:]
        return x.new_zeros(x.shape[0], 12, x.shape[2] // 4, x.shape[3] // 4)


def test_the_skeleton_is_one_block_behind_a_stem() -> None:
    space, places = ENASMacroSpace(), []
    for stem, side, reductions in (("cifar", 32, 2), ("imagenet", 8, 4)):
        fake = Fake()
        network = space.network(lambda p, fake=fake: places.append(p) or fake, NetworkSize(8, 12, stem=stem))  # type: ignore[arg-type,misc]
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert fake.seen == (8, side, side)
        assert (network.num_features, network.reductions) == (12, reductions)
    assert places == [CellPlace("network", 0, (8,), 8)] * 2


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("conv_3x3", 64 + 9 * 64),
        ("conv_5x5", 64 + 25 * 64),
        ("sep_conv_3x3", 64 + 9 * 8 + 64),
        ("sep_conv_5x5", 64 + 25 * 8 + 64),
        ("avg_pool_3x3", 64),
        ("max_pool_3x3", 64),
    ],
)
def test_an_operation_is_a_1x1_convolution_and_its_own(name: str, parameters: int) -> None:
    op = make_macro_op(name, 8)
    assert sum(p.numel() for p in op.parameters()) == parameters
    scaled = make_macro_op(name, 8, affine=True, track_stats=True)
    norms = 1 if "pool" in name else 2
    assert sum(p.numel() for p in scaled.parameters()) == parameters + norms * 16
    assert op(torch.randn(2, 8, 6, 6)).min() >= 0
