"""Hyperband."""

from __future__ import annotations

from lightning_nas.query.searchers.halving import BracketSearch, Sampler
from lightning_nas.query.searchers.rungs import BracketRule, brackets
from lightning_nas.spaces import Space

__all__ = ["Hyperband"]


class Hyperband(BracketSearch):
    """Successive halving with every compromise between many short trials and few long ones.

    Runs the brackets of `rungs.brackets`, the most aggressive first, and starts over after the last.

    Reference: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization", JMLR 2018.

    Args:
        space: Name of a search space, or a space.
        min_budget: Epochs that no rung goes below.
        max_budget: Epochs on the top rungs.
        eta: One in `eta` goes on.
        rule: How the sizes of the brackets are rounded: as published, or as in the code of BOHB.
        sampler: Where new genotypes come from; ``None`` for uniform draws.
        seed: Seed of all draws.

    Raises:
        ValueError: If the budgets are wrong or the rule is unknown.

    Example:
        >>> searcher = Hyperband("nasbench201", min_budget=1, max_budget=9)
        >>> [[rung.n for rung in bracket] for bracket in searcher.schedule]
        [[9, 3, 1], [5, 1], [3]]
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        min_budget: float = 4,
        max_budget: float = 108,
        eta: float = 3,
        rule: BracketRule = "hyperband",
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, brackets(min_budget, max_budget, eta, rule), sampler, seed)
