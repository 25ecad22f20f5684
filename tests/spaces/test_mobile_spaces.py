"""The spaces of ProxylessNAS, FBNet and Single Path One-Shot: sizes, texts, classes, widths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from math import log10, prod

import pytest
import torch
from toys import one_line

from lightning_nas.arch import Genotype
from lightning_nas.spaces import (
    ChainSpace,
    FBNetSpace,
    NetworkSize,
    ProxylessMobileSpace,
    ShuffleNetSpace,
    get_space,
    load_genotype,
)

MAKERS: dict[str, Callable[[], ChainSpace]] = {
    "proxyless_mobile": ProxylessMobileSpace,
    "fbnet": FBNetSpace,
    "shufflenet": ShuffleNetSpace,
}
everywhere = pytest.mark.parametrize("name", MAKERS)


def of(name: str) -> ChainSpace:
    space = get_space(name)
    assert isinstance(space, ChainSpace)
    return space


def choices(space: ChainSpace) -> list[int]:
    return [len(row.choices) for row in space.decisions["blocks"]]


# --- sizes


def test_proxyless_has_six_blocks_without_zero_and_fifteen_with() -> None:
    space = ProxylessMobileSpace()
    assert sorted(choices(space)) == [6] * 6 + [7] * 15
    assert round(log10(prod(choices(space))), 1) == 17.3
    first = [row for row in space.rows if "Zero" not in row.choices]
    assert [row.name for row in first] == [f"blocks/{i}" for i in (0, 4, 8, 12, 16, 20)]
    wanted = [f"{k}x{k}_MBConv{e}" for k in (3, 5, 7) for e in (3, 6)]
    assert [list(row.choices) for row in first] == [wanted] * 6
    assert list(space.rows[1].choices) == [*wanted, "Zero"]


def test_fbnet_has_22_layers_of_nine_candidates() -> None:
    space = FBNetSpace()
    assert choices(space) == [9] * 22
    assert 1e20 < 9**22 == prod(choices(space)) < 1e21
    wanted = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
    assert {row.choices for row in space.rows} == {wanted}
    stages = [(16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)]
    assert list(space.stages) == stages


def test_shufflenet_has_20_blocks_of_four_candidates() -> None:
    space = ShuffleNetSpace()
    assert choices(space) == [4] * 20
    assert [stage.depth for stage in space.stages] == [4, 4, 8, 4]
    assert [place.index for place in space.places if place.stride == 2] == [0, 4, 8, 16]
    assert {place.out_channels for place in space.places} == {64, 160, 320, 640}


@everywhere
def test_places_follow_one_another(name: str) -> None:
    places = of(name).places
    assert [place.index for place in places] == list(range(len(places)))
    for one, other in pairwise(places):
        assert one.out_channels == other.in_channels
    for place in places:
        assert place.keeps_shape == (place.stride == 1 and place.in_channels == place.out_channels)


# --- widths and depths


@everywhere
@pytest.mark.parametrize("channels", [2, 4, 12, 16, 20, 32])
def test_widths_are_even_and_in_proportion(name: str, channels: int) -> None:
    space = of(name)
    size = NetworkSize(channels, len(space.places))
    for published in {place.out_channels for place in space.places} | {space.tail}:
        width = space.width(published, size)
        assert width % 2 == 0
        assert abs(width - published * channels / 16) <= 1
    assert space.width(16, size) == channels
    assert all(space.width(c, NetworkSize(16, 1)) == c for c in range(2, 2000, 2))


def test_stages_are_data() -> None:
    space = ProxylessMobileSpace("tiny", stages=((24, 2, 2), (24, 1, 1)), tail=64)
    assert choices(space) == [6, 7, 7]
    genotype = space.sample(random.Random(0))
    assert genotype.space == "tiny"
    assert space.parse(space.format(genotype)) == genotype
    assert list(space.graphs(genotype)) == ["stage1", "stage2"]


@pytest.mark.parametrize("maker", MAKERS.values())
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stages": ()}, "at least one stage"),
        ({"stages": ((24, 0, 2),)}, "at least one block"),
        ({"stages": ((25, 1, 2),)}, "an even number of channels"),
        ({"stages": ((24, 1, 3),)}, "stride 1 or 2"),
        ({"tail": 0}, "a positive tail"),
    ],
)
def test_stages_that_are_none(maker: Callable[..., ChainSpace], settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        maker(**settings)
    one_line(error.value)


# --- neighbors, samples, classes


@everywhere
def test_neighbors_differ_in_one_block(name: str) -> None:
    space, rng = of(name), random.Random(1)
    genotype = space.sample(rng)
    neighbors = list(space.neighbors(genotype))
    assert len(set(neighbors)) == len(neighbors) == sum(count - 1 for count in choices(space))
    for neighbor in neighbors:
        names = zip(space.names(genotype), space.names(space.check(neighbor)), strict=True)
        assert sum(one != other for one, other in names) == 1


@everywhere
def test_samples_are_uniform(name: str) -> None:
    """Each candidate of each block within five standard deviations of its share."""
    space, rng, draws = of(name), random.Random(0), 1500
    drawn = [space.sample(rng).picks for _ in range(draws)]
    for row in space.rows:
        share = 1 / len(row.choices)
        for k in range(len(row.choices)):
            count = sum(picks[row.name] == (k,) for picks in drawn)
            assert abs(count - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


def test_canonical_tells_networks_apart_and_nothing_else() -> None:
    """In all genotypes of a small space: as many representatives as chains of blocks that are not the identity."""
    space = ProxylessMobileSpace("tiny", stages=((24, 3, 2), (40, 2, 2), (40, 1, 1)))
    representatives: dict[tuple[str, ...], set[Genotype]] = {}
    few = ("3x3_MBConv3", "7x7_MBConv6", "Zero")
    todo: list[list[str]] = [[]]
    for row in space.rows:
        todo = [[*names, name] for names in todo for name in few if name in row.choices]
    assert len(todo) == 2**2 * 3**4
    for names in todo:
        canonical = space.canonical(space.from_names(names))
        assert space.canonical(canonical) == canonical
        chain = tuple(f"{space.places[i].stage < 2}{name}" for i, name in enumerate(names) if name != "Zero")
        representatives.setdefault(chain, set()).add(canonical)
    assert all(len(found) == 1 for found in representatives.values())
    assert len({next(iter(found)) for found in representatives.values()}) == len(representatives)
    assert len(representatives) == 2 * (1 + 2 + 4) * 2 * (1 + 2 + 4)


def test_canonical_of_fbnet_leaves_skips_that_are_convolutions() -> None:
    space = FBNetSpace("tiny", stages=((16, 2, 1), (24, 2, 2)))
    for names, wanted in [
        (["skip", "k3_e1", "skip", "k3_e1"], ["k3_e1", "skip", "skip", "k3_e1"]),
        (["k3_e1", "skip", "skip", "skip"], ["k3_e1", "skip", "skip", "skip"]),
    ]:
        assert space.names(space.canonical(space.from_names(names))) == tuple(wanted)


def test_genotypes_of_shufflenet_are_all_different() -> None:
    space = ShuffleNetSpace()
    for seed in range(20):
        genotype = space.sample(random.Random(seed))
        assert space.canonical(genotype) == genotype


# --- texts


@everywhere
def test_texts_lead_back(name: str) -> None:
    space = of(name)
    for seed in range(20):
        genotype = space.sample(random.Random(seed))
        assert "\n" not in space.format(genotype)
        assert json.loads(space.format(genotype)) == {"space": name, "blocks": list(space.names(genotype))}
        for text in (space.format(genotype), space.to_json(genotype)):
            loaded, back = load_genotype(text)
            assert (loaded.name, back) == (name, genotype) == (name, space.parse(f" {text}\n"))


FEW = {"space": "fbnet", "blocks": ["skip"] * 22}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": "shufflenet"}, "space 'shufflenet' was given to space 'fbnet'"),
        ({"space": ["fbnet"]}, "was given to space 'fbnet'"),
        ({"blocks": ["skip"] * 21}, "has 22 blocks, not 21"),
        ({"blocks": []}, "has 22 blocks, not 0"),
        ({"blocks": "skip"}, "must be a list of candidates, not 'skip'"),
        ({"blocks": ["skip"] * 21 + ["k7_e6"]}, "blocks/21 of 'fbnet' has no 'k7_e6'; allowed are"),
        ({"blocks": ["skip"] * 21 + [["skip"]]}, "blocks/21 of 'fbnet' has no"),
        ({"blocks": [None] * 22}, "blocks/0 of 'fbnet' has no 'None'"),
    ],
)
def test_texts_that_are_none(change: dict[str, object], words: str) -> None:
    space = FBNetSpace()
    assert set(space.names(space.parse(json.dumps(FEW)))) == {"skip"}
    with pytest.raises(ValueError, match=words) as error:
        space.parse(json.dumps(FEW | change))
    one_line(error.value)


@everywhere
@pytest.mark.parametrize("text", ["", "[]", "1", "{}", "{", "[" * 100_000, "fbnet", '{"blocks": []}', "x" * 10_000])
def test_what_is_no_text_is_refused_in_one_line(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        of(name).parse(text)
    one_line(error.value)
    assert len(str(error.value)) < 500


def test_genotypes_that_are_none() -> None:
    space = ProxylessMobileSpace()
    picks = dict(space.sample(random.Random(0)).picks)
    for change, words in [
        ({"blocks/0": (6,)}, r"'blocks/0' of 'proxyless_mobile' keeps 1 of"),
        ({"blocks/1": (7,)}, r"'blocks/1' of 'proxyless_mobile' keeps 1 of"),
        ({"blocks/1": (0, 1)}, r"'blocks/1' of 'proxyless_mobile' keeps 1 of"),
        ({"blocks/21": (0,)}, r"has no decision \['blocks/21'\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            space.check(Genotype(space.name, {**picks, **change}))
    with pytest.raises(ValueError, match="lacks the decision 'blocks/3'"):
        space.check(Genotype(space.name, {name: kept for name, kept in picks.items() if name != "blocks/3"}))
    with pytest.raises(ValueError, match="'proxyless_mobile' was given to space 'fbnet'"):
        FBNetSpace().check(Genotype(space.name, picks))


# --- scores, vertices, graphs


@everywhere
def test_scores_select_the_best_candidate_of_each_block(name: str) -> None:
    space = of(name)
    scores = torch.rand(len(space.rows), max(choices(space)), generator=torch.Generator().manual_seed(3))
    for row, count in enumerate(choices(space)):
        scores[row, count:] = 9.0  # padding counts for nothing
    names = space.names(space.discretize({"blocks": scores}))
    for row, (decision, found) in enumerate(zip(space.rows, names, strict=True)):
        values = scores[row].tolist()[: len(decision.choices)]
        assert found == decision.choices[values.index(max(values))]
    banned = names[1]
    assert banned not in space.names(space.discretize({"blocks": scores}, exclude=(banned,)))
    assert space.discretize({"blocks": scores}, exclude=tuple(space.ops)) == space.discretize({"blocks": scores})


@everywhere
def test_closed_candidates_are_not_selected(name: str) -> None:
    space = of(name)
    scores = torch.full((len(space.rows), max(choices(space))), -torch.inf)
    genotype = space.sample(random.Random(2))
    for row, decision in enumerate(space.rows):
        scores[row, genotype.picks[decision.name][0]] = -5.0
    assert space.discretize({"blocks": scores}) == genotype


@everywhere
def test_graphs_are_one_chain_in_parts(name: str) -> None:
    space = of(name)
    genotype = space.sample(random.Random(4))
    graphs = space.graphs(genotype)
    assert [len(graph.edges) for graph in graphs.values()] == [stage.depth for stage in space.stages]
    assert [label for graph in graphs.values() for *_, label in graph.edges] == list(space.names(genotype))
    for graph in graphs.values():
        assert [(source, target) for source, target, _ in graph.edges] == [(k, k + 1) for k in range(len(graph.edges))]
        assert (graph.nodes[0], graph.nodes[-1], len(graph.nodes)) == ("input", "output", len(graph.edges) + 1)
