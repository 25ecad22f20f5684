"""BANANAS."""

from __future__ import annotations

from lightning_nas.query.acquisition import IndependentThompson
from lightning_nas.query.encoders.path import PathEncoder
from lightning_nas.query.predictors.mlp import Loss, MLPEnsemble
from lightning_nas.query.proposals import Mutants
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.operation_graph import operations
from lightning_nas.spaces.restricted import unrestricted

__all__ = ["BANANAS"]


class BANANAS(PredictorSearch):
    """An ensemble of perceptrons on paths, independent Thompson sampling, and mutants of the best as candidates.

    Reference: White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
    Architecture Search", AAAI 2021.

    Args:
        space: Name of a search space, or a space.
        length: Features kept of each block of paths; ``None`` for the published 30 in NAS-Bench-201, and elsewhere all
            paths of at most three operations (40 in NAS-Bench-101).
        mutants: Candidates of a turn.
        parents: Number of the best whose mutants they are. The published code takes 100 mutants of the best, and goes
            on with the next best while fewer than 100 of them are new.
        members: Members of the ensemble.
        passes: Passes of its training.
        loss: ``"mae"``, ``"mape"`` (published for DARTS, see `MLPEnsemble`) or ``"mse"``.
        bound: A score better than all others, for ``"mape"``; ``None`` for one that follows the labels.
        lr: Learning rate of the ensemble.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Example:
        >>> searcher = BANANAS("nasbench201", initial=4, passes=5)
        >>> searcher.ask()[0].number
        0
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        length: int | None = None,
        mutants: int = 100,
        parents: int = 10,
        members: int = 5,
        passes: int = 150,
        loss: Loss = "mae",
        bound: float | None = None,
        lr: float = 0.01,
        initial: int = 10,
        batch: int = 10,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        space = get_space(space)
        if length is None:
            number = len(operations(unrestricted(space)))
            length = 30 if space.name == "nasbench201" else sum(number**size for size in range(4))
        super().__init__(
            PathEncoder(space, length),
            MLPEnsemble(members, loss=loss, bound=bound, lr=lr, passes=passes),
            IndependentThompson(),
            Mutants(mutants, parents),
            initial,
            batch,
            budget=budget,
            seed=seed,
        )
