"""What every predictor promises. A new one is covered by a line in `PREDICTORS`."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import cache
from typing import Self

import pytest
import torch
from torchmetrics.functional.regression import kendall_rank_corrcoef

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import AdjacencyEncoder, Encoder, GraphEncoder, select
from lightning_nas.query.encoders.base import KINDS, Encoded, Graphs, Kind
from lightning_nas.query.encoders.score import ScoreEncoder
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors import NearestNeighbor, Prediction, Predictor
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
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import get_space

SPACE = "nasbench201"
OTHERS = ("nasbench101", "small_sep")
KIND: dict[Kind, Callable[[str], Encoder]] = {
    "features": AdjacencyEncoder,
    "graphs": GraphEncoder,
    "tokens": TokenEncoder,
}


@cache
def encoder_of(kind: str, space: str) -> Encoder:
    """One encoder of each kind, and the two that some predictors have besides."""
    if kind == "pruned":
        return GraphEncoder(space, prune=True)
    if kind == "scored":
        return ScoreEncoder(space, lambda genotype: 1.5 * quality(genotype), encoder_of("features", space))
    return KIND[kind](space)  # type: ignore[index]


def words(encoder: Encoder) -> tuple[str, ...]:
    assert isinstance(encoder, GraphEncoder | TokenEncoder)
    return encoder.vocabulary


def unlabelled(encoder: Encoder) -> torch.Tensor:
    encoded = encoder(cells(100, 77, encoder.space.name))
    assert isinstance(encoded, torch.Tensor)
    return encoded


PREDICTORS: dict[str, tuple[str, Callable[[Encoder], Predictor]]] = {
    "NearestNeighbor": ("features", lambda _: NearestNeighbor()),
    "GaussianProcess": ("features", lambda _: GaussianProcess(steps=20)),
    "GaussianProcess, log error": ("features", lambda _: GaussianProcess(steps=20, target="log_error")),
    "GaussianProcess, WL": ("graphs", lambda _: GaussianProcess(WeisfeilerLehman(), 20, scale=False)),
    "GaussianProcess, OTMANN": ("pruned", lambda e: GaussianProcess(OTMANN(words(e)), 10)),
    "MLPEnsemble": ("features", lambda _: MLPEnsemble(3, 3, passes=60)),
    "DNGO": ("features", lambda _: DNGO(width=32, passes=60)),
    "Boosting": ("features", lambda _: Boosting(2, 40)),
    "NeuralPredictor": ("graphs", lambda _: NeuralPredictor(32, 2, 32, lr=3e-3, passes=60)),
    "NeuralPredictor, two stages": ("graphs", lambda _: NeuralPredictor(32, 2, 32, lr=3e-3, passes=60, quantile=0.2)),
    "Ranker, hinge": ("graphs", lambda _: Ranker(lambda kinds: DirectedGCN(kinds, 32, 2), passes=40)),
    "Ranker, bce, several": ("graphs", lambda _: Ranker(lambda kinds: GIN(kinds), loss="bce", passes=30, members=2)),
    "Ranker, relation": ("graphs", lambda _: Ranker(lambda kinds: GlobalGCN(kinds, 32, 3), "relation", passes=60)),
    "GATES": ("graphs", lambda e: GATES(words(e).index("output"), 48, 96, 32, 3, (32,), batch=20, passes=40)),
    "LSTMPredictor": ("tokens", lambda e: LSTMPredictor(len(words(e)), 32, 16, members=2, passes=60)),
    "NAOPredictor": ("tokens", lambda e: NAOPredictor(len(words(e)), 32, 16, passes=150, batch=20)),
    "SemiNASPredictor": (
        "tokens",
        lambda e: SemiNASPredictor(len(words(e)), unlabelled(e), hidden=32, passes=100, more_passes=5),
    ),
    "ZeroCost": ("scored", lambda _: ZeroCost(NearestNeighbor())),
}
every = pytest.mark.parametrize("name", PREDICTORS)


def parts(name: str, space: str = SPACE) -> tuple[Encoder, Callable[[], Predictor]]:
    """The encoder of a predictor, and what makes it."""
    kind, make = PREDICTORS[name]
    encoder = encoder_of(kind, space)
    return encoder, lambda: make(encoder)


def cells(n: int, seed: int, space: str = SPACE) -> list[Genotype]:
    rng = random.Random(seed)
    return [get_space(space).sample(rng) for _ in range(n)]


def quality(genotype: Genotype) -> float:
    """Better with every convolution."""
    if genotype.space == SPACE:
        return sum((0.0, 1.0, 3.0, 5.0, 0.5)[k] for (k,) in genotype.picks.values())
    text = get_space(genotype.space).format(genotype)
    return 2.0 * text.count("conv") + text.count("3x3")


def score(genotypes: list[Genotype]) -> torch.Tensor:
    """Percent."""
    return torch.tensor([70 + quality(genotype) for genotype in genotypes], dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Predictor]:
    return {}


def learned(name: str, fitted: dict[str, Predictor]) -> Predictor:
    if name not in fitted:
        encoder, make = parts(name)
        fitted[name] = make().fit(encoder(cells(60, 0)), score(cells(60, 0)), seed=3)
    return fitted[name]


@every
def test_it_learns_the_order(name: str, fitted: dict[str, Predictor]) -> None:
    prediction = learned(name, fitted).predict(parts(name)[0](cells(200, 1)))
    assert prediction.mean.shape == prediction.std.shape == (200,)
    assert bool(torch.isfinite(prediction.mean).all())
    assert bool((prediction.std >= 0).all())
    tau = kendall_rank_corrcoef(prediction.mean.double(), score(cells(200, 1)))
    assert tau > 0.4


@every
def test_a_prediction_does_not_depend_on_the_others(name: str, fitted: dict[str, Predictor]) -> None:
    predictor, x = learned(name, fitted), parts(name)[0](cells(20, 2))
    together = predictor.predict(x)
    for k in (0, 7, 19):
        alone = predictor.predict(select(x, slice(k, k + 1)))
        torch.testing.assert_close(alone.mean[0], together.mean[k], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.std[0], together.std[k], rtol=1e-3, atol=1e-3)


@every
def test_the_same_data_and_seed_give_the_same(name: str, fitted: dict[str, Predictor]) -> None:
    encoder, make = parts(name)
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
    encoder, make = parts(name)
    turned = make().fit(encoder(cells(60, 0)), -score(cells(60, 0)), seed=3).predict(encoder(cells(200, 1))).mean
    assert kendall_rank_corrcoef(turned.double(), score(cells(200, 1))) < -0.4


@every
def test_joint_draws_come_from_a_generator(name: str, fitted: dict[str, Predictor]) -> None:
    prediction = learned(name, fitted).predict(parts(name)[0](cells(20, 2)))
    draws = [prediction.draw(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1, 2, 3)]
    assert all(draw.shape == (20,) for draw in draws)
    assert torch.equal(draws[0], draws[1])
    spread = torch.stack(draws[1:]).std(dim=0).max()
    assert (spread > 0) == bool((prediction.std > 0).any())


@every
def test_few_labels_and_equal_ones_are_enough(name: str) -> None:
    encoder, make = parts(name)
    for y in (torch.tensor([90.0, 91.0], dtype=torch.float64), torch.tensor([90.0, 90.0], dtype=torch.float64)):
        prediction = make().fit(encoder(cells(2, 4)), y).predict(encoder(cells(5, 1)))
        assert bool(torch.isfinite(prediction.mean).all())
        assert bool(torch.isfinite(prediction.std).all())


@pytest.mark.parametrize("space", OTHERS)
@every
def test_it_learns_in_other_spaces(name: str, space: str) -> None:
    encoder, make = parts(name, space)
    known, others = cells(40, 0, space), cells(6, 1, space)
    predictor = make().fit(encoder(known), score(known), seed=3)
    tau = kendall_rank_corrcoef(predictor.predict(encoder(known)).mean.double(), score(known))
    assert tau > 0.4
    together = predictor.predict(encoder(others))
    assert together.mean.shape == together.std.shape == (6,)
    assert bool((torch.isfinite(together.mean) & (together.std >= 0)).all())
    alone = predictor.predict(encoder(others[2:3]))
    torch.testing.assert_close(alone.mean[0], together.mean[2], rtol=1e-4, atol=1e-4)


@every
def test_whole_numbers_are_scores_as_others(name: str) -> None:
    encoder, make = parts(name)
    x, y = encoder(cells(4, 0)), torch.tensor([70, 72, 71, 75])
    said = [make().fit(x, scores, seed=3).predict(x) for scores in (y, y.double())]
    assert torch.equal(said[0].mean, said[1].mean)
    assert torch.equal(said[0].std, said[1].std)


def wider(x: Encoded) -> Encoded:
    """The same architectures with one more feature, token or kind of vertices."""
    if isinstance(x, Graphs):
        return Graphs(x.adjacency, x.labels, x.kinds + 1)
    return torch.cat([x, x[:, :1]], dim=1)


@every
def test_what_is_predicted_is_as_wide_as_what_was_learned_from(name: str, fitted: dict[str, Predictor]) -> None:
    x = parts(name)[0](cells(3, 2))
    with pytest.raises(ValueError, match=r"has learned from .* cannot predict .* the same encoder"):
        learned(name, fitted).predict(wider(x))
    assert learned(name, fitted).predict(x).mean.shape == (3,)


@every
def test_it_takes_what_it_says(name: str) -> None:
    """A search refuses every encoder of another kind before anything is tried, and so does a fit that can tell."""
    encoder, make = parts(name)
    assert encoder.makes in make().takes
    for kind in KINDS:
        other = encoder_of(kind, SPACE)
        if kind in make().takes:
            PredictorSearch(other, make())
            continue
        with pytest.raises(ValueError, match=rf"{type(other).__name__} makes {kind}, but .* takes .* give .* such as"):
            PredictorSearch(other, make())
        if kind != "tokens" or "features" not in make().takes:  # features may be whole numbers too
            with pytest.raises(ValueError, match="works on"):
                make().fit(other(cells(3, 0)), torch.tensor([1.0, 2.0, 3.0]))


def test_a_predictor_of_ones_own_that_says_nothing_takes_all() -> None:
    class Own(Predictor):
        def fit(self, x: Encoded, y: torch.Tensor, seed: int = 0) -> Self:
            return self

        def predict(self, x: Encoded) -> Prediction:
            return Prediction(torch.zeros(len(x)), torch.zeros(len(x)))

    for kind in KINDS:
        PredictorSearch(encoder_of(kind, SPACE), Own())


def test_the_rest_of_a_score_is_features() -> None:
    for kind in ("graphs", "tokens"):
        with pytest.raises(ValueError, match=f"makes {kind}; give an encoder of features as rest="):
            ScoreEncoder(SPACE, quality, encoder_of(kind, SPACE))
        with pytest.raises(ValueError, match=f"takes {kind}; give a predictor on features as rest="):
            ZeroCost(Ranker() if kind == "graphs" else LSTMPredictor(6))


def test_without_gpytorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-nas\[bo\]'"):
        GaussianProcess()


@every
def test_what_is_wrong_is_said(name: str) -> None:
    encoder, make = parts(name)
    x = encoder(cells(3, 0))
    with pytest.raises(ValueError, match="fit"):
        make().predict(x)
    with pytest.raises(ValueError, match="not finite"):
        make().fit(x, torch.tensor([1.0, float("nan"), 2.0]))
    with pytest.raises(ValueError, match="nothing to learn from"):
        make().fit(select(x, slice(0, 0)), torch.zeros(0))
    for y in (torch.zeros(2), torch.zeros(4), torch.zeros(3, 1), torch.zeros(())):
        with pytest.raises(
            ValueError, match=r"3 architectures and scores of shape .*one score for each, of shape \(3,\)"
        ):
            make().fit(x, y)
