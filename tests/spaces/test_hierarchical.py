"""The hierarchical space: sizes, the trivial genotype, mutations, and motifs that are the same."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.evolved import HierarchicalCell
from lightning_nas.query import Result
from lightning_nas.query.searchers.hierarchical import HierarchicalEvolution
from lightning_nas.spaces import CellPlace
from lightning_nas.spaces.hierarchical import HIERARCHICAL_OPS, HierarchicalSpace

SPACE = HierarchicalSpace()
THREE = HierarchicalSpace((2, 2, 1), (3, 3, 3))


def test_the_published_levels() -> None:
    assert [len(rows) for rows in SPACE.decisions.values()] == [6] * 6 + [10]
    assert {len(row.choices) for rows in SPACE.decisions.values() for row in rows} == {7}
    assert SPACE.root == "level3/0"
    assert THREE.name == "hierarchical_2x3_2x3_1x3"
    assert THREE.decisions["level4/0"][0].choices == ("none", "m0", "m1")


def test_the_trivial_genotype_is_a_chain_of_identities() -> None:
    chain = SPACE.identity_chain()
    for group in SPACE.decisions:
        below = "m0" if group == SPACE.root else "identity"
        assert all(op == (below if j == i + 1 else "none") for i, j, op in SPACE.motif(chain, group))
    assert SPACE.diversified(random.Random(0), 0) == chain


def test_diversified_genotypes_are_as_random_as_any() -> None:
    rng, counts = random.Random(0), Counter[str]()
    for _ in range(30):
        genotype = SPACE.diversified(rng)
        counts.update(op for _, _, op in SPACE.motif(genotype, "level2/3"))
    assert set(counts) == set(HIERARCHICAL_OPS)
    assert all(count / 180 == pytest.approx(1 / 7, abs=0.09) for count in counts.values())


def test_a_mutation_draws_level_motif_target_and_source() -> None:
    rng, count = random.Random(1), 2500
    genotype, changed = SPACE.sample(rng), Counter[str]()
    for _ in range(count):
        child = SPACE.mutate(genotype, rng)
        (name,) = [name for name in genotype.picks if child.picks[name] != genotype.picks[name]]
        changed[name] += 1
    for name in genotype.picks:
        group, edge = name.rsplit("/", 1)
        target = int(edge.split("<-")[0])
        motif = 1 / 2 if group == SPACE.root else 1 / 12
        nodes = 4 if group == SPACE.root else 3
        assert changed[name] / count == pytest.approx(motif / nodes / target, abs=0.02), name


@pytest.mark.parametrize("space", [SPACE, THREE], ids=["published", "three levels"])
def test_genotypes_survive_every_text(space: HierarchicalSpace) -> None:
    rng = random.Random(0)
    for _ in range(10):
        genotype = space.sample(rng)
        assert space.parse(space.format(genotype)) == space.parse(space.to_json(genotype)) == genotype
        assert space.mutate(genotype, rng) in set(space.neighbors(genotype))


def expanded(space: HierarchicalSpace, genotype: object, group: str) -> object:
    """A motif with the motifs below in the place of their names."""
    level = int(group[5]) - 1
    return tuple(
        (i, j, expanded(space, genotype, f"level{level}/{op[1:]}") if level > 1 and op != "none" else op)
        for i, j, op in space.motif(genotype, group)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("space", [SPACE, THREE], ids=["published", "three levels"])
def test_canonical_keeps_what_the_cell_is_and_forgets_how_motifs_are_called(space: HierarchicalSpace) -> None:
    rng = random.Random(3)
    for _ in range(30):
        genotype = space.diversified(rng, 12)
        least = space.canonical(genotype)
        assert expanded(space, least, space.root) == expanded(space, genotype, space.root)
        assert space.canonical(least) == least


def test_renamed_and_unused_motifs_make_no_difference() -> None:
    rng = random.Random(4)
    for _ in range(20):
        genotype = SPACE.sample(rng)
        order = rng.sample(range(6), 6)
        picks = {}
        for name, (choice,) in genotype.picks.items():
            level, motif, edge = name.split("/")
            if level == "level2":
                picks[f"level2/{order[int(motif)]}/{edge}"] = (choice,)
            else:
                picks[name] = ((1 + order[choice - 1]) if choice else 0,)
        renamed = type(genotype)(SPACE.name, picks)
        assert SPACE.canonical(renamed) == SPACE.canonical(genotype)
    chain = SPACE.identity_chain()
    other = type(chain)(SPACE.name, {**chain.picks, "level2/5/1<-0": (4,)})
    assert SPACE.canonical(other) == SPACE.canonical(chain)
    assert set(SPACE.graphs(other)) == {"level2/0", "level3/0"}


def test_wrong_sizes_and_texts_are_refused() -> None:
    for motifs, nodes in (((), ()), ((6, 2), (4, 5)), ((6, 1), (4,)), ((0, 1), (4, 5)), ((6, 1), (1, 5))):
        with pytest.raises(ValueError, match="last level exactly one"):
            HierarchicalSpace(motifs, nodes)
    for text in ("", "{}", '{"space": "hierarchical", "motifs": {}}', '{"space": "darts", "motifs": {}}'):
        with pytest.raises(ValueError):
            SPACE.parse(text)
    with pytest.raises(ValueError, match="conv_9x9"):
        SPACE.parse(SPACE.format(SPACE.identity_chain()).replace("identity none identity", "conv_9x9 none identity", 1))


def test_a_cell_computes_its_motifs() -> None:
    space = HierarchicalSpace((2, 1), (3, 3))
    chain = space.identity_chain()
    # m0: identity, then identity with a 1x1 convolution beside both; cell: m0, then m0, with nothing beside
    picks = {**chain.picks, "level2/0/2<-0": (2,)}
    genotype = type(chain)(space.name, picks)
    cell, x = HierarchicalCell(space, genotype, CellPlace("cell", 0, (4,), 4)).eval(), torch.randn(2, 4, 6, 6)
    out = x
    for edge in ("1<-0", "2<-1"):
        motif = cell.motif.edges[edge]
        beside = motif.edges["2<-0"](out)  # type: ignore[index, operator, union-attr]
        out = motif.merges["2"](torch.cat([beside, out], dim=1))  # type: ignore[index, operator, union-attr]
    torch.testing.assert_close(cell((x,)), out)
    cut = type(chain)(space.name, {**chain.picks, "level3/0/2<-1": (0,)})
    assert not HierarchicalCell(space, cut, CellPlace("cell", 0, (4,), 4))((x,)).any()


def test_networks_of_renamed_motifs_are_the_same() -> None:
    rng = random.Random(5)
    for _ in range(3):
        genotype = SPACE.diversified(rng, 60)
        outs = []
        for same in (genotype, SPACE.canonical(genotype)):
            torch.manual_seed(0)
            outs.append(DerivedNetwork(same, space=SPACE, channels=4, num_classes=5)(torch.ones(2, 3, 8, 8)))
        assert outs[0].shape == (2, 5)
        assert torch.equal(outs[0], outs[1])


def test_the_evolution_grows_from_diversified_chains() -> None:
    searcher = HierarchicalEvolution(population=20, mutations=50, seed=0)
    first = searcher.ask(20)
    assert len({trial.genotype for trial in first}) == 20
    searcher.tell([Result(trial, float(trial.number)) for trial in first])
    for number in range(20, 60):
        (trial,) = searcher.ask()
        assert trial.note["parent"] < number
        searcher.tell([Result(trial, 0.0)])
    assert len(searcher.population) == 60
    with pytest.raises(ValueError, match="HierarchicalSpace"):
        HierarchicalEvolution("nasbench201")
