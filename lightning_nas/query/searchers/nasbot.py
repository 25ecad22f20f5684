"""NASBOT as parts of the search with a predictor."""

from __future__ import annotations

from lightning_nas.query.acquisition import ExpectedImprovement
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.otmann import OTMANN
from lightning_nas.query.proposals import Mutants
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space

__all__ = ["NASBOT"]

_EDITS = (0.5, 0.25, 0.125, 0.075, 0.05)


class NASBOT(PredictorSearch):
    """A Gaussian process on optimal-transport distances, expected improvement, mutants of one to five edits.

    The published method improves the acquisition by an evolution of its own; here it is rated on one pool of mutants.
    Every vertex has mass 1 here, inputs and outputs too, as cells have no channel numbers; published are the products
    of units, and for inputs and outputs a tenth of the mass of all layers that compute.

    Reference: Kandasamy et al., "Neural Architecture Search with Bayesian Optimisation and Optimal Transport", NeurIPS
    2018.

    Args:
        space: Name of a search space, or a space.
        pool: Candidates of a turn.
        parents: Number of the best architectures that are mutated.
        steps: Steps of Adam at each fit.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Example:
        >>> NASBOT("nasbench201").ask()[0].genotype.space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        pool: int = 200,
        parents: int = 10,
        steps: int = 50,
        initial: int = 10,
        batch: int = 10,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        encoder = GraphEncoder(space, prune=True)
        process = GaussianProcess(OTMANN(encoder.vocabulary), steps)
        proposal = Mutants(pool, parents, _EDITS)
        super().__init__(encoder, process, ExpectedImprovement(), proposal, initial, batch, budget=budget, seed=seed)
