"""NAS-BOWL as parts of the search with a predictor."""

from __future__ import annotations

from lightning_nas.query.acquisition import ExpectedImprovement
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.weisfeiler_lehman import WeisfeilerLehman
from lightning_nas.query.proposals import Mixture, Mutants, RandomPool
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space

__all__ = ["NASBOWL"]


class NASBOWL(PredictorSearch):
    """A Gaussian process of the logarithm of the error on Weisfeiler-Lehman features of pruned graphs.

    Candidates of a turn are mutants of the ten best architectures and random ones, half and half. Expected improvement
    is on the scale of scores, see `GaussianProcess`. Scores are percent. In NAS-Bench-201 the published candidates are
    all mutants. For NAS-Bench-101 the publication has also a variant of the kernel that assigns vertices to each other;
    here it is the same kernel in all spaces.

    Reference: Ru et al., "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
    Kernels", ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        pool: Candidates of a turn, at least 2.
        steps: Steps of Adam at each fit.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Raises:
        ValueError: If a number is not positive, or `pool` is less than 2.

    Example:
        >>> NASBOWL("nasbench201").ask()[0].genotype.space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        pool: int = 200,
        steps: int = 20,
        initial: int = 10,
        batch: int = 5,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        if pool < 2:
            raise ValueError(f"pool={pool}: one half are mutants and one half random; give at least 2")
        process = GaussianProcess(WeisfeilerLehman(), steps, 0.1, noise=(1e-5, 0.01), scale=False, target="log_error")
        proposal = Mixture(Mutants(pool - pool // 2, parents=10), RandomPool(pool // 2))
        encoder = GraphEncoder(space, prune=True)
        super().__init__(encoder, process, ExpectedImprovement(), proposal, initial, batch, budget=budget, seed=seed)
