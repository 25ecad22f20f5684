"""Weisfeiler-Lehman features against a plain dictionary."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch

from lightning_nas.query.encoders import GraphEncoder
from lightning_nas.query.encoders.base import Encoded, Graphs, select
from lightning_nas.query.encoders.weisfeiler_lehman import Direction, WLEncoder, subtree_features
from lightning_nas.query.predictors.weisfeiler_lehman import WeisfeilerLehman
from lightning_nas.spaces import get_space
from lightning_nas.spaces.restricted import RestrictedSpace


def random_graphs(n: int = 12, v: int = 6, kinds: int = 3, seed: int = 0) -> Graphs:
    """Acyclic graphs of 2 to v vertices."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(kinds, (n, v), generator=rng)
    sizes = torch.randint(2, v + 1, (n, 1), generator=rng)
    there = torch.arange(v) < sizes
    adjacency = (torch.rand(n, v, v, generator=rng) < 0.5).float().triu(1) * there[:, :, None] * there[:, None, :]
    return Graphs(adjacency, torch.where(there, labels, -1), kinds)


def permuted(batch: Graphs, seed: int = 0) -> Graphs:
    """The same graphs, the vertices of each in another order, padding included."""
    rng = torch.Generator().manual_seed(seed)
    order = [torch.randperm(batch.labels.shape[1], generator=rng) for _ in range(len(batch))]
    adjacency = torch.stack([a[o][:, o] for a, o in zip(batch.adjacency, order, strict=True)])
    return Graphs(adjacency, torch.stack([x[o] for x, o in zip(batch.labels, order, strict=True)]), batch.kinds)


def counted(batch: Graphs, height: int, direction: Direction) -> list[list[Counter[Any]]]:
    """Counters of nested tuples, one for each graph and refinement."""
    counters = []
    for adjacency, labels in zip(batch.adjacency.tolist(), batch.labels.tolist(), strict=True):
        vertices = [v for v, label in enumerate(labels) if label >= 0]
        now = {v: labels[v] for v in vertices}
        mine = [Counter(now.values())]
        for _ in range(height):
            into = {v: tuple(sorted(str(now[u]) for u in vertices if adjacency[u][v])) for v in vertices}
            out = {v: tuple(sorted(str(now[u]) for u in vertices if adjacency[v][u])) for v in vertices}
            around = {"in": (into,), "out": (out,), "both": (into, out)}[direction]
            now = {v: (now[v], *(side[v] for side in around)) for v in vertices}
            mine.append(Counter(now.values()))
        counters.append(mine)
    return counters


def product(a: list[Counter[Any]], b: list[Counter[Any]], height: int) -> int:
    return sum(a[t][label] * b[t][label] for t in range(height + 1) for label in a[t])


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_kernel_is_that_of_a_dictionary_of_subtrees(direction: Direction) -> None:
    a, b = random_graphs(8), random_graphs(5, v=7, seed=1)
    kernel = WeisfeilerLehman((0, 1, 2, 3), direction)
    got = kernel.matrix(kernel.compare(a, b), torch.zeros(4, 0))
    one, other = counted(a, 3, direction), counted(b, 3, direction)
    expected = [
        [[product(i, j, h) / (product(i, i, h) * product(j, j, h)) ** 0.5 for j in other] for i in one]
        for h in range(4)
    ]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_directions_differ() -> None:
    a = random_graphs(8)
    every = [WeisfeilerLehman((2,), direction).compare(a, a)[0] for direction in ("in", "out", "both")]
    assert all(not torch.allclose(x, y) for x, y in pairwise(every))


def test_height_zero_is_the_product_of_normalised_histograms() -> None:
    a = random_graphs()
    histogram = a.one_hot().sum(dim=1).double()
    unit = histogram / histogram.norm(dim=1, keepdim=True)
    torch.testing.assert_close(WeisfeilerLehman((0,)).compare(a, a)[0][0], unit @ unit.T)


def test_isomorphic_graphs_have_correlation_one_and_others_less() -> None:
    a = random_graphs(20)
    across = WeisfeilerLehman((1, 2, 3)).compare(a, permuted(a))[0]
    torch.testing.assert_close(across.diagonal(dim1=1, dim2=2), torch.ones(3, 20, dtype=torch.float64))
    torch.testing.assert_close(across, WeisfeilerLehman((1, 2, 3)).compare(a, a)[0])
    turned = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]), torch.tensor([[0, 1]] * 2), 2)
    assert WeisfeilerLehman((1,)).compare(turned, turned)[0][0, 0, 1] < 1  # the edge the other way round


def test_positive_semi_definite_with_unit_diagonal() -> None:
    a = random_graphs(40)
    for matrix in WeisfeilerLehman((0, 1, 2, 3)).compare(a, a)[0]:
        torch.testing.assert_close(matrix.diag(), torch.ones(40, dtype=torch.float64))
        assert torch.linalg.eigvalsh(matrix)[0] > -1e-12


def test_what_else_is_in_the_batch_does_not_matter() -> None:
    known, new = random_graphs(6), random_graphs(9, seed=4)
    kernel = WeisfeilerLehman()
    together = kernel.compare(new, known)[0]
    alone = torch.cat([kernel.compare(select(new, slice(k, k + 1)), known)[0] for k in range(9)], dim=1)
    assert torch.equal(together, alone)


def test_labels_no_known_graph_has_count_in_the_norm() -> None:
    known = Graphs(torch.zeros(1, 2, 2), torch.tensor([[0, 0]]), 3)
    new = Graphs(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]), 3)
    assert WeisfeilerLehman((0,)).compare(new, known)[0].item() == pytest.approx(2 / (2 * 3**0.5))


def test_features_count_all_vertices() -> None:
    a = random_graphs()
    for histogram in subtree_features(a, 3):
        assert torch.equal(histogram.sum(dim=1), a.mask().sum(dim=1).double())


@pytest.mark.parametrize("arguments", [{"heights": ()}, {"heights": (-1,)}, {"direction": "up"}])
def test_wrong_kernels(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="heights"):
        WeisfeilerLehman(**arguments)


def part(number: int, seed: int = 0) -> RestrictedSpace:
    base, rng = get_space("nasbench201"), random.Random(seed)
    return RestrictedSpace(base, [base.sample(rng) for _ in range(number)])


def features(encoder: WLEncoder, encoded: Encoded) -> torch.Tensor:
    assert isinstance(encoded, torch.Tensor)
    assert encoded.dtype == torch.float32
    assert encoded.shape[1] > len(encoder.graphs.vocabulary)
    return encoded


@pytest.mark.parametrize("direction", ["in", "out", "both"])
@pytest.mark.parametrize("prune", [False, True])
def test_product_of_an_encoders_features_is_the_kernel_not_normalised(direction: Direction, prune: bool) -> None:
    space = part(60)  # a small space, so all labels are known
    encoder = WLEncoder(space, 3, direction, prune)
    x = features(encoder, encoder(space.members[::-1])).double()
    graphs = GraphEncoder(space, prune).encode(space.members[::-1])
    expected = sum(histogram @ histogram.T for histogram in subtree_features(graphs, 3, direction))
    torch.testing.assert_close(x @ x.T, expected)
    norm = x.norm(dim=1)
    correlation = WeisfeilerLehman((3,), direction).compare(graphs, graphs)[0][0]
    torch.testing.assert_close(x @ x.T / (norm[:, None] * norm), correlation)


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_labels_that_an_encoder_does_not_know_are_left_out(direction: Direction) -> None:
    known, new = part(5), part(40, seed=1).members
    encoder = WLEncoder(known, 2, direction, prune=False)
    x = features(encoder, encoder(new)).double()
    y = features(encoder, encoder(known.members)).double()
    graphs = GraphEncoder(known).encode([*known.members, *new])
    every = [torch.cat([h[:5], h[5:] * (h[:5].sum(dim=0) > 0)]) for h in subtree_features(graphs, 2, direction)]
    torch.testing.assert_close(x @ y.T, sum(h[5:] @ h[:5].T for h in every))
    torch.testing.assert_close(x.sum(dim=1) - x[:, :7].sum(dim=1), sum(h[5:].sum(dim=1) for h in every[1:]))
    assert x.sum() < 3 * GraphEncoder(known).encode(new).mask().sum()  # there are such labels


@pytest.mark.parametrize(("space", "whole"), [("small_sep", True), ("nasbench201", False)])
def test_an_encoder_knows_all_labels_of_a_small_space_and_those_of_a_sample_of_a_large_one(
    space: str, whole: bool
) -> None:
    encoder, rng = WLEncoder(space, number=60, prune=False), random.Random(7)
    genotypes = [encoder.space.sample(rng) for _ in range(300)]
    counts = features(encoder, encoder(genotypes)).sum(dim=1)
    vertices = GraphEncoder(space).encode(genotypes).mask().sum(dim=1)
    assert bool((counts == 3 * vertices).all()) == whole
    again = WLEncoder(space, number=60, prune=False)
    assert torch.equal(features(again, again(genotypes[:3])), features(encoder, encoder(genotypes[:3])))


@pytest.mark.parametrize("arguments", [{"depth": -1}, {"number": 0}, {"direction": "up"}])
def test_wrong_encoders(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give a depth"):
        WLEncoder("nasbench201", **arguments)
