"""Scores without training as features, as a ranker, and as the start of another predictor."""

from __future__ import annotations

import math
import random

import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.data import DigitsDataModule
from lightning_nas.oracles import ZeroCostOracle
from lightning_nas.oracles.zero_cost import ZeroCostScore
from lightning_nas.proxies import naswot
from lightning_nas.query import Result, Trial
from lightning_nas.query.encoders import AdjacencyEncoder, GraphEncoder
from lightning_nas.query.encoders.score import ScoreEncoder
from lightning_nas.query.predictors import NearestNeighbor, Prediction, Predictor
from lightning_nas.query.predictors.zero_cost import ZeroCost
from lightning_nas.query.proposals import Pool
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
GENOTYPES = [SPACE.sample(random.Random(k)) for k in range(12)]


def quality(genotype: Genotype) -> float:
    return float(sum((7 * k + 3) ** 2 % 31 * pick for k, (pick,) in enumerate(genotype.picks.values())))


# --- the encoder


def test_a_score_is_computed_once() -> None:
    asked: list[Genotype] = []

    def score(genotype: Genotype) -> float:
        asked.append(genotype)
        return (1.5, math.nan, -math.inf, 2.5)[len(asked) - 1]

    encoder = ScoreEncoder(SPACE, score, worst=-7.0)
    for _ in range(2):
        x = encoder(GENOTYPES[:4])
    assert isinstance(x, Tensor)
    assert x.tolist() == [[1.5], [-7.0], [-7.0], [2.5]]
    assert asked == GENOTYPES[:4]


def test_further_features_follow() -> None:
    rest = AdjacencyEncoder(SPACE)
    x = ScoreEncoder(SPACE, quality, rest)(GENOTYPES)
    assert isinstance(x, Tensor)
    assert x[:, 0].tolist() == [quality(genotype) for genotype in GENOTYPES]
    assert torch.equal(x[:, 1:], torch.as_tensor(rest(GENOTYPES)).double())
    with pytest.raises(ValueError, match="GraphEncoder makes graphs; give an encoder of features"):
        ScoreEncoder(SPACE, quality, GraphEncoder(SPACE))(GENOTYPES)


def test_the_score_of_an_oracle() -> None:
    oracle = ZeroCostOracle(SPACE, naswot, DigitsDataModule(batch_size=6), channels=4, cells=1)
    x = ScoreEncoder(SPACE, ZeroCostScore(oracle))(GENOTYPES[:2])
    assert isinstance(x, Tensor)
    assert x[:, 0].tolist() == [oracle(Trial(0, genotype)).score for genotype in GENOTYPES[:2]]


# --- the predictor


def test_alone_it_ranks_by_the_score() -> None:
    x = torch.tensor([[3.0], [-1e8], [1e60], [4.0]], dtype=torch.float64)
    predictor = ZeroCost().fit(x[:2], torch.tensor([1.0, 2.0]))
    mean, std, _ = predictor.predict(x)
    assert torch.equal(mean, x[:, 0])
    assert torch.equal(std, torch.zeros(4))
    with pytest.raises(ValueError, match="fit it first"):
        ZeroCost().predict(x)
    with pytest.raises(ValueError, match="give the ScoreEncoder a rest="):
        ZeroCost(NearestNeighbor()).fit(x, torch.arange(4.0))


class Nothing(Predictor):
    """Keeps its labels and predicts a constant."""

    def fit(self, x: object, y: Tensor, seed: int = 0) -> Nothing:
        self.x, self.y, self.seed = x, y, seed
        return self

    def predict(self, x: object) -> Prediction:
        n = len(x)  # type: ignore[arg-type]
        return Prediction(torch.full((n,), 0.5), torch.full((n,), 2.0), lambda rng: torch.arange(float(n)))


def test_the_rest_learns_what_the_line_leaves() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=rng, dtype=torch.float64)
    x[4, 0], x[5, 0] = x[3, 0], 1e70  # equal scores, and one of another magnitude
    y = 90 + 2 * x[:, 0].clamp(max=3) + torch.randn(30, generator=rng)
    rest = Nothing()
    predictor = ZeroCost(rest).fit(x, y, seed=5)
    ranks = torch.tensor((rankdata(x[:, 0]) - 0.5) / 30)
    design = torch.stack([torch.ones(30, dtype=torch.float64), ranks], dim=1)
    line = design @ torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    torch.testing.assert_close(rest.y, y - line)
    assert torch.equal(rest.x, x[:, 1:])  # type: ignore[arg-type]
    assert rest.seed == 5
    mean, std, _ = predictor.predict(x)
    torch.testing.assert_close(mean.double(), line + 0.5, rtol=0, atol=1e-4)
    assert std.tolist() == [2.0] * 30
    draw = predictor.predict(x).draw(torch.Generator())
    torch.testing.assert_close(draw.double(), line + torch.arange(30), rtol=0, atol=1e-4)
    for row in (0, 7):  # not by what else is in the batch
        assert float(predictor.predict(x[row : row + 1]).mean) == float(mean[row])


def test_a_score_that_speaks_against_the_labels_is_left_out() -> None:
    x, y, rest = torch.arange(10.0)[:, None].repeat(1, 2), -torch.arange(10.0), Nothing()
    ZeroCost(rest).fit(x, y)
    torch.testing.assert_close(rest.y, y - y.mean())


def test_a_search_led_by_the_true_quality() -> None:
    pool = [SPACE.sample(random.Random(100 + k)) for k in range(60)]
    searcher = PredictorSearch(ScoreEncoder(SPACE, quality), ZeroCost(), proposal=Pool(pool), initial=2, batch=3)
    seen = []
    for _ in range(5):
        (trial,) = searcher.ask()
        seen.append(quality(trial.genotype))
        searcher.tell([Result(trial, 50.0)])
    best = sorted({quality(genotype) for genotype in pool}, reverse=True)
    assert seen[2] == best[0]
    assert seen[2:] == sorted(seen[2:], reverse=True)
