"""Bayesian optimisation on embeddings that are learned without scores."""

from __future__ import annotations

from pathlib import Path

from lightning_nas.query.acquisition import ExpectedImprovement
from lightning_nas.query.encoders.arch2vec import Arch2Vec
from lightning_nas.query.predictors.dngo import DNGO
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space

__all__ = ["Arch2VecBO"]


class Arch2VecBO(PredictorSearch):
    """DNGO on embeddings of an autoencoder of random architectures, expected improvement over the whole space.

    The improvement is over the best score so far (the published code takes a fixed target), and the uncertainty is
    the standard deviation (it takes the variance). In a large space the candidates are a random pool.

    Reference: Yan, Zheng, Ao, Zeng and Zhang, "Does Unsupervised Architecture Representation Learning Help Neural
    Architecture Search?", NeurIPS 2020.

    Args:
        space: Name of a search space, or a space.
        number: Random architectures that the autoencoder learns from.
        pretraining: Passes over them.
        size: Length of the embedding.
        pretraining_seed: Seed of the autoencoder, so that searches with different seeds may share it.
        file: Where the autoencoder's weights are kept; ``None`` for nowhere.
        pool: Candidates in a space too large to be listed.
        passes: Passes of the training of the predictor.
        minibatch: Labels of each of its steps. The published 10 takes twice the time of a search.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices of the search.

    Example:
        >>> searcher = Arch2VecBO("nasbench201", initial=4, passes=5)
        >>> searcher.ask()[0].number
        0
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        number: int = 5000,
        pretraining: int = 8,
        size: int = 16,
        pretraining_seed: int = 0,
        file: str | Path | None = None,
        pool: int = 2000,
        passes: int = 100,
        minibatch: int = 32,
        initial: int = 16,
        batch: int = 5,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            Arch2Vec(space, number, pretraining, size, seed=pretraining_seed, file=file),
            DNGO(passes=passes, batch=minibatch),
            ExpectedImprovement(),
            WholeSpace(pool=pool),
            initial,
            batch,
            budget=budget,
            seed=seed,
        )
