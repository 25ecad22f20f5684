"""What every predictor promises. A new one is covered by a line in `PREDICTORS`."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torchmetrics.functional.regression import kendall_rank_corrcoef

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import AdjacencyEncoder, Encoder, GraphEncoder, select
from lightning_nas.query.encoders.score import ScoreEncoder
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors import NearestNeighbor, Predictor
from lightning_nas.query.predictors.boosting import Boosting
from lightning_nas.query.predictors.dngo import DNGO
from lightning_nas.query.predictors.gates import GATES
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.gcn import GIN, DirectedGCN, GlobalGCN
from lightning_nas.query.predictors.lstm import LSTMPredictor
from lightning_nas.query.predictors.mlp import MLPEnsemble
from lightning_nas.query.predictors.nao import NAOPredictor, SemiNASPredictor
from lightning_nas.query.predictors.neural import NeuralPredictor
from lightning_nas.query.predictors.otmann import OTMANN
from lightning_nas.query.predictors.ranker import Ranker
from lightning_nas.query.predictors.weisfeiler_lehman import WeisfeilerLehman
from lightning_nas.query.predictors.zero_cost import ZeroCost

SPACE = "nasbench201"
FLAT = AdjacencyEncoder(SPACE)
GRAPH = GraphEncoder(SPACE)
PRUNED = GraphEncoder(SPACE, prune=True)
TOKENS = TokenEncoder(SPACE)
SCORED = ScoreEncoder(
    SPACE, lambda genotype: sum((0.0, 0.5, 3.0, 6.0, 1.0)[k] for (k,) in genotype.picks.values()), FLAT
)

PREDICTORS: dict[str, tuple[Encoder, Callable[[], Predictor]]] = {
    "NearestNeighbor": (FLAT, lambda: NearestNeighbor()),
    "GaussianProcess": (FLAT, lambda: GaussianProcess(steps=20)),
    "GaussianProcess, log error": (FLAT, lambda: GaussianProcess(steps=20, target="log_error")),
    "GaussianProcess, WL": (GRAPH, lambda: GaussianProcess(WeisfeilerLehman(), 20, scale=False)),
    "GaussianProcess, OTMANN": (PRUNED, lambda: GaussianProcess(OTMANN(PRUNED.vocabulary), 10)),
    "MLPEnsemble": (FLAT, lambda: MLPEnsemble(3, 3, passes=60)),
    "DNGO": (FLAT, lambda: DNGO(width=32, passes=60)),
    "Boosting": (FLAT, lambda: Boosting(2, 40)),
    "NeuralPredictor": (GRAPH, lambda: NeuralPredictor(32, 2, 32, lr=3e-3, passes=60)),
    "NeuralPredictor, two stages": (GRAPH, lambda: NeuralPredictor(32, 2, 32, lr=3e-3, passes=60, quantile=0.2)),
    "Ranker, hinge": (GRAPH, lambda: Ranker(lambda kinds: DirectedGCN(kinds, 32, 2), passes=40)),
    "Ranker, bce, several": (GRAPH, lambda: Ranker(lambda kinds: GIN(kinds), loss="bce", passes=30, members=2)),
    "Ranker, relation": (GRAPH, lambda: Ranker(lambda kinds: GlobalGCN(kinds, 32, 3), loss="relation", passes=60)),
    "GATES": (GRAPH, lambda: GATES(width=32, layers=3, hidden=(32,), batch=20, passes=40)),
    "LSTMPredictor": (TOKENS, lambda: LSTMPredictor(len(TOKENS.vocabulary), 32, 16, members=2, passes=60)),
    "NAOPredictor": (TOKENS, lambda: NAOPredictor(len(TOKENS.vocabulary), 32, 16, passes=150, batch=20)),
    "SemiNASPredictor": (
        TOKENS,
        lambda: SemiNASPredictor(len(TOKENS.vocabulary), TOKENS(cells(100, 77)), hidden=32, passes=100, more_passes=5),
    ),
    "ZeroCost": (SCORED, lambda: ZeroCost(NearestNeighbor())),
}
every = pytest.mark.parametrize("name", PREDICTORS)


def cells(n: int, seed: int) -> list[Genotype]:
    rng = random.Random(seed)
    return [FLAT.space.sample(rng) for _ in range(n)]


def score(genotypes: list[Genotype]) -> torch.Tensor:
    """Percent, better with every convolution."""
    gain = (0.0, 1.0, 3.0, 5.0, 0.5)
    values = [70 + sum(gain[k] for (k,) in genotype.picks.values()) for genotype in genotypes]
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Predictor]:
    return {}


def learned(name: str, fitted: dict[str, Predictor]) -> Predictor:
    if name not in fitted:
        encoder, make = PREDICTORS[name]
        fitted[name] = make().fit(encoder(cells(60, 0)), score(cells(60, 0)), seed=3)
    return fitted[name]


@every
def test_it_learns_the_order(name: str, fitted: dict[str, Predictor]) -> None:
    prediction = learned(name, fitted).predict(PREDICTORS[name][0](cells(200, 1)))
    assert prediction.mean.shape == prediction.std.shape == (200,)
    assert bool(torch.isfinite(prediction.mean).all())
    assert bool((prediction.std >= 0).all())
    tau = kendall_rank_corrcoef(prediction.mean.double(), score(cells(200, 1)))
    assert tau > 0.4


@every
def test_a_prediction_does_not_depend_on_the_others(name: str, fitted: dict[str, Predictor]) -> None:
    predictor, x = learned(name, fitted), PREDICTORS[name][0](cells(20, 2))
    together = predictor.predict(x)
    for k in (0, 7, 19):
        alone = predictor.predict(select(x, slice(k, k + 1)))
        torch.testing.assert_close(alone.mean[0], together.mean[k], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.std[0], together.std[k], rtol=1e-3, atol=1e-3)


@every
def test_the_same_data_and_seed_give_the_same(name: str, fitted: dict[str, Predictor]) -> None:
    encoder, make = PREDICTORS[name]
    x = encoder(cells(30, 3))
    first = learned(name, fitted).predict(x)
    before = torch.random.get_rng_state()
    other = make().fit(encoder(cells(10, 5)), score(cells(10, 5)), seed=9)
    again = other.fit(encoder(cells(60, 0)), score(cells(60, 0)), seed=3).predict(x)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.mean, again.mean)
    assert torch.equal(first.std, again.std)


@every
def test_it_follows_its_labels(name: str, fitted: dict[str, Predictor]) -> None:
    encoder, make = PREDICTORS[name]
    turned = make().fit(encoder(cells(60, 0)), -score(cells(60, 0)), seed=3).predict(encoder(cells(200, 1))).mean
    assert kendall_rank_corrcoef(turned.double(), score(cells(200, 1))) < -0.4


@every
def test_joint_draws_come_from_a_generator(name: str, fitted: dict[str, Predictor]) -> None:
    prediction = learned(name, fitted).predict(PREDICTORS[name][0](cells(20, 2)))
    draws = [prediction.draw(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1, 2, 3)]
    assert all(draw.shape == (20,) for draw in draws)
    assert torch.equal(draws[0], draws[1])
    spread = torch.stack(draws[1:]).std(dim=0).max()
    assert (spread > 0) == bool((prediction.std > 0).any())


@every
def test_few_labels_and_equal_ones_are_enough(name: str) -> None:
    encoder, make = PREDICTORS[name]
    for y in (torch.tensor([90.0, 91.0], dtype=torch.float64), torch.tensor([90.0, 90.0], dtype=torch.float64)):
        prediction = make().fit(encoder(cells(2, 4)), y).predict(encoder(cells(5, 1)))
        assert bool(torch.isfinite(prediction.mean).all())
        assert bool(torch.isfinite(prediction.std).all())


@every
def test_what_is_wrong_is_said(name: str) -> None:
    encoder, make = PREDICTORS[name]
    x = encoder(cells(3, 0))
    with pytest.raises(ValueError, match="fit"):
        make().predict(x)
    with pytest.raises(ValueError, match="not finite"):
        make().fit(x, torch.tensor([1.0, float("nan"), 2.0]))
    other = FLAT if encoder is not FLAT and isinstance(encoder, GraphEncoder) else GRAPH
    with pytest.raises(ValueError, match="works on"):
        make().fit(other(cells(3, 0)), torch.tensor([1.0, 2.0, 3.0]))
