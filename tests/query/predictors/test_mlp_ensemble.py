"""Ensembles on features: members side by side are members alone, and what they say together."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.query.acquisition import IndependentThompson
from lightning_nas.query.encoders import PathEncoder
from lightning_nas.query.predictors.base import Prediction, over_members
from lightning_nas.query.predictors.boosting import Boosting
from lightning_nas.query.predictors.fitting import fit_quietly
from lightning_nas.query.predictors.mlp import BatchedMLP, MLPEnsemble, member_seeds
from lightning_nas.query.searchers.bananas import BANANAS

RNG = torch.Generator().manual_seed(0)
X = torch.rand(23, 6, generator=RNG, dtype=torch.float64)
Y = X[:, 0] - 2 * X[:, 1] * X[:, 2]


def fitted(seeds: list[int], passes: int = 6, **options: object) -> Tensor:
    model = BatchedMLP(X, Y, seeds, hidden=(12, 12), **options)  # type: ignore[arg-type]
    return fit_quietly(model, len(X), batch=5, passes=passes, seed=3)(X)


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "squared": True}, {"weight": 1 + X[:, 3]}])
def test_members_side_by_side_are_members_alone(options: dict[str, object]) -> None:
    together = fitted([5, 9, 14], **options)
    alone = torch.cat([fitted([seed], **options) for seed in (5, 9, 14)])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-8)
    assert float(together.std(dim=0).min()) > 1e-4


def test_a_member_is_a_plain_perceptron_with_an_order_of_its_own() -> None:
    model = BatchedMLP(X, Y, [5, 9], hidden=(7,))
    for member in range(2):
        layers = [nn.Linear(6, 7).double(), nn.Linear(7, 1).double()]
        for layer, weight in zip(layers, model.weights, strict=True):
            layer.weight.data.copy_(weight[member].T)
            layer.bias.data.zero_()
        torch.testing.assert_close(nn.Sequential(layers[0], nn.ReLU(), layers[1])(X)[:, 0], model(X)[member])
    assert all(order.sort().values.tolist() == list(range(23)) for order in model.orders)
    assert not torch.equal(*model.orders)
    assert all(float(w.detach().abs().max()) <= (6 / sum(w.shape[1:])) ** 0.5 for w in model.weights)


def test_equal_members_are_sure() -> None:
    said = over_members(fitted([4, 4, 4, 4, 4]))
    torch.testing.assert_close(said.std, torch.zeros_like(said.std), rtol=0, atol=1e-12)
    assert float(over_members(fitted([4, 5])).std.min()) > 0


def test_the_deviation_is_that_of_a_population_and_a_joint_draw_a_member() -> None:
    outputs = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 2.0]])
    said = over_members(outputs)
    assert said.mean.tolist() == [4.0, 4.0]
    assert said.std.tolist() == pytest.approx([(26 / 3) ** 0.5, 2**0.5])
    drawn = {tuple(said.draw(torch.Generator().manual_seed(seed)).tolist()) for seed in range(40)}
    assert drawn == {(1.0, 5.0), (3.0, 5.0), (8.0, 2.0)}


def gradient(**options: object) -> tuple[Tensor, Tensor]:
    """The gradient in the bias of the output, and the errors of the rows."""
    model = BatchedMLP(X, Y, [0, 1], hidden=(4,), **options)  # type: ignore[arg-type]
    rows = torch.arange(8)
    model.loss(rows).backward()
    own = model.orders[:, rows]
    errors = model(X).detach().gather(1, own) - Y[own]
    assert model.biases[-1].grad is not None
    return model.biases[-1].grad.flatten(), errors


def test_gradients_of_the_losses() -> None:
    found, errors = gradient()
    torch.testing.assert_close(found, errors.sign().mean(dim=1))
    found, errors = gradient(squared=True)
    torch.testing.assert_close(found, 2 * errors.mean(dim=1))


def test_the_percentage_error_is_relative_to_the_distance_from_the_bound() -> None:
    y = torch.tensor([90.0, 93.0, 94.5, 95.0], dtype=torch.float64)
    predictor = MLPEnsemble(members=2, layers=1, loss="mape", bound=95.5, passes=1).fit(torch.eye(4), y)
    assert predictor.model is not None
    assert predictor.model.weight is not None
    said = torch.tensor([91.0, 92.5, 94.6, 94.0], dtype=torch.float64)
    error = (predictor.scale.to(said) - predictor.scale.to(y)).abs() * predictor.model.weight
    published = ((100 - said - 4.5) / (100 - y - 4.5) - 1).abs()  # of errors in percent, bounded from below by 4.5
    torch.testing.assert_close(error, published, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="reaches bound=95"):
        MLPEnsemble(loss="mape", bound=95.0).fit(torch.eye(4), y)
    assert (
        MLPEnsemble(members=2, layers=1, loss="mape", passes=1).fit(torch.eye(4), y).predict(torch.eye(4)).std.min() > 0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"loss": "huber"}, "huber"), ({"bound": 95.0}, "leave it out"), ({"members": 0}, "members=0")],
)
def test_wrong_arguments_of_the_ensemble(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPEnsemble(**options)  # type: ignore[arg-type]


def test_seeds_of_members_differ_and_go_on() -> None:
    assert len(set(member_seeds(7, 50))) == 50
    assert member_seeds(7, 50)[:5] == member_seeds(7, 5)
    assert not set(member_seeds(7, 50)) & set(member_seeds(8, 50))


def test_independent_thompson_without_uncertainty_ranks_by_the_mean() -> None:
    mean = torch.randn(50, generator=torch.Generator().manual_seed(1))
    sure = IndependentThompson()(Prediction(mean, torch.zeros(50)), 0.0, torch.Generator().manual_seed(2))
    assert torch.equal(sure.argsort(), mean.argsort())
    unsure = IndependentThompson()(Prediction(mean, torch.ones(50)), 0.0, torch.Generator().manual_seed(2))
    assert not torch.equal(unsure.argsort(), mean.argsort())


def test_boosting_members_leave_out_a_part_each() -> None:
    x, y = X.float(), Y.clone()
    y[3] += 100  # the member that does not see this row is not misled by it
    said = Boosting(members=4, trees=200, subsample=1.0).fit(x, y, seed=0)
    outputs = torch.stack([torch.from_numpy(model.predict(x.numpy())) for model in said.models])
    at = said.scale.back(outputs[:, 3])
    assert int((at < y[3] / 2).sum()) == 1
    torch.testing.assert_close(said.predict(x).std[3], at.std(correction=0))
    assert float(Boosting(members=1).fit(x, y).predict(x).std.max()) == 0
    with pytest.raises(ValueError, match=r"subsample=1\.5"):
        Boosting(subsample=1.5)


@pytest.mark.parametrize(
    ("space", "features"), [("nasbench201", 30), ("nasbench101", 40), ("darts", 4 * 585), ("nasbench1shot1_1", 40)]
)
def test_bananas_keeps_the_published_paths(space: str, features: int) -> None:
    searcher = BANANAS(space, passes=1)
    assert isinstance(searcher.encoder, PathEncoder)
    assert searcher.encoder([searcher.space.sample(random.Random(0))]).shape == (1, features)
    assert BANANAS(space, length=7).encoder.length == 7  # type: ignore[attr-defined]


def test_bananas_can_have_the_published_setting_for_darts() -> None:
    predictor = BANANAS("darts", loss="mape", bound=95.5, lr=1e-5, passes=10_000).predictor
    assert isinstance(predictor, MLPEnsemble)
    assert (predictor.loss, predictor.bound, predictor.lr, predictor.passes) == ("mape", 95.5, 1e-5, 10_000)
