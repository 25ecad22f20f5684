"""The size space of NATS-Bench."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from lightning_nas.derived import DerivedNetwork
from lightning_nas.spaces.nats_size import NATS_WIDTHS, NATSSizeSpace
from lightning_nas.supernet import build_supernet

SPACE = NATSSizeSpace()


def test_all_32768_texts_come_back() -> None:
    texts = [":".join(map(str, widths)) for widths in product(NATS_WIDTHS, repeat=5)]
    genotypes = [SPACE.parse(text) for text in texts]
    assert len(set(genotypes)) == 8**5 == 32_768
    assert [SPACE.format(genotype) for genotype in genotypes] == texts


def test_neighbors_mutation_and_json() -> None:
    rng = random.Random(0)
    genotype = SPACE.sample(rng)
    neighbors = list(SPACE.neighbors(genotype))
    assert len(neighbors) == len(set(neighbors)) == 5 * 7
    for other in (*neighbors, SPACE.mutate(genotype, rng)):
        assert sum(a != b for a, b in zip(SPACE.widths(genotype), SPACE.widths(other), strict=True)) == 1
    assert SPACE.parse(SPACE.to_json(genotype)) == genotype
    assert SPACE.canonical(genotype) == genotype
    assert SPACE.from_widths(SPACE.widths(genotype)) == genotype


def test_reading_off_scores_and_vertices() -> None:
    genotype = SPACE.parse("8:16:64:8:32")
    assert SPACE.discretize(SPACE.vertex(genotype).weights) == genotype
    scores = torch.zeros(5, 8)
    scores[:, 3] = 1.0
    assert SPACE.format(SPACE.discretize({"width": scores})) == "32:32:32:32:32"


def test_the_graph_is_a_chain() -> None:
    graph = SPACE.graphs(SPACE.parse("8:16:64:8:32"))["network"]
    assert graph.edges == ((0, 1, "8"), (1, 2, "16"), (2, 3, "64"), (3, 4, "8"), (4, 5, "32"))
    assert len(graph.nodes) == 6


@pytest.mark.parametrize("text", ["8:8:8:8", "8:8:8:8:8:8", "8:8:8:8:9", "8:8:8:8: 8", "8:8:8:8:08", "", "|none~0|"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not five widths"):
        SPACE.parse(text)


@pytest.mark.parametrize("widths", [(8, 8, 8, 8), (8, 8, 8, 8, 12), (8,) * 6])
def test_other_widths_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not the widths of five layers"):
        SPACE.from_widths(widths)


def test_no_network_is_built() -> None:
    with pytest.raises(ValueError, match="'nats_size' is no cell space"):
        build_supernet(SPACE)
    with pytest.raises(ValueError, match="'nats_size' is no cell space"):
        DerivedNetwork(SPACE.parse("8:8:8:8:8"), space=SPACE)
