"""Networks on graphs: explicit loops, the order of vertices, the direction of edges, padding."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.query.encoders import GraphEncoder, Graphs
from lightning_nas.query.predictors.gates import GATES, GateNetwork
from lightning_nas.query.predictors.gcn import GIN, DirectedGCN, GlobalGCN
from lightning_nas.query.predictors.graph_network import GraphNetwork, embed, trimmed

NETWORKS: dict[str, Callable[[int], GraphNetwork]] = {
    "directed": lambda kinds: DirectedGCN(kinds, width=12),
    "global": lambda kinds: GlobalGCN(kinds, width=12),
    "gin": lambda kinds: GIN(kinds, width=12, layers=3),
    "gates": lambda kinds: GateNetwork(kinds, embedding=6, hidden=8, width=12),
}
every = pytest.mark.parametrize("name", NETWORKS)


def made(name: str, kinds: int) -> GraphNetwork:
    """A network with no parameter left at zero, in double precision, in evaluation mode."""
    torch.manual_seed(0)
    network = NETWORKS[name](kinds).double()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    for table in network.modules():
        if hasattr(table, "kinds"):
            table.weight.data[-1] = 0.0
    return network.eval()


def cells(n: int = 20, space: str = "nasbench201") -> Graphs:
    """Some random cells, in double precision."""
    encoder = GraphEncoder(space, prune=True)
    graphs = encoder([encoder.space.sample(random.Random(k)) for k in range(n)])
    return Graphs(graphs.adjacency.double(), graphs.labels, graphs.kinds)


def shuffled(graphs: Graphs) -> Graphs:
    """The same graphs, the vertices of each in another order, padding among them."""
    rng = torch.Generator().manual_seed(1)
    orders = [torch.randperm(graphs.labels.shape[1], generator=rng) for _ in range(len(graphs))]
    adjacency = torch.stack([matrix[order][:, order] for matrix, order in zip(graphs.adjacency, orders, strict=True)])
    labels = torch.stack([row[order] for row, order in zip(graphs.labels, orders, strict=True)])
    return Graphs(adjacency, labels, graphs.kinds)


@every
def test_the_order_of_the_vertices_does_not_matter(name: str) -> None:
    graphs = cells()
    network = made(name, graphs.kinds)
    assert not torch.equal(shuffled(graphs).labels, graphs.labels)
    assert (network(shuffled(graphs)) - network(graphs)).abs().max() < 1e-6


@every
def test_the_direction_of_the_edges_matters_to_all_but_gin(name: str) -> None:
    graphs = cells()
    network = made(name, graphs.kinds)
    back = Graphs(graphs.adjacency.mT, graphs.labels, graphs.kinds)
    difference = (network(back) - network(graphs)).abs().amax(dim=1)
    wired = graphs.adjacency.any(dim=2).any(dim=1)
    assert (difference[wired] < 1e-12).all() if name == "gin" else (difference[wired] > 1e-6).all()


@every
@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_matter(name: str, training: bool) -> None:
    """Not to the vectors, not to the gradients, not to the statistics of batch normalisation."""
    graphs = cells()
    network = made(name, graphs.kinds).train(training)
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    results = []
    for some in (graphs, graphs.padded(13)):
        network.zero_grad()
        vectors = network(some)
        vectors.square().sum().backward()
        results.append([vectors.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)])
    assert len(results[0]) > 3
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@every
def test_a_graph_has_the_same_vector_in_any_batch(name: str) -> None:
    graphs = cells()
    network = made(name, graphs.kinds)
    alone = torch.cat(
        [embed(network, Graphs(graphs.adjacency[[k]], graphs.labels[[k]], 7)) for k in range(len(graphs))]
    )
    torch.testing.assert_close(alone, embed(network, graphs, chunk=7))
    assert len({tuple(row) for row in alone.round(decimals=9).tolist()}) > 15  # and others have others


def loop(graphs: Graphs, step: Callable[[Tensor, Tensor, int], Tensor], start: Tensor, layers: int, k: int) -> Tensor:
    """Features of the vertices of graph `k` after some layers."""
    real = int(graphs.mask()[k].sum())
    x = start[graphs.labels[k, :real]]
    for layer in range(layers):
        x = step(graphs.adjacency[k, :real, :real], x, layer)
    return x


def test_the_directed_network_is_its_formula() -> None:
    graphs = cells(5)
    network = made("directed", graphs.kinds)
    assert isinstance(network, DirectedGCN)

    def step(edges: Tensor, x: Tensor, layer: int) -> Tensor:
        new = torch.zeros(len(x), 12, dtype=x.dtype)
        weight = torch.eye(24, dtype=x.dtype) if layer == 0 else network.weights[layer - 1]
        for v in range(len(x)):
            for way, half in ((edges[v], weight[:, :12]), (edges[:, v], weight[:, 12:])):
                near = [v, *way.nonzero().flatten().tolist()]
                new[v] += torch.stack([x[w] @ half for w in near]).mean(dim=0).relu() / 2
        return new

    expected = torch.stack([loop(graphs, step, network.first.weight, 3, k).mean(dim=0) for k in range(5)])
    torch.testing.assert_close(network(graphs), expected)


def test_the_global_network_is_its_formula() -> None:
    """With the global vertex at every layer, and a padding vertex nowhere."""
    graphs = cells(5)
    network = made("global", graphs.kinds)
    assert isinstance(network, GlobalGCN)

    def layer_of(total: Tensor, layer: int) -> Tensor:
        if layer:
            total = total @ network.weights[layer - 1]
        total = total + network.biases[layer]
        centred = total - total.mean()
        normal = centred / (centred.square().mean() + 1e-5).sqrt()
        return (normal * network.gains[layer] + network.shifts[layer]).relu()

    for k in range(5):
        real = int(graphs.mask()[k].sum())
        edges, x = graphs.adjacency[k], [network.first.weight[label] for label in graphs.labels[k, :real]]
        seen = network.first.weight[graphs.kinds]
        for layer in range(4):
            sums = [x[v] + sum(x[w] for w in range(real) if edges[v, w]) for v in range(real)]
            seen, x = layer_of(seen + sum(x), layer), [layer_of(total, layer) for total in sums]
        torch.testing.assert_close(network(graphs)[k], seen)


def test_gin_is_its_formula() -> None:
    graphs = cells(5)
    network = made("gin", graphs.kinds)
    assert isinstance(network, GIN)

    def step(edges: Tensor, x: Tensor, layer: int) -> Tensor:
        near = edges + edges.T
        sums = [(1 + network.eps[layer]) * x[v] + sum(x[w] for w in near[v].nonzero().flatten()) for v in range(len(x))]
        x = torch.stack(sums)
        for k in (2 * layer, 2 * layer + 1):
            x = x @ network.weights[k - 1] if k else x
            x = (x - network.means[k]) / (network.variances[k] + 1e-5).sqrt()
            x = (x * network.gains[k] + network.shifts[k]).relu()
        return x

    expected = torch.stack([loop(graphs, step, network.first.weight, 3, k).mean(dim=0) for k in range(5)])
    torch.testing.assert_close(network(graphs), expected)


def test_gates_are_their_formula() -> None:
    graphs = cells(5)
    network = made("gates", graphs.kinds)
    assert isinstance(network, GateNetwork)
    gates = network.gates(network.operations.weight).sigmoid().unflatten(1, (5, 12))

    for k in range(5):
        real = int(graphs.mask()[k].sum())
        labels = graphs.labels[k, :real].tolist()
        x = [network.enter(network.starts[0 if label == 0 else 1]) for label in labels]
        for layer, flow in enumerate(network.flows):
            sent = [flow(row if layer == 0 else row.relu()) for row in x]
            reached = [
                sum((sent[u] for u in range(real) if graphs.adjacency[k, u, v]), 0 * sent[0]) for v in range(real)
            ]
            x = [gates[labels[v], layer] * reached[v] + sent[v] + network.biases[layer] for v in range(real)]
        torch.testing.assert_close(network(graphs)[k], x[labels.index(1)])


def test_a_closed_gate_lets_nothing_pass() -> None:
    """Behind an operation whose gates are zero it does not matter what comes before; behind an open one it does."""
    chain = torch.diag(torch.ones(3, dtype=torch.double), 1).expand(4, 4, 4)
    graphs = Graphs(chain, torch.tensor([[0, 2, 4, 1], [0, 3, 4, 1], [0, 2, 3, 1], [0, 3, 3, 1]]), kinds=5)
    network = made("gates", 5)
    assert isinstance(network, GateNetwork)
    nn.init.constant_(network.gates.weight, 1.0)
    network.operations.weight.data[4] = -1e4
    vectors = network(graphs)
    torch.testing.assert_close(vectors[0], vectors[1])
    assert (vectors[2] - vectors[3]).abs().max() > 1e-6


def test_gates_read_the_output_of_each_cell() -> None:
    """Exchanging the two cells of DARTS exchanges the halves of the vector."""
    encoder = GraphEncoder("darts")
    graphs = encoder([encoder.space.sample(random.Random(k)) for k in range(3)])
    network = GATES(output=2, embedding=6, units=8, width=12).build(graphs).eval()
    order = torch.arange(22).roll(11)
    swapped = Graphs(graphs.adjacency[:, order][:, :, order], graphs.labels[:, order], graphs.kinds)
    vectors = network(graphs)
    assert vectors.shape == (3, 24)
    torch.testing.assert_close(network(swapped), vectors.roll(12, dims=1))
    assert (vectors[:, :12] - vectors[:, 12:]).abs().max() > 1e-6


def test_wrong_sizes_and_labels_are_refused() -> None:
    graphs = cells(3)
    for network in (DirectedGCN, GlobalGCN, GIN, GateNetwork):
        with pytest.raises(ValueError, match="width=0"):
            network(7, width=0)
    with pytest.raises(ValueError, match="output=0 is no label of outputs"):
        GATES(output=0).build(graphs)
    with pytest.raises(ValueError, match="1 vertices of label 2"):
        GateNetwork(7, output=2)(graphs)


def test_padding_at_the_end_is_cut() -> None:
    graphs = cells(3)
    assert trimmed(graphs.padded(30)).labels.shape[1] <= 8
    torch.testing.assert_close(trimmed(graphs.padded(30)).adjacency, trimmed(graphs).adjacency)
