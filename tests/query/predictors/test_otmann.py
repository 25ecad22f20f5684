"""OTMANN against a linear programme, and what a distance must be."""

import math
import random
from typing import Any

import pytest
import torch
from scipy.optimize import linprog

from lightning_nas.query.encoders.base import Graphs
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.otmann import OTMANN, label_costs, path_lengths

VOCABULARY = ("input", "output", "conv_1x1", "conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3")


def random_graphs(n: int = 10, inner: int = 5, seed: int = 0) -> Graphs:
    """Acyclic graphs of an input, an output, and 1 to `inner` operations on ways between them."""
    rng = torch.Generator().manual_seed(seed)
    v = inner + 2
    labels = torch.full((n, v), -1)
    adjacency = torch.zeros(n, v, v)
    for row in range(n):
        last = int(torch.randint(1, inner + 1, (), generator=rng)) + 1
        labels[row, 1:last] = torch.randint(2, len(VOCABULARY), (last - 1,), generator=rng)
        labels[row, 0], labels[row, last] = 0, 1
        edges = (torch.rand(last + 1, last + 1, generator=rng) < 0.4).float().triu(1)
        for k in range(1, last + 1):
            edges[int(torch.randint(k, (), generator=rng)), k] = 1
            edges[k - 1, int(torch.randint(k, last + 1, (), generator=rng))] = 1
        adjacency[row, : last + 1, : last + 1] = edges
    return Graphs(adjacency, labels, len(VOCABULARY))


def permuted(batch: Graphs, seed: int = 0) -> Graphs:
    rng = torch.Generator().manual_seed(seed)
    order = [torch.randperm(batch.labels.shape[1], generator=rng) for _ in range(len(batch))]
    adjacency = torch.stack([a[o][:, o] for a, o in zip(batch.adjacency, order, strict=True)])
    return Graphs(adjacency, torch.stack([x[o] for x, o in zip(batch.labels, order, strict=True)]), batch.kinds)


def all_paths(
    adjacency: list[list[float]], labels: list[int], start: int, group: torch.Tensor, forward: bool
) -> list[tuple[int, float]]:
    """Lengths of all ways from a vertex to the ends of the graph, each with its probability in a random walk."""
    next_ = [u for u in range(len(labels)) if (adjacency[start][u] if forward else adjacency[u][start])]
    if not next_:
        return [(0, 1.0)]
    here = int(group[labels[start]])
    return [
        (length + here, p / len(next_)) for u in next_ for length, p in all_paths(adjacency, labels, u, group, forward)
    ]


def lengths_by_enumeration(adjacency: list[list[float]], labels: list[int], groups: torch.Tensor) -> torch.Tensor:
    rows = []
    for vertex in range(len(labels)):
        row = []
        for forward in (False, True):
            paths = [all_paths(adjacency, labels, vertex, group, forward) for group in groups.tolist()]
            row += [min(length for length, _ in path) for path in paths]
            row += [max(length for length, _ in path) for path in paths]
            row += [sum(length * p for length, p in path) for path in paths]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def test_path_lengths_are_those_of_all_paths() -> None:
    batch = permuted(random_graphs())
    groups = OTMANN(VOCABULARY).groups
    got = path_lengths(batch, groups)
    for row in range(len(batch)):
        there = batch.mask()[row]
        adjacency, labels = batch.adjacency[row][there][:, there].tolist(), batch.labels[row][there].tolist()
        torch.testing.assert_close(got[row][there], lengths_by_enumeration(adjacency, labels, groups))


def programme(costs: torch.Tensor, supply: list[int], demand: list[int]) -> float:
    """The least cost of transport with places for what is not carried, by a linear programme."""
    n, m = costs.shape
    full = torch.zeros(n + 1, m + 1, dtype=torch.float64)
    full[:n, :m] = costs.clamp_max(1e6)
    full[:n, m], full[n, :m] = 1.0, 1.0
    supplies = [*supply, sum(demand)]
    demands = [*demand, sum(supply)]
    rows = [[float(k // (m + 1) == i) for k in range(full.numel())] for i in range(n + 1)]
    columns = [[float(k % (m + 1) == j) for k in range(full.numel())] for j in range(m + 1)]
    return linprog(full.flatten().numpy(), A_eq=rows + columns, b_eq=supplies + demands, method="highs").fun


@pytest.mark.parametrize("masses", [None, {"conv_3x3": 3, "max_pool_3x3": 2, "output": 2}])
def test_distance_is_the_optimum_of_the_linear_programme(masses: dict[str, int] | None) -> None:
    a, b = random_graphs(4), random_graphs(4, inner=4, seed=1)
    otmann = OTMANN(VOCABULARY, structure=(0.25, 1.5), mismatch=0.8, masses=masses)
    got = otmann.distance(a, b)
    labels, groups = 0.8 * label_costs(VOCABULARY), otmann.groups
    mass = [(masses or {}).get(label, 1) for label in VOCABULARY]
    far = [path_lengths(batch, groups) for batch in (a, b)]
    for i in range(4):
        for j in range(4):
            here, there = a.labels[i][a.mask()[i]], b.labels[j][b.mask()[j]]
            apart = (far[0][i][a.mask()[i]][:, None] - far[1][j][b.mask()[j]][None]).abs().mean(dim=-1) / 2
            for s, weight in enumerate((0.25, 1.5)):
                costs = labels[here][:, there] + weight * apart
                expected = programme(costs, [mass[k] for k in here.tolist()], [mass[k] for k in there.tolist()])
                assert got[s, i, j].item() == pytest.approx(expected, abs=1e-7)


def test_a_graph_is_at_distance_zero_from_itself_in_any_order() -> None:
    a = random_graphs(12)
    assert OTMANN(VOCABULARY).distance(a, a).diagonal(dim1=1, dim2=2).abs().max() == 0
    otmann = OTMANN(VOCABULARY)
    torch.testing.assert_close(otmann.distance(a, permuted(a)), otmann.distance(a, a))
    across = OTMANN(VOCABULARY).distance(permuted(a), permuted(a, seed=1))
    torch.testing.assert_close(across, otmann.distance(a, a))
    assert across.max() > 1


def test_distance_is_symmetric() -> None:
    a, b = random_graphs(6), random_graphs(7, seed=3)
    torch.testing.assert_close(
        OTMANN(VOCABULARY).distance(a, b), OTMANN(VOCABULARY).distance(b, a).transpose(1, 2), rtol=0, atol=1e-12
    )


def test_a_vertex_that_touches_nothing_costs_its_mass() -> None:
    a = random_graphs(8)
    for label, mass in (("max_pool_3x3", 1), ("conv_3x3", 4)):
        room = a.padded(a.labels.shape[1] + 1)
        more = Graphs(room.adjacency, room.labels.clone(), room.kinds)
        more.labels[:, -1] = VOCABULARY.index(label)
        added = OTMANN(VOCABULARY, masses={label: mass}).distance(more, a).diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(added, torch.full_like(added, float(mass)))


def test_distances_that_are_kept_are_those_computed_anew() -> None:
    a, b, c = random_graphs(6), random_graphs(7, seed=3), random_graphs(8, seed=5)
    kept = OTMANN(VOCABULARY)
    first = kept.distance(a, b)
    kept.distance(c, a)
    assert torch.equal(kept.distance(c, b), OTMANN(VOCABULARY).distance(c, b))
    assert torch.equal(kept.distance(a, b), first)
    solved = []
    kept._solve = lambda pairs: solved.extend(pairs)
    kept.distance(permuted(a), b)
    assert not solved


def test_no_distance_exceeds_all_mass() -> None:
    a = random_graphs(10)
    size = a.mask().sum(dim=1)
    distance = OTMANN(VOCABULARY).distance(a, a)
    assert (distance <= size[:, None] + size + 1e-12).all()
    assert (distance >= (size[:, None] - size).abs() - 1e-12).all()


def test_correlation_is_the_product_of_exponentials() -> None:
    a = random_graphs(5)
    otmann = OTMANN(VOCABULARY, structure=(0.1, 1.5))
    compared = otmann.compare(a, a)
    parameters = torch.tensor([[0.1, 0.2, 3.0, 4.0]], dtype=torch.float64)
    distance, size = otmann.distance(a, a), a.mask().sum(dim=1).double()
    expected = torch.ones(5, 5, dtype=torch.float64)
    for s in range(2):
        normal = distance[s] / (size[:, None] + size)
        expected *= torch.exp(-parameters[0, s] * distance[s]) * torch.exp(-parameters[0, 2 + s] * normal**2)
    torch.testing.assert_close(otmann.matrix(compared, parameters)[0], expected)
    start = otmann.matrix(compared, otmann.start(compared)[None])[0]
    assert start.log().mean().item() == pytest.approx(-1, rel=1e-6)


def test_a_process_learns_what_matters_from_distances() -> None:
    encoder = GraphEncoder("nasbench201", prune=True)
    every = [encoder.space.sample(random.Random(k)) for k in range(60)]
    graphs = encoder(every)
    conv = encoder.vocabulary.index("nor_conv_3x3")
    y = (graphs.labels == conv).sum(dim=1).double()
    process = GaussianProcess(OTMANN(encoder.vocabulary), steps=15).fit(encoder(every[:40]), y[:40])
    error = (process.predict(encoder(every[40:])).mean - y[40:]).square().mean()
    assert error < 0.35 * y[40:].var()


def test_label_costs() -> None:
    costs = label_costs(VOCABULARY)
    assert costs[2, 3].item() == pytest.approx(math.sqrt(2) * math.sqrt(2) / 10)
    assert costs[2, 4].item() == pytest.approx(math.sqrt(4) * math.sqrt(2) / 10 + 0.2)
    assert costs[5, 6] == 0.5
    assert math.isinf(costs[0, 1])
    assert math.isinf(costs[3, 5])
    assert torch.equal(costs, costs.T)
    assert (costs.diag() == 0).all()


@pytest.mark.parametrize(
    "arguments",
    [{"structure": ()}, {"structure": (0.0,)}, {"mismatch": 0.0}, {"masses": {"input": 0.5}}, {"masses": {"lstm": 1}}],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give"):
        OTMANN(VOCABULARY, **arguments)


def test_graphs_of_another_vocabulary() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        OTMANN(VOCABULARY[:-1]).distance(random_graphs(2), random_graphs(2))
