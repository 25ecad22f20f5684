"""Reading a genotype off scores: the best operation of each edge, then the best edges into each node."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.spaces import DARTSSpace, NASBench201Space


def scores_of(space: DARTSSpace | NASBench201Space, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(space.decisions[space.kinds[0]]), len(space.decisions[space.kinds[0]][0].choices))
    return {kind: torch.softmax(torch.randn(shape, generator=generator), dim=1) for kind in space.kinds}


def brute_force(space: DARTSSpace, scores: dict[str, Tensor]) -> Genotype:
    """Try every pair of inputs and every operation but `none`; the sum of the scores is largest for the right ones."""
    cells = {}
    for kind in space.kinds:
        table, pairs, row = scores[kind].tolist(), [], 0
        for node in range(2, 6):
            options = [
                (table[row + source][k], k, source) for source in range(node) for k in range(1, 8)
            ]  # operation 0 is none
            best = max(
                ((a, b) for a in options for b in options if a[2] < b[2]), key=lambda pair: pair[0][0] + pair[1][0]
            )
            pairs += [(space.decisions[kind][0].choices[k], source) for _, k, source in best]
            row += node
        cells[kind] = pairs
    return space.parse(f"Genotype(normal={cells['normal']}, reduce={cells['reduce']})")


@pytest.mark.parametrize("seed", range(20))
def test_random_scores_against_brute_force(seed: int) -> None:
    space = DARTSSpace()
    scores = scores_of(space, seed)
    assert space.discretize(scores) == brute_force(space, scores)


@pytest.mark.parametrize("seed", range(10))
def test_a_planted_genotype_is_found_and_none_never_chosen(seed: int) -> None:
    space = DARTSSpace()
    planted = space.sample(random.Random(seed))
    scores = {kind: 0.1 * rows for kind, rows in scores_of(space, seed).items()}
    for kind in space.kinds:
        scores[kind][:, 0] = 10.0  # `none` outscores everything everywhere
        for row, choice in space.kept_rows(planted, kind).items():
            scores[kind][row, choice] = 1.0
    assert space.discretize(scores) == planted
    assert "'none'" not in space.format(space.discretize(scores))


def test_the_vertex_of_a_genotype_discretizes_to_it() -> None:
    for space in (DARTSSpace(), NASBench201Space()):
        for seed in range(10):
            genotype = space.sample(random.Random(seed))
            assert space.discretize(space.vertex(genotype).weights) == genotype


@pytest.mark.parametrize("seed", range(10))
def test_nasbench201_takes_the_best_operation_of_each_edge_none_included(seed: int) -> None:
    space = NASBench201Space()
    scores = scores_of(space, seed)
    expected = {row: values.index(max(values)) for row, values in enumerate(scores["cell"].tolist())}
    assert space.kept_rows(space.discretize(scores), "cell") == expected
    without = space.discretize(scores, exclude=("none",))
    assert "none" not in space.format(without)


def test_closed_choices_are_not_chosen() -> None:
    space = DARTSSpace()
    scores = scores_of(space, 3)
    genotype = space.discretize(scores)
    rows = space.kept_rows(genotype, "normal")
    row, choice = next(iter(rows.items()))
    scores["normal"][row, choice] = -torch.inf
    assert space.kept_rows(space.discretize(scores), "normal").get(row) != choice


def test_scores_of_inputs_scale_the_edges() -> None:
    """An edge counts with its best operation times its own score, and not at all where its own is closed."""
    space = DARTSSpace()
    scores = {kind: torch.full((14, 8), 0.1) for kind in space.kinds}
    inputs = torch.full((4, 5), 0.1)
    inputs[3] = torch.tensor([0.1, 0.5, 0.2, 0.4, 0.3])  # of node 5
    scores |= {"normal/inputs": inputs}
    assert space.discretize(scores).picks["normal/inputs/5"] == (1, 3)
    scores["normal"][13, 4] = 1.0  # the operation of 5<-4 makes up for its weak edge
    assert space.discretize(scores).picks["normal/inputs/5"] == (1, 4)
    inputs[3, 4] = -torch.inf
    assert space.discretize(scores).picks["normal/inputs/5"] == (1, 3)


def test_ties_go_to_the_first() -> None:
    genotype = DARTSSpace().discretize({kind: torch.ones(14, 8) for kind in ("normal", "reduce")})
    assert all(genotype.picks[f"normal/inputs/{node}"] == (0, 1) for node in range(2, 6))
    assert genotype.picks["normal/5<-1"] == (1,)
