"""Encodings with predictors, whose ranking of a whole space is measured."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import AdjacencyEncoder, Encoder, GraphEncoder, PathEncoder, WLEncoder
from lightning_nas.query.encoders.arch2vec import Arch2Vec
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors import NearestNeighbor, Predictor
from lightning_nas.query.predictors.boosting import Boosting
from lightning_nas.query.predictors.dngo import DNGO
from lightning_nas.query.predictors.gates import GATES
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.gcn import GIN, GlobalGCN
from lightning_nas.query.predictors.lstm import LSTMPredictor
from lightning_nas.query.predictors.mlp import MLPEnsemble
from lightning_nas.query.predictors.nao import NAOPredictor, SemiNASPredictor
from lightning_nas.query.predictors.neural import NeuralPredictor
from lightning_nas.query.predictors.otmann import OTMANN
from lightning_nas.query.predictors.ranker import Ranker
from lightning_nas.query.predictors.weisfeiler_lehman import WeisfeilerLehman
from lightning_nas.query.searchers.bananas import BANANAS
from lightning_nas.spaces import Space

__all__ = ["LEARNERS", "LearnerParts"]


@dataclass(frozen=True)
class LearnerParts:
    """An encoding and a predictor.

    Args:
        encoder: Makes the encoder of a space.
        predictor: Makes the predictor for an encoder.
        iterative: Whether iterative selection is measured with it too.
        at_most: Architectures that are predicted, chosen at random, where all would take too long; ``None`` for all.
    """

    encoder: Callable[[Space], Encoder]
    predictor: Callable[[Encoder], Predictor]
    iterative: bool = False
    at_most: int | None = None


def _tokens(encoder: Encoder) -> int:
    return len(cast(TokenEncoder, encoder).vocabulary)


def _some(space: Space, number: int) -> list[Genotype]:
    rng = random.Random(0)  # noqa: S311
    return [space.sample(rng) for _ in range(number)]


def _kinds(encoder: Encoder) -> tuple[str, ...]:
    return cast(GraphEncoder, encoder).vocabulary


_FLAT: dict[str, Callable[[Space], Encoder]] = {
    "adjacency": AdjacencyEncoder,
    "ordinal adjacency": lambda space: AdjacencyEncoder(space, "ordinal"),
    "WL features": WLEncoder,
    "path": PathEncoder,
    "truncated path": lambda space: BANANAS(space).encoder,
    "arch2vec": Arch2Vec,
    "arch2vec, hardly pretrained": lambda space: Arch2Vec(space, number=10, passes=1),
}
_ON_FEATURES: dict[str, Callable[[Encoder], Predictor]] = {
    "MLP ensemble": lambda encoder: MLPEnsemble(),
    "DNGO": lambda encoder: DNGO(),
    "GP, Matern": lambda encoder: GaussianProcess(),
    "boosting": lambda encoder: Boosting(),
    "nearest neighbors": lambda encoder: NearestNeighbor(),
}

LEARNERS: dict[str, LearnerParts] = {
    f"{how} on {what}": LearnerParts(encoder, predictor, iterative=how == "MLP ensemble")
    for how, predictor in _ON_FEATURES.items()
    for what, encoder in _FLAT.items()
} | {
    "GP, WL": LearnerParts(
        lambda space: GraphEncoder(space, prune=True),
        lambda encoder: GaussianProcess(
            WeisfeilerLehman(), 20, 0.1, noise=(1e-5, 0.01), scale=False, target="log_error"
        ),
        iterative=True,
    ),
    "GP, OTMANN": LearnerParts(
        lambda space: GraphEncoder(space, prune=True),
        lambda encoder: GaussianProcess(OTMANN(_kinds(encoder))),
        at_most=500,
    ),
    "LSTM on tokens": LearnerParts(TokenEncoder, lambda encoder: LSTMPredictor(_tokens(encoder))),
    "SemiNAS on tokens": LearnerParts(
        TokenEncoder,
        lambda encoder: SemiNASPredictor(_tokens(encoder), cast(Tensor, encoder(_some(encoder.space, 1_000)))),
    ),
    "NAO on tokens": LearnerParts(TokenEncoder, lambda encoder: NAOPredictor(_tokens(encoder))),
    "Neural Predictor": LearnerParts(GraphEncoder, lambda encoder: NeuralPredictor(), iterative=True),
    "GCN, pairs, hinge": LearnerParts(GraphEncoder, lambda encoder: Ranker(), iterative=True),
    "GCN, pairs, BRP-NAS": LearnerParts(
        lambda space: GraphEncoder(space, prune=True),
        lambda encoder: Ranker(partial(GlobalGCN, width=128), "relation", batch=40),
        iterative=True,
    ),
    "GIN, pairs, logistic": LearnerParts(GraphEncoder, lambda encoder: Ranker(GIN, loss="bce"), iterative=True),
    "GATES": LearnerParts(GraphEncoder, lambda encoder: GATES(batch=16), iterative=True),
    "GCN, pruned graphs": LearnerParts(lambda space: GraphEncoder(space, prune=True), lambda encoder: Ranker()),
}
"""Name -> encoding and predictor."""
