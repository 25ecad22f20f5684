"""arch2vec: its autoencoder against plain formulas, what the embedding keeps, and the file of weights."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from lightning_nas.query.encoders import GraphEncoder, Graphs, select
from lightning_nas.query.encoders.arch2vec import Arch2Vec
from lightning_nas.query.encoders.graph_autoencoder import GraphAutoencoder, divergence
from lightning_nas.spaces import get_space
from lightning_nas.spaces.restricted import RestrictedSpace


def cells(n: int, seed: int = 0, space: str = "nasbench101") -> Graphs:
    encoder, rng = GraphEncoder(space), random.Random(seed)
    return encoder.encode([encoder.space.sample(rng) for _ in range(n)])


def autoencoder(graphs: Graphs, **options: float) -> GraphAutoencoder:
    torch.manual_seed(0)
    model = GraphAutoencoder(graphs, graphs.kinds, size=5, hidden=9, **options)  # type: ignore[arg-type]
    for module in model.modules():  # statistics of a batch that are not trivial
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model.double().eval().requires_grad_(False)


def permuted(graphs: Graphs, order: torch.Tensor) -> Graphs:
    return Graphs(graphs.adjacency[:, order][:, :, order], graphs.labels[:, order], graphs.kinds)


@pytest.fixture(scope="module")
def small() -> Arch2Vec:
    return Arch2Vec("nasbench201", number=800, passes=10, hidden=64, hops=2, batch=16)


def test_divergence_is_that_of_torch() -> None:
    mean, log_std = torch.randn(2, 7, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zero = torch.zeros_like(mean)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(zero, zero + 1)).sum(dim=-1)
    torch.testing.assert_close(divergence(mean, log_std), expected)


def test_the_order_of_vertices_does_not_matter_and_other_graphs_neither() -> None:
    graphs = cells(30)
    model, order = (
        autoencoder(graphs),
        torch.randperm(graphs.labels.shape[1], generator=torch.Generator().manual_seed(1)),
    )
    embedded = model.embed(graphs)
    torch.testing.assert_close(model.embed(permuted(graphs, order)), embedded, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.embed(graphs.padded(11)), embedded, rtol=0, atol=1e-12)
    part = select(graphs, slice(4, 6))
    assert isinstance(part, Graphs)
    torch.testing.assert_close(model.embed(part), embedded[4:6], rtol=0, atol=1e-12)
    assert float(torch.pdist(embedded).median()) > 1e-3
    assert not torch.allclose(model.embed(permuted(cells(30, seed=1), order)), embedded)


def test_the_encoder_is_a_graph_isomorphism_network() -> None:
    graphs = cells(4)
    model = autoencoder(graphs)
    model.epsilon.data.copy_(torch.tensor([0.1, -0.2, 0.3, 0.4]))
    mean, log_std = model.encode(graphs)
    for k in range(4):
        vertices = int(graphs.mask()[k].sum())
        a, h = graphs.adjacency[k, :vertices, :vertices].double(), graphs.one_hot()[k, :vertices].double()
        for epsilon, hop in zip(model.epsilon, model.hops, strict=True):
            near = torch.stack([h[a[v] + a[:, v] > 0].sum(dim=0) for v in range(vertices)])
            h = hop((1 + epsilon) * h + near)
        torch.testing.assert_close(mean[k, :vertices], model.mean(h))
        torch.testing.assert_close(log_std[k, :vertices], model.log_std(h))
        assert not mean[k, vertices:].any()
    assert len(model.hops) == 4


def test_the_loss_is_the_published_one() -> None:
    graphs = cells(6, space="nasbench201")  # no padding, so that the published means are over all entries
    model, rows = autoencoder(graphs), torch.tensor([1, 4, 5])
    torch.manual_seed(3)
    found = model.loss(rows)
    torch.manual_seed(3)
    part = Graphs(graphs.adjacency[rows], graphs.labels[rows], graphs.kinds)
    mean, log_std = model.encode(part)
    z = mean + log_std.exp() * torch.randn_like(mean)
    p, q = (z @ model.labels.weight.T + model.labels.bias).softmax(dim=2), (z @ z.mT).sigmoid()
    hot, a = part.one_hot().double(), part.adjacency.double()
    label_loss = -(hot * p.log() + (1 - hot) * (1 - p).log()).mean()
    upper = torch.ones(8, 8).triu(1).bool()
    edge_loss = -(a * q.log() + (1 - a) * (1 - q).log())[:, upper].mean()
    kl = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros_like(mean), 1.0)).sum(dim=2).mean() / (3 * 8)
    torch.testing.assert_close(found, label_loss + edge_loss + kl)


def test_a_short_training_keeps_what_an_architecture_is(small: Arch2Vec) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arch2Vec, "_train", lambda self: self._new(None).eval())
        before = Arch2Vec("nasbench201", number=800, hidden=64, hops=2).quality()
    after = small.quality()
    assert before.operations < 0.5
    assert after.operations > 0.75  # the most frequent label at each vertex, input and output known, gives 0.4
    assert after.edges > 0.95


def test_quality_is_that_of_architectures_that_were_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, looked_at = Arch2Vec("nasbench201", number=3000, hidden=8), []
    monkeypatch.setattr(Arch2Vec, "_train", lambda self: self._new(None).eval())
    encode = encoder.graphs.encode
    monkeypatch.setattr(encoder.graphs, "encode", lambda some: looked_at.extend(some) or encode(some))
    quality, space, drawn = encoder.quality(), encoder.space, encoder._drawn()
    trained = set(map(space.canonical, drawn[300:]))
    assert not trained & set(map(space.canonical, looked_at))
    assert {space.canonical(genotype) for genotype in drawn[:300]} <= trained | set(map(space.canonical, looked_at))
    assert 0 < quality.number == len(set(map(space.canonical, looked_at))) == len(looked_at) < 300
    with pytest.raises(ValueError, match="all 5 architectures held out equal some of the 45 trained on"):
        base = get_space("nasbench201")
        Arch2Vec(RestrictedSpace(base, [base.sample(random.Random(k)) for k in range(2)]), number=50).quality()


def test_a_file_is_of_the_members_of_a_restricted_space(tmp_path: Path) -> None:
    base, options = get_space("nasbench201"), {"number": 20, "passes": 1, "hidden": 8, "file": tmp_path / "weights.pt"}
    members = [base.sample(random.Random(k)) for k in range(30)]
    known = Arch2Vec(RestrictedSpace(base, members), **options)  # type: ignore[arg-type]
    embedded = known(members[:4])
    same = Arch2Vec(RestrictedSpace(base, members[::-1]), **options)  # type: ignore[arg-type]
    assert torch.equal(same(members[:4]), embedded)
    for other in (RestrictedSpace(base, members[:-1]), base):
        with pytest.raises(ValueError, match=r"was written for {'members': '30 with .*}, not for {'members': "):
            Arch2Vec(other, **options)(members[:4])  # type: ignore[arg-type]


def test_the_seed_alone_decides(small: Arch2Vec) -> None:
    rng = random.Random(5)
    genotypes = [small.space.sample(rng) for _ in range(20)]
    options = {"number": 60, "passes": 2, "hidden": 8}
    torch.manual_seed(11)
    first = Arch2Vec("nasbench201", **options)(genotypes)  # type: ignore[arg-type]
    torch.rand(3)
    again = Arch2Vec("nasbench201", **options)(genotypes[::-1])  # type: ignore[arg-type]
    assert torch.equal(first, again.flip(0))
    other = Arch2Vec("nasbench201", seed=1, **options)(genotypes)  # type: ignore[arg-type]
    assert not torch.allclose(first, other)
    assert first.shape == (20, 16)
    assert first.dtype == torch.float32


def test_the_file_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    options = {"number": 60, "passes": 1, "hidden": 8, "file": file}
    first = Arch2Vec("nasbench201", **options)  # type: ignore[arg-type]
    genotypes = [first.space.sample(random.Random(k)) for k in range(5)]
    embedded = first(genotypes)
    assert sorted(tmp_path.iterdir()) == [file]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arch2Vec, "_train", None)
        again = Arch2Vec("nasbench201", **options)  # type: ignore[arg-type]
        assert torch.equal(again(genotypes), embedded)
        assert again.quality() == first.quality()
    with pytest.raises(ValueError, match=r"was written for {'seed': 0}, not for {'seed': 1}"):
        Arch2Vec("nasbench201", seed=1, **options)(genotypes)  # type: ignore[arg-type]
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="holds no weights"):
        Arch2Vec("nasbench201", **options)(genotypes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"number": 9}, "number=9"), ({"hops": 1}, "hops=1"), ({"file": "/no/such/folder/a.pt"}, "no folder")],
)
def test_wrong_arguments_of_arch2vec(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arch2Vec("nasbench201", **options)  # type: ignore[arg-type]
