"""Tabular Q-learning with experience replay in spaces whose decisions are taken one after another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space
from lightning_nas.spaces.sequential import SequentialSpace

__all__ = ["EpsilonSchedule", "QLearning", "QTable", "Step"]


class Step(NamedTuple):
    """One action of an episode.

    Args:
        state: Where it was taken.
        action: The action.
        actions: All that were allowed there.
    """

    state: str
    action: int
    actions: tuple[int, ...]


class QTable:
    r"""Values of actions by state, moved towards the reward and the value of the next state.

    .. math::
        Q(s, a) \leftarrow Q(s, a) + \alpha (r + \gamma \max_{a'} Q(s', a') - Q(s, a))

    Reference: Watkins and Dayan, "Q-learning", Machine Learning 1992.

    Args:
        alpha: Step size.
        gamma: Discount.
        start: Value of what has never been updated.

    Raises:
        ValueError: If `alpha` or `gamma` is not in ``[0, 1]``, or `alpha` is zero.

    Example:
        >>> table = QTable(alpha=1.0, start=0.5)
        >>> table.sweep([Step("a", 0, (0, 1)), Step("b", 1, (0, 1))], [0.0, 0.9])
        >>> table.value("b", 1), table.value("a", 0), table.value("a", 1)
        (0.9, 0.9, 0.5)
    """

    def __init__(self, alpha: float = 0.01, gamma: float = 1.0, start: float = 0.0) -> None:
        if not 0 < alpha <= 1 or not 0 <= gamma <= 1:
            raise ValueError(f"alpha={alpha}, gamma={gamma}: give 0 < alpha <= 1 and 0 <= gamma <= 1")
        self.alpha, self.gamma, self.start = alpha, gamma, start
        self.values: dict[str, dict[int, float]] = {}

    def value(self, state: str, action: int) -> float:
        """The value of an action."""
        return self.values.get(state, {}).get(action, self.start)

    def best(self, state: str, actions: Sequence[int]) -> float:
        """The value of the best of some actions."""
        known = self.values.get(state)
        return self.start if known is None else max(known.get(action, self.start) for action in actions)

    def greedy(self, state: str, actions: Sequence[int], rng: random.Random) -> int:
        """A best action; one at random where several are."""
        best = self.best(state, actions)
        return rng.choice([action for action in actions if self.value(state, action) == best])

    def sweep(self, episode: Sequence[Step], rewards: Sequence[float]) -> None:
        """Update every action of an episode, the last one first, so that its reward reaches the first in one sweep.

        Args:
            episode: The actions; behind the last is the end, whose value is zero.
            rewards: The reward of each.
        """
        future = 0.0
        for step, reward in zip(reversed(episode), reversed(rewards), strict=True):
            old = self.value(step.state, step.action)
            new = old + self.alpha * (reward + self.gamma * future - old)
            self.values.setdefault(step.state, {})[step.action] = new
            future = self.best(step.state, step.actions)


class EpsilonSchedule:
    """The share of random actions, by the number of architectures proposed so far.

    Args:
        stages: ``(epsilon, architectures)`` one after another; the last epsilon stays.

    Raises:
        ValueError: If there are no stages, an epsilon is not in ``[0, 1]`` or a number is not positive.

    Example:
        >>> schedule = EpsilonSchedule([(1.0, 10), (0.5, 5), (0.1, 5)])
        >>> [schedule(n) for n in (0, 9, 10, 14, 15, 99)], schedule.total
        ([1.0, 1.0, 0.5, 0.5, 0.1, 0.1], 20)
    """

    def __init__(self, stages: Sequence[tuple[float, int]]) -> None:
        if not stages or any(not 0 <= epsilon <= 1 or count < 1 for epsilon, count in stages):
            raise ValueError(f"schedule={list(stages)}: give pairs of an epsilon in [0, 1] and a positive number")
        self.epsilons = [epsilon for epsilon, _ in stages]
        self.ends = list(accumulate(count for _, count in stages))

    @property
    def total(self) -> int:
        """Architectures of all stages."""
        return self.ends[-1]

    def __call__(self, count: int) -> float:
        """Epsilon when `count` architectures have been proposed."""
        return next((e for e, end in zip(self.epsilons, self.ends, strict=True) if count < end), self.epsilons[-1])


class QLearning(Searcher):
    """Decisions are actions; each is random with probability epsilon and the best in the table otherwise.

    After every `batch` results, `replays` of all results so far are drawn with replacement, and each updates the table
    in one reversed sweep. An architecture that was proposed before is drawn again at no cost, up to 100 times; epsilon
    goes by the number of different ones. Failed trials are not learned from.

    Args:
        space: A `SequentialSpace`, or the name of one; its `state` gives the states of the table.
        schedule: Epsilon by the number of architectures.
        alpha: Step size of the table.
        gamma: Discount.
        start: Value of what is not known.
        replays: Sweeps after each batch.
        batch: Results of a batch.
        shaped: Whether each action of an episode of `T` gets a `T`-th of the reward, and not the last one all of it.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If a number is out of its range, or the space is not sequential.

    Example:
        >>> from lightning_nas.spaces.blockqnn import BlockQNNSpace
        >>> searcher = QLearning(BlockQNNSpace(4), [(1.0, 5), (0.1, 5)], alpha=0.1, replays=10)
        >>> for trial in searcher.ask(8):
        ...     searcher.tell([Result(trial, score=100.0 * ("add" in searcher.space.format(trial.genotype)))])
        >>> [trial.note["epsilon"] for trial in searcher.ask(2)]
        [0.1, 0.1]
    """

    def __init__(
        self,
        space: str | Space,
        schedule: Sequence[tuple[float, int]],
        alpha: float = 0.01,
        gamma: float = 1.0,
        start: float = 0.5,
        replays: int = 128,
        batch: int = 1,
        shaped: bool = False,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if replays < 1 or batch < 1:
            raise ValueError(f"replays={replays}, batch={batch}: both must be positive")
        if not isinstance(self.space, SequentialSpace):
            raise ValueError(
                f"space {self.space.name!r} is not sequential; give a SequentialSpace such as MetaQNNSpace()"
            )
        self.sequence = self.space
        self.epsilon, self.table = EpsilonSchedule(schedule), QTable(alpha, gamma, start)
        self.replays, self.batch, self.shaped, self.budget = replays, batch, shaped, budget
        self.seen: dict[Genotype, None] = {}
        self.memory: list[tuple[Genotype, list[Step], float]] = []

    def reward(self, result: Result) -> float:
        """What an episode is worth: the score as a fraction of a hundred."""
        return result.score / 100

    def propose(self) -> Trial:
        """A walk through the decisions."""
        epsilon = self.epsilon(len(self.seen))
        genotype = self._walk(epsilon)
        for _ in range(100):
            if genotype not in self.seen:
                break
            genotype = self._walk(epsilon)
        self.seen[genotype] = None
        return self.trial(genotype, self.budget, epsilon=epsilon)

    def _walk(self, epsilon: float) -> Genotype:
        picks: dict[str, tuple[int, ...]] = {}
        for name in self.sequence.order:
            if actions := self.sequence.allowed(name, picks):
                if self.rng.random() < epsilon:
                    action = self.rng.choice(actions)
                else:
                    action = self.table.greedy(self.sequence.state(name, picks), actions, self.rng)
                picks[name] = (action,)
        return Genotype(self.space.name, picks)

    def episode(self, genotype: Genotype) -> list[Step]:
        """The actions that lead to a genotype."""
        picks: dict[str, tuple[int, ...]] = {}
        steps = []
        for name in self.sequence.order:
            if name in genotype.picks:
                actions = self.sequence.allowed(name, picks)
                steps.append(Step(self.sequence.state(name, picks), genotype.picks[name][0], actions))
                picks[name] = genotype.picks[name]
        return steps

    def observe(self, result: Result) -> None:
        """Keep it; replay when a batch is complete."""
        genotype = result.trial.genotype
        self.memory.append((genotype, self.episode(genotype), self.reward(result)))
        if len(self.memory) % self.batch == 0:
            for _, episode, reward in self.rng.choices(self.memory, k=self.replays):
                count = len(episode)
                rewards = [reward / count] * count if self.shaped else [0.0] * (count - 1) + [reward]
                self.table.sweep(episode, rewards)

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "table": {state: dict(values) for state, values in self.table.values.items()},
            "seen": [self.space.format(genotype) for genotype in self.seen],
            "memory": [[self.space.format(genotype), reward] for genotype, _, reward in self.memory],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.table.values = {name: dict(values) for name, values in state["table"].items()}
        self.seen = {self.space.parse(text): None for text in state["seen"]}
        known = [(self.space.parse(text), reward) for text, reward in state["memory"]]
        self.memory = [(genotype, self.episode(genotype), reward) for genotype, reward in known]
