"""MetaQNN: plain networks layer by layer, by tabular Q-learning."""

from __future__ import annotations

from lightning_nas.query.searchers.q_learning import QLearning
from lightning_nas.spaces import Space
from lightning_nas.spaces.metaqnn import MetaQNNSpace

__all__ = ["META_QNN_SCHEDULE", "MetaQNN"]

META_QNN_SCHEDULE = (
    (1.0, 1500),
    *((round(0.1 * tenths, 1), 100) for tenths in (9, 8, 7)),
    *((round(0.1 * tenths, 1), 150) for tenths in (6, 5, 4, 3, 2, 1)),
)
"""Epsilon and its number of architectures."""


class MetaQNN(QLearning):
    """Tabular Q-learning; the reward is the accuracy, at the end of the episode.

    After every result 128 of all results are replayed. What is not known is worth 0.5, a bit less than an average
    network.

    Reference: Baker, Gupta, Naik and Raskar, "Designing Neural Network Architectures using Reinforcement Learning",
    ICLR 2017.

    Args:
        space: A `SequentialSpace`, or the name of one; ``None`` for `MetaQNNSpace`.
        schedule: Epsilon and its number of architectures, stage by stage.
        alpha: Step size of the table.
        start: Value of what is not known.
        replays: Sweeps after each result.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Example:
        >>> searcher = MetaQNN(seed=1)
        >>> [trial.note["epsilon"] for trial in searcher.ask(2)], searcher.epsilon.total
        ([1.0, 1.0], 2700)
    """

    def __init__(
        self,
        space: str | Space | None = None,
        schedule: tuple[tuple[float, int], ...] = META_QNN_SCHEDULE,
        alpha: float = 0.01,
        start: float = 0.5,
        replays: int = 128,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        own = MetaQNNSpace() if space is None else space
        super().__init__(own, schedule, alpha, 1.0, start, replays, batch=1, shaped=False, budget=budget, seed=seed)
