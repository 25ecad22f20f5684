"""Rankers: losses of pairs, antisymmetry, perfect order on a toy, seeds; and the regression of the Neural Predictor."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor

from lightning_nas.query.encoders import GraphEncoder, Graphs, select
from lightning_nas.query.predictors import Predictor
from lightning_nas.query.predictors.gates import GATES
from lightning_nas.query.predictors.gcn import GIN, DirectedGCN, GlobalGCN
from lightning_nas.query.predictors.neural import NeuralPredictor
from lightning_nas.query.predictors.pairwise import BinaryRelation, Loss, Score, bce, hinge, pairs
from lightning_nas.query.predictors.ranker import Ranker

gcn = partial(GlobalGCN, width=24, dropout=0.0)
PREDICTORS: dict[str, Callable[[int], Predictor]] = {
    "hinge": lambda passes: Ranker(partial(DirectedGCN, width=24), lr=0.01, batch=60, passes=passes),
    "bce": lambda passes: Ranker(partial(GIN, width=24, layers=2), "bce", lr=0.01, batch=60, passes=passes),
    "relation": lambda passes: Ranker(gcn, "relation", lr=0.01, batch=60, passes=3 * passes),
    "gates": lambda passes: GATES(width=24, hidden=(24,), dropout=0.0, lr=0.01, passes=passes, ratio=None),
    "regression": lambda passes: NeuralPredictor(24, hidden=24, dropout=0.0, lr=0.01, batch=60, passes=passes),
}
every = pytest.mark.parametrize("name", PREDICTORS)


def toy(n: int, seed: int, conv: str = "nor_conv_3x3") -> tuple[Graphs, Tensor]:
    """Cells and the numbers of their convolutions."""
    encoder = GraphEncoder("nasbench201")
    rng = random.Random(seed)
    graphs = encoder([encoder.space.sample(rng) for _ in range(n)])
    assert isinstance(graphs, Graphs)
    return graphs, (graphs.labels == encoder.vocabulary.index(conv)).sum(dim=1).double()


def gamma(predicted: Tensor, y: Tensor) -> float:
    """Kendall's tau over the pairs of different scores."""
    better, worse = pairs(y)
    return float((predicted[better] - predicted[worse]).sign().mean())


@every
def test_a_count_of_operations_is_ranked_perfectly(name: str) -> None:
    graphs, y = toy(60, seed=0)
    predictor = PREDICTORS[name](100).fit(graphs, y)
    others, z = toy(200, seed=1)
    assert gamma(predictor.predict(graphs).mean, y) == 1.0
    assert gamma(predictor.predict(others).mean, z) > 0.95


@every
def test_other_labels_give_another_order(name: str) -> None:
    graphs, y = toy(40, seed=0)
    predictor = PREDICTORS[name](15)
    up = predictor.fit(graphs, y).predict(graphs).mean
    down = predictor.fit(graphs, -y).predict(graphs).mean
    assert kendalltau(up, down).statistic < -0.5


@every
def test_a_seed_decides_everything(name: str) -> None:
    """The same seed the same predictions, whatever was learned before; torch's generator stays as it is."""
    graphs, y = toy(12, seed=0)
    predictor = PREDICTORS[name](3)
    before = torch.get_rng_state()
    first = predictor.fit(graphs, y, seed=5).predict(graphs).mean
    other = predictor.fit(graphs, y, seed=6).predict(graphs).mean
    torch.rand(3)
    middle = torch.get_rng_state()
    again = predictor.fit(graphs, y, seed=5).predict(graphs).mean
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(middle, torch.get_rng_state())
    assert not torch.equal(before, middle)


@every
def test_a_prediction_does_not_hang_on_the_others(name: str) -> None:
    graphs, y = toy(12, seed=0)
    predictor = PREDICTORS[name](3)
    predictor.fit(graphs, y)
    some = select(graphs, torch.tensor([7, 3]))
    torch.testing.assert_close(
        predictor.predict(some).mean, predictor.predict(graphs).mean[[7, 3]], rtol=1e-4, atol=1e-5
    )


def test_pairs_are_those_of_different_scores() -> None:
    y = torch.tensor([3.0, 1.0, 3.0, 2.0])
    assert set(zip(*(side.tolist() for side in pairs(y)), strict=True)) == {(0, 1), (0, 3), (2, 1), (2, 3), (3, 1)}
    assert [len(side) for side in pairs(torch.ones(5))] == [0, 0]
    better, worse = pairs(torch.arange(20.0), ratio=4.0)
    assert len(better) == 80
    assert (better > worse).all()
    assert len(pairs(torch.arange(5.0), ratio=4.0)[0]) == 10  # there are no more


def test_no_gradient_once_the_margin_is_kept() -> None:
    better, worse = torch.tensor([1.0, 0.35, 0.5], requires_grad=True), torch.tensor([0.0, 0.3, 0.6])
    loss = hinge(better, worse, margin=0.1)
    assert loss.item() == pytest.approx((0.0 + 0.05 + 0.2) / 3)
    loss.backward()
    assert better.grad is not None
    torch.testing.assert_close(better.grad, torch.tensor([0.0, -1 / 3, -1 / 3]))


@pytest.mark.parametrize("kind", ["hinge", "bce", "relation"])
def test_equal_scores_give_no_loss(kind: Loss) -> None:
    head = BinaryRelation(4) if kind == "relation" else Score(4, kind)
    y = torch.tensor([1.0, 1.0, 1.0])
    loss = head.loss(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), y, *pairs(y))
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in head.parameters() if p.grad is not None)
    graphs, _ = toy(5, seed=0)
    assert torch.isfinite(Ranker(gcn, kind, passes=2).fit(graphs, torch.ones(5)).predict(graphs).mean).all()


def test_a_difference_of_scores_is_antisymmetric_and_the_relation_is_not() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 10, 4)
    score, relation = Score(4, "bce", hidden=(8,)), BinaryRelation(4)
    wins = torch.exp(-torch.stack([bce(a[None], b[None]) for a, b in zip(score(first), score(second), strict=True)]))
    loses = torch.exp(-torch.stack([bce(b[None], a[None]) for a, b in zip(score(first), score(second), strict=True)]))
    torch.testing.assert_close(wins + loses, torch.ones(10))
    asked, swapped = relation(first, second)[:, 0].exp(), relation(second, first)[:, 0].exp()
    assert (asked + swapped - 1).abs().min() > 1e-3


def test_the_relation_learns_the_softmax_of_the_labels() -> None:
    """The loss is the divergence pair by pair, in both orders; ratings are mean probabilities to win."""
    torch.manual_seed(0)
    relation, vectors, y = BinaryRelation(4), torch.randn(5, 4), torch.tensor([0.3, -1.0, 2.0, 0.1, 0.0])
    losses, won = [], torch.zeros(5)
    for i in range(5):
        for j in range(5):
            said, swapped = relation(vectors[i], vectors[j]), relation(vectors[j], vectors[i])
            won[i] += (said.exp()[0] + swapped.exp()[1]).detach() / 10
            if i != j:
                target = torch.stack([y[i], y[j]]).softmax(dim=0)
                losses.append((target * (target.log() - said)).sum())
    torch.testing.assert_close(relation.loss(vectors, y, *pairs(y)), torch.stack(losses).mean())
    torch.testing.assert_close(relation.rate(vectors, vectors), won)
    assert relation.rate(vectors, vectors).min() > 0


def test_a_limit_of_steps_ends_before_its_last_pass() -> None:
    graphs, y = toy(5, seed=0)
    short = Ranker(gcn, batch=2, passes=100, steps=7).fit(graphs, y).predict(graphs).mean
    assert torch.equal(short, Ranker(gcn, batch=2, passes=3).fit(graphs, y).predict(graphs).mean)
    assert not torch.equal(short, Ranker(gcn, batch=2, passes=2).fit(graphs, y).predict(graphs).mean)
    with pytest.raises(ValueError, match="steps=0"):
        Ranker(steps=0)


def test_members_make_the_mean_and_the_deviation() -> None:
    graphs, y = toy(12, seed=0)
    one = Ranker(gcn, passes=3).fit(graphs, y).predict(graphs)
    assert not one.std.any()
    three = []
    for k in range(3):
        alone = Ranker(gcn, passes=3).fit(graphs, y, seed=6 + k).predict(graphs).mean
        three.append((alone - alone.mean()) / alone.std(correction=0))
    prediction = Ranker(gcn, passes=3, members=3).fit(graphs, y, seed=2).predict(graphs)
    torch.testing.assert_close(prediction.mean, torch.stack(three).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.std, torch.stack(three).std(dim=0, correction=0), rtol=1e-4, atol=1e-5)
    assert (prediction.std > 0).all()


def test_regression_follows_the_scale_of_the_scores() -> None:
    graphs, y = toy(12, seed=0)
    predictor = NeuralPredictor(width=8, hidden=8, passes=3)
    plain = predictor.fit(graphs, y).predict(graphs).mean
    torch.testing.assert_close(
        predictor.fit(graphs, 5 * y + 70).predict(graphs).mean, 5 * plain + 70, rtol=1e-5, atol=1e-4
    )


def test_the_second_stage_learns_from_what_passes_the_first() -> None:
    """How bad the bad ones are does not change what is predicted of the good ones, and is their own prediction."""
    graphs, y = toy(40, seed=0)
    predictor = NeuralPredictor(24, hidden=24, dropout=0.0, lr=0.01, batch=40, passes=100, threshold=1.0)
    good = y >= 1
    one = predictor.fit(graphs, y).predict(graphs).mean
    other = predictor.fit(graphs, torch.where(good, y, -40.0)).predict(graphs).mean
    torch.testing.assert_close(one[good], other[good])
    assert (other[~good] == -40).all()
    assert (one[~good] == 0).all()


def test_a_quantile_is_a_threshold() -> None:
    graphs, y = toy(30, seed=0)
    y = y + torch.linspace(0, 0.5, 30)  # no two are equal
    by_share = NeuralPredictor(8, hidden=8, passes=2, quantile=0.25).fit(graphs, y).predict(graphs)
    by_score = NeuralPredictor(8, hidden=8, passes=2, threshold=float(y.quantile(0.25))).fit(graphs, y).predict(graphs)
    assert torch.equal(by_share.mean, by_score.mean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ranker(loss="mse"), "loss='mse'"),  # type: ignore[arg-type]
        (lambda: Ranker(margin=0.0), "margin=0.0"),
        (lambda: Ranker(batch=1), "batch=1"),
        (lambda: NeuralPredictor(quantile=1.0), "quantile=1.0"),
        (lambda: NeuralPredictor(quantile=0.5, threshold=91.0), "give one of them"),
        (lambda: NeuralPredictor(dropout=1.0), "dropout=1.0"),
        (lambda: Ranker().predict(toy(2, 0)[0]), "fit it first"),
        (lambda: NeuralPredictor().fit(torch.ones(2, 3), torch.ones(2)), "GraphEncoder"),
    ],
)
def test_wrong_input_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
