"""The two spaces of TransNAS-Bench-101: 4,096 cells and 3,256 skeletons."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from lightning_nas.arch import Genotype
from lightning_nas.spaces.transnas import TRANSNAS_OPS, TransNASMacroSpace, TransNASMicroSpace
from lightning_nas.supernet import build_supernet

MICRO, MACRO = TransNASMicroSpace(), TransNASMacroSpace()


def test_all_4096_cells_come_back() -> None:
    texts = [f"64-41414-{a}_{b}{c}_{d}{e}{f}" for a, b, c, d, e, f in product("0123", repeat=6)]
    genotypes = [MICRO.parse(text) for text in texts]
    assert len(set(genotypes)) == 4**6 == 4096
    assert [MICRO.format(genotype) for genotype in genotypes] == texts
    assert [MICRO.index(genotype) for genotype in genotypes] == list(range(4096))


def test_the_digit_at_a_place_is_the_operation_from_that_node() -> None:
    genotype = MICRO.parse("64-41414-1_02_321")
    ops = {row.name: row.choices[genotype.picks[row.name][0]] for row in MICRO.decisions["cell"]}
    assert ops == {
        "cell/1<-0": "skip_connect",
        "cell/2<-0": "none",
        "cell/2<-1": "nor_conv_1x1",
        "cell/3<-0": "nor_conv_3x3",
        "cell/3<-1": "nor_conv_1x1",
        "cell/3<-2": "skip_connect",
    }
    assert MICRO.parse(MICRO.to_json(genotype)) == genotype


def reached(space: TransNASMacroSpace, picks: dict[str, tuple[int, ...]]) -> list[Genotype]:
    """All genotypes, decision by decision."""
    for name in space.order:
        if name not in picks and (allowed := space.allowed(name, picks)):
            return [genotype for k in allowed for genotype in reached(space, {**picks, name: (k,)})]
    return [Genotype(space.name, picks)]


def test_the_rule_of_the_skeletons_gives_all_3256() -> None:
    texts = set()
    for depth in (4, 5, 6):
        for types in product("1234", repeat=depth):
            halved, doubled = sum(t in "34" for t in types), sum(t in "24" for t in types)
            if 1 <= halved <= 4 and 1 <= doubled <= 3:
                texts.add(f"64-{''.join(types)}-basic")
    assert len(texts) == 3256
    assert {MACRO.format(genotype) for genotype in MACRO.members()} == texts
    decided = reached(MACRO, {})
    assert len(decided) == 3256
    assert set(decided) == set(MACRO.members())
    assert all(MACRO.parse(MACRO.format(genotype)) == genotype == MACRO.check(genotype) for genotype in decided)


def test_skeletons_are_drawn_alike_and_have_valid_neighbors() -> None:
    rng = random.Random(0)
    drawn = [MACRO.sample(rng) for _ in range(2000)]
    depths = [sum(len(MACRO.modules(g)) == depth for g in drawn) / len(drawn) for depth in (4, 5, 6)]
    every = [len(MACRO.modules(g)) for g in MACRO.members()]
    assert depths == pytest.approx([every.count(depth) / 3256 for depth in (4, 5, 6)], abs=0.03)
    for genotype in drawn[:50]:
        neighbors = list(MACRO.neighbors(genotype))
        assert genotype not in neighbors
        assert all(MACRO.check(other) == other for other in (*neighbors, MACRO.mutate(genotype, rng)))
    assert "64-12341-basic" in {MACRO.format(other) for other in MACRO.neighbors(MACRO.parse("64-1234-basic"))}
    assert MACRO.discretize(MACRO.vertex(drawn[0]).weights) == drawn[0]
    assert MACRO.parse(MACRO.to_json(drawn[0])) == drawn[0]


@pytest.mark.parametrize(
    "text", ["64-41414-1_02_33", "64-41414-1_02_334", "32-41414-1_02_333", "64-1234-basic", "1_02_333", ""]
)
def test_other_texts_are_no_cells(text: str) -> None:
    with pytest.raises(ValueError, match="not a cell of TransNAS-Bench-101"):
        MICRO.parse(text)


@pytest.mark.parametrize(
    "modules", ["111", "1234123", "1111", "1222", "1333", "2222344", "333334", "222213", "123x", "44441"]
)
def test_other_skeletons_are_refused(modules: str) -> None:
    with pytest.raises(ValueError, match="not a skeleton of TransNAS-Bench-101"):
        MACRO.parse(f"64-{modules}-basic")


def test_cells_of_one_network_have_one_representative() -> None:
    def canonical(cell: str) -> str:
        return MICRO.format(MICRO.canonical(MICRO.parse(f"64-41414-{cell}"))).removeprefix("64-41414-")

    assert canonical("0_00_123") == canonical("0_20_100") == "0_00_100"  # what no input reaches is nothing
    assert canonical("2_01_001") == canonical("2_00_010") == "0_00_200"  # a node that is passed on
    assert canonical("1_02_002") != canonical("0_20_002")  # a skip from the input is an operation of its own
    assert canonical("1_02_333") == canonical(canonical("1_02_333"))


def test_the_cells_have_a_supernet_and_the_skeletons_none() -> None:
    supernet = build_supernet(MICRO, channels=4, cells=1)
    assert supernet(torch.zeros(2, 3, 8, 8), MICRO.vertex(MICRO.parse("64-41414-1_02_333"))).shape == (2, 10)
    assert len(TRANSNAS_OPS) == 4
    with pytest.raises(ValueError, match="'transnas_macro' is no cell space"):
        build_supernet(MACRO)
    graph = MACRO.graphs(MACRO.parse("64-1234-basic"))["network"]
    assert graph.edges[3] == (3, 4, "channels x2, resolution /2")
    assert graph.nodes == ("input", "1", "2", "3", "output")
