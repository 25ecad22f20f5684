"""BRP-NAS: a binary relation predictor, and batches half of the best, half from the upper part."""

from __future__ import annotations

from functools import partial

from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.gcn import GlobalGCN
from lightning_nas.query.predictors.ranker import Ranker
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.query.searchers.predictor_search import PredictorSearch, TopAndRandom
from lightning_nas.spaces import Space

__all__ = ["BRPNAS"]


class BRPNAS(PredictorSearch):
    """Learn which of two architectures is better, try the best and some of the upper part, and so on.

    Of each batch one half is predicted best, the other is drawn from the best half of the candidates, in the next turn
    from the best quarter, and so on. The published network has 600 units and learns, from all pairs in batches of 64,
    at rate 3.5e-4 for 50 passes more in each turn, from the weights of the turn before. Here the width is 128 and each
    turn learns anew in 100 passes at rate 1e-3, from all pairs of 40 architectures in each step: seconds instead of
    minutes. The order is that of `BinaryRelation`, not of a sort by comparisons. Large spaces are a random pool in
    each turn, of 10 million in the publication.

    Reference: Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020.

    Args:
        space: Name of a search space, or a space.
        initial: Random architectures at the start.
        batch: Architectures of a turn; the published search has 100 labels after five turns, the start included.
        width: Features of a vertex.
        passes: Passes over the labels.
        pool: Candidates in a large space.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Example:
        >>> searcher = BRPNAS("nasbench201", initial=2)
        >>> len(searcher.ask(5))  # then it waits for their scores
        2
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        initial: int = 20,
        batch: int = 20,
        width: int = 128,
        passes: int = 100,
        pool: int = 2_000,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder=GraphEncoder(space, prune=True),
            predictor=Ranker(partial(GlobalGCN, width=width), "relation", batch=40, passes=passes),
            proposal=WholeSpace(pool=pool),
            choice=TopAndRandom(),
            initial=initial,
            batch=batch,
            budget=budget,
            seed=seed,
        )
