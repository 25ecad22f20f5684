"""Search with the Neural Predictor: label some, regress, try the best of all others."""

from __future__ import annotations

from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.neural import NeuralPredictor
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space

__all__ = ["NeuralPredictorSearch"]


class NeuralPredictorSearch(PredictorSearch):
    """A graph network regresses the score of random architectures once; then those with the best predictions are tried.

    The published search on NAS-Bench-101 labels 172 and then 100 architectures, here it is 100 and 50: the same share.
    Asked for more, it learns from all labels and tries the next best. Large spaces are a random pool in each turn,
    where the published search predicts everything.

    Reference: Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020.

    Args:
        space: Name of a search space, or a space.
        initial: Random architectures at the start, the published `N`.
        batch: The best predictions tried then, the published `K`.
        width: Features of a vertex.
        passes: Passes over the labels.
        threshold: The score from which on architectures are good, if a classifier shall sort out the others first
            (published: 91 %); ``None`` for no classifier.
        quantile: The share of the labels instead that the classifier learns to sort out.
        pool: Candidates in a large space.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Example:
        >>> searcher = NeuralPredictorSearch("nasbench201", initial=2)
        >>> len(searcher.ask(5))  # then it waits for their scores
        2
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        initial: int = 100,
        batch: int = 50,
        width: int = 144,
        passes: int = 300,
        threshold: float | None = None,
        quantile: float | None = None,
        pool: int = 2_000,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder=GraphEncoder(space),
            predictor=NeuralPredictor(width, passes=passes, threshold=threshold, quantile=quantile),
            proposal=WholeSpace(pool=pool),
            initial=initial,
            batch=batch,
            budget=budget,
            seed=seed,
        )
