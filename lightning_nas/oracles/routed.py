"""One oracle for some trials, another for others."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nas.query.trial import Oracle, Result, Trial

__all__ = ["RoutedOracle"]


class RoutedOracle(Oracle):
    """Sends a trial to the oracle of its budget: a score without training for budget 0, real training above it.

    Args:
        oracles: The oracles.
        up_to: For each oracle but the last the largest budget that it answers, ascending; the last answers all others,
            and full training.

    Raises:
        ValueError: If the numbers do not fit, or the oracles know different spaces.

    Example:
        >>> from lightning_nas.oracles import FunctionOracle
        >>> cheap, dear = (FunctionOracle("nasbench201", lambda genotype, k=k: k) for k in (1.0, 2.0))
        >>> oracle = RoutedOracle([cheap, dear], up_to=[0])
        >>> import random
        >>> genotype = oracle.space.sample(random.Random(0))
        >>> [oracle(Trial(0, genotype, budget)).score for budget in (0, 3, None)]
        [1.0, 2.0, 2.0]
    """

    def __init__(self, oracles: Sequence[Oracle], up_to: Sequence[float]) -> None:
        if len(oracles) != len(up_to) + 1 or list(up_to) != sorted(set(up_to)):
            raise ValueError(f"{len(oracles)} oracles need {len(oracles) - 1} ascending budgets, not {list(up_to)}")
        names = {oracle.space.name for oracle in oracles}
        if len(names) > 1:
            raise ValueError(f"the oracles know different spaces, {sorted(names)}; give oracles of one space")
        self.space, self.oracles, self.up_to = oracles[0].space, tuple(oracles), tuple(up_to)

    def __call__(self, trial: Trial) -> Result:
        """The answer of the oracle in charge."""
        for oracle, limit in zip(self.oracles, self.up_to, strict=False):
            if trial.budget is not None and trial.budget <= limit:
                return oracle(trial)
        return self.oracles[-1](trial)
