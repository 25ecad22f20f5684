"""BlockQNN: blocks by tabular Q-learning with shaped rewards."""

from __future__ import annotations

import math

from lightning_nas.query.searchers.q_learning import QLearning
from lightning_nas.query.trial import Result
from lightning_nas.spaces import Space
from lightning_nas.spaces.blockqnn import BlockQNNSpace

__all__ = ["BLOCK_QNN_SCHEDULE", "BlockQNN"]

_ITERATIONS = (95, 7, 7, 7, 10, 10, 10, 10, 10, 12)

BLOCK_QNN_SCHEDULE = tuple((round(1 - 0.1 * k, 1), 64 * count) for k, count in enumerate(_ITERATIONS))
"""Epsilon and its number of architectures: 178 iterations of 64 blocks."""


class BlockQNN(QLearning):
    r"""Tabular Q-learning in which each layer of a block of `T` gets a `T`-th of the reward.

    After every 64 results, 64 of all results are replayed. The reward of a block that is trained for a few epochs is
    corrected for what it would come to: :math:`(acc - \mu \log FLOPs - \rho \log density) / 100` with the accuracy in
    percent and the density in edges by layers. The FLOPs are the metric ``"flops"`` of a result; without it, and in
    spaces without a density, that term is left out. The published text gives no value of what is not known; it is zero.

    Reference: Zhong, Yan, Wu, Shao and Liu, "Practical Block-wise Neural Network Architecture Generation", CVPR 2018.

    Args:
        space: A `SequentialSpace`, or the name of one; ``None`` for `BlockQNNSpace`.
        schedule: Epsilon and its number of architectures, stage by stage.
        alpha: Step size of the table.
        replays: Sweeps after each batch.
        batch: Results of a batch.
        mu: Weight of the logarithm of the FLOPs.
        rho: Weight of the logarithm of the density.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If a weight is negative.

    Example:
        >>> searcher = BlockQNN()
        >>> searcher.epsilon.total, searcher.epsilon(95 * 64 - 1), searcher.epsilon(95 * 64)
        (11392, 1.0, 0.9)
    """

    def __init__(
        self,
        space: str | Space | None = None,
        schedule: tuple[tuple[float, int], ...] = BLOCK_QNN_SCHEDULE,
        alpha: float = 0.01,
        replays: int = 64,
        batch: int = 64,
        mu: float = 1.0,
        rho: float = 8.0,
        budget: float | None = 12.0,
        seed: int = 0,
    ) -> None:
        if mu < 0 or rho < 0:
            raise ValueError(f"mu={mu}, rho={rho}: give weights that are not negative")
        own = BlockQNNSpace() if space is None else space
        super().__init__(own, schedule, alpha, 1.0, 0.0, replays, batch, shaped=True, budget=budget, seed=seed)
        self.mu, self.rho = mu, rho

    def objection(self, result: Result) -> str | None:
        """FLOPs that have no logarithm."""
        flops = result.metrics.get("flops", 1.0)
        return None if math.isfinite(flops) and flops > 0 else f"the metric 'flops' is {flops}; it must be positive"

    def reward(self, result: Result) -> float:
        """The corrected accuracy as a fraction."""
        value = result.score
        if "flops" in result.metrics:
            value -= self.mu * math.log(result.metrics["flops"])
        if isinstance(self.space, BlockQNNSpace):
            value -= self.rho * math.log(self.space.density(result.trial.genotype))
        return value / 100
