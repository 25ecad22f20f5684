"""A function as an oracle."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_nas.arch import Genotype
from lightning_nas.query.trial import Oracle, Result, Trial
from lightning_nas.spaces import Space, get_space

__all__ = ["FunctionOracle"]


class FunctionOracle(Oracle):
    """Any function from a genotype to a number that is to be large.

    Args:
        space: Name of a search space, or a space.
        function: The function; it takes a genotype, and the budget too if `budgets`.
        budgets: Whether the function takes the budget as its second argument.

    Example:
        >>> from lightning_nas.query import Evaluator, RandomSearch
        >>> oracle = FunctionOracle("nasbench201", lambda genotype: sum(k for k, in genotype.picks.values()))
        >>> searcher, evaluator = RandomSearch("nasbench201"), Evaluator(oracle)
        >>> results = [evaluator.step(searcher) for _ in range(20)]
        >>> max(result.score for result in results) == oracle.function(searcher.genotype())
        True
    """

    def __init__(self, space: str | Space, function: Callable[..., float], budgets: bool = False) -> None:
        self.space, self.function, self.budgets = get_space(space), function, budgets

    def __call__(self, trial: Trial) -> Result:
        """The function's value; the cost is the time it takes."""
        start = time.perf_counter()
        arguments: tuple[Genotype, float | None] | tuple[Genotype] = (trial.genotype,)
        if self.budgets:
            arguments = (trial.genotype, trial.budget)
        score = float(self.function(*arguments))
        return Result(trial, score, time.perf_counter() - start, epochs=(trial.budget or 0.0) - trial.trained)
