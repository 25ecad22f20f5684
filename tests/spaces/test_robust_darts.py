"""The spaces of RobustDARTS: the published lists, and what holds where edges have lists of their own."""

from __future__ import annotations

import random

import pytest
import torch

from lightning_nas.spaces import DARTS_OPS, DARTSSpace, get_space, load_genotype, robust_darts_space

# (target, source) -> the two candidates of S1 in the normal and in the reduction cell
S1 = {
    (2, 0): ({"skip_connect", "dil_conv_3x3"}, {"max_pool_3x3", "avg_pool_3x3"}),
    (2, 1): ({"skip_connect", "dil_conv_5x5"}, {"max_pool_3x3", "dil_conv_3x3"}),
    (3, 0): ({"skip_connect", "dil_conv_5x5"}, {"max_pool_3x3", "avg_pool_3x3"}),
    (3, 1): ({"skip_connect", "sep_conv_3x3"}, {"max_pool_3x3", "avg_pool_3x3"}),
    (3, 2): ({"skip_connect", "dil_conv_3x3"}, {"skip_connect", "dil_conv_5x5"}),
    (4, 0): ({"max_pool_3x3", "skip_connect"}, {"max_pool_3x3", "avg_pool_3x3"}),
    (4, 1): ({"skip_connect", "sep_conv_3x3"}, {"max_pool_3x3", "sep_conv_3x3"}),
    (4, 2): ({"skip_connect", "sep_conv_3x3"}, {"skip_connect", "dil_conv_3x3"}),
    (4, 3): ({"skip_connect", "dil_conv_3x3"}, {"skip_connect", "dil_conv_5x5"}),
    (5, 0): ({"skip_connect", "sep_conv_3x3"}, {"max_pool_3x3", "avg_pool_3x3"}),
    (5, 1): ({"max_pool_3x3", "skip_connect"}, {"max_pool_3x3", "avg_pool_3x3"}),
    (5, 2): ({"skip_connect", "dil_conv_3x3"}, {"skip_connect", "dil_conv_5x5"}),
    (5, 3): ({"dil_conv_3x3", "dil_conv_5x5"}, {"skip_connect", "dil_conv_5x5"}),
    (5, 4): ({"dil_conv_3x3", "dil_conv_5x5"}, {"skip_connect", "dil_conv_5x5"}),
}


def space_of(name: str) -> DARTSSpace:
    space = get_space(name)
    assert isinstance(space, DARTSSpace)
    return space


@pytest.mark.parametrize(("kind", "column"), [("normal", 0), ("reduce", 1)])
def test_s1_has_two_candidates_of_its_own_on_each_edge(kind: str, column: int) -> None:
    rows = space_of("s1").decisions[kind]
    assert {row.name: set(row.choices) for row in rows} == {
        f"{kind}/{target}<-{source}": pair[column] for (target, source), pair in S1.items()
    }
    assert all(len(row.choices) == 2 for row in rows)


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("s2", ("skip_connect", "sep_conv_3x3")),
        ("s3", ("none", "skip_connect", "sep_conv_3x3")),
        ("s4", ("noise", "sep_conv_3x3")),
        ("s5", DARTS_OPS),
    ],
)
def test_the_others_have_one_list(name: str, ops: tuple[str, ...]) -> None:
    space = space_of(name)
    assert [row.choices for kind in space.kinds for row in space.decisions[kind]] == [ops] * 28


def test_an_operation_is_refused_on_an_edge_that_lacks_it() -> None:
    space = space_of("s1")
    genotype = space.sample(random.Random(0))
    text = space.format(genotype)
    first = text[text.index("[") + 2 : text.index(")")]
    with pytest.raises(ValueError, match=r"unknown operation 'avg_pool_3x3' on normal/2<-0; allowed are \('skip_conn"):
        space.parse(text.replace(first, "'avg_pool_3x3', 0", 1))
    with pytest.raises(ValueError, match=r"'dil_conv_5x5'.* is no decision of 's1' with choices"):
        space.parse('{"space": "s1", "picks": {"normal/2<-0": ["dil_conv_5x5"]}}')


@pytest.mark.parametrize("seed", range(10))
def test_the_best_of_each_edge_is_named_by_its_own_list(seed: int) -> None:
    space = space_of("s1")
    planted = space.sample(random.Random(seed))
    scores = {kind: 0.1 * torch.rand(14, 2, generator=torch.Generator().manual_seed(seed)) for kind in space.kinds}
    for kind in space.kinds:
        for row, choice in space.kept_rows(planted, kind).items():
            scores[kind][row, choice] = 1.0
    found = space.discretize(scores)
    assert found == planted
    for kind in space.kinds:
        for row, choice in space.kept_rows(found, kind).items():
            assert space.op_name(kind, row, choice) in S1[space.topology.edges[row]][kind == "reduce"]


def test_noise_is_chosen_where_it_scores_and_none_is_not() -> None:
    first = {kind: torch.tensor([[0.9, 0.1]]).repeat(14, 1) for kind in ("normal", "reduce")}
    assert "sep_conv" not in space_of("s4").format(space_of("s4").discretize(first))
    first = {kind: torch.tensor([[0.8, 0.1, 0.05]]).repeat(14, 1) for kind in ("normal", "reduce")}
    assert set(space_of("s3").format(space_of("s3").discretize(first)).split("'")[1::2]) == {"skip_connect"}


def test_json_leads_back_to_the_space() -> None:
    for name in ("s1", "s2", "s3", "s4", "s5"):
        genotype = space_of(name).sample(random.Random(1))
        space, back = load_genotype(space_of(name).to_json(genotype))
        assert (space.name, back) == (name, genotype)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown space 's6'; the spaces of RobustDARTS are s1, s2, s3, s4, s5"):
        robust_darts_space("s6")
