"""What searches with a recurrent controller share: children drawn and learned from in batches."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers.lstm_policy import LSTMPolicy
from lightning_nas.query.searchers.policies import Draw, EMABaseline
from lightning_nas.query.trial import Result, Trial

__all__ = ["Child", "ControllerSearch"]


class Child(NamedTuple):
    """A draw, and what the policy that drew it thought of it.

    Args:
        draw: The draw.
        log_prob: Log-probability of each decision at that time.
    """

    draw: Draw
    log_prob: list[float]


class ControllerSearch(Searcher):
    """A policy draws children and learns from `batch` results at a time.

    All children of a batch are of one policy unless more are pending at once; those that nobody has asked for are
    forgotten when the policy has learned. Each reward is taken into the baseline before its advantage is measured. A
    draw that is no genotype of the space is drawn again at no cost, up to 1000 times; then a sample of the space takes
    its place. Failed trials are not learned from.

    Args:
        policy: The policy.
        baseline: The baseline.
        lr: Learning rate of Adam.
        batch: Results for an update.
        epochs: Steps of the optimizer in an update.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of what the policy does not draw.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        policy: LSTMPolicy,
        baseline: EMABaseline,
        lr: float,
        batch: int,
        epochs: int = 1,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(policy.agenda.space, seed)
        if lr <= 0 or batch < 1 or epochs < 1:
            raise ValueError(f"lr={lr}, batch={batch}, epochs={epochs}: all must be positive")
        self.policy, self.baseline, self.batch, self.epochs, self.budget = policy, baseline, batch, epochs, budget
        self.optimizer = torch.optim.Adam(policy.parameters(), lr, fused=True)
        self.queue: deque[Child] = deque()
        self.drawn: dict[int, Child] = {}
        self.told: list[tuple[Child, float]] = []

    @abstractmethod
    def loss(self, log_prob: Tensor, entropy: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        """What an update descends.

        Args:
            log_prob: Of each decision, ``(batch, decisions)``.
            entropy: Of each decision, of the same shape.
            old: The log-probabilities when the children were drawn.
            advantage: Of each child, ``(batch,)``.
        """

    def reward(self, result: Result) -> float:
        """The score as a fraction of a hundred."""
        return result.score / 100

    def fixed(self) -> dict[str, int]:
        """Decisions that are not the policy's, with their choices now."""
        return {}

    def propose(self) -> Trial:
        """The next child of the batch."""
        if not self.queue:
            self._fill()
        child = self.queue.popleft()
        self.drawn[self.asked] = child
        genotype = self.policy.agenda.genotype(child.draw)
        if genotype is None:
            raise RuntimeError("a child in the queue is no genotype")
        return self.trial(genotype, self.budget)

    def _fill(self) -> None:
        """Draw children until one of them is a genotype."""
        agenda, draws = self.policy.agenda, list[Draw]()
        for _ in range(-(-1000 // self.batch)):
            draws = [draw for draw in self.policy.draw(self.batch, self.fixed()) if agenda.genotype(draw) is not None]
            if draws:
                break
        draws = draws or [agenda.draw_of(self.space.sample(self.rng))]
        with torch.no_grad():
            log_prob, _ = self.policy(draws)
        self.queue.extend(map(Child, draws, log_prob.tolist()))

    def observe(self, result: Result) -> None:
        """An update when a batch is complete."""
        self.told.append((self.drawn.pop(result.trial.number), self.reward(result)))
        if len(self.told) == self.batch:
            self._learn()

    def observe_failure(self, result: Result) -> None:  # noqa: D102
        super().observe_failure(result)
        self.drawn.pop(result.trial.number)

    def _learn(self) -> None:
        advantage = torch.tensor([self.baseline.advantage(reward) for _, reward in self.told])
        draws, old = [child.draw for child, _ in self.told], torch.tensor([child.log_prob for child, _ in self.told])
        for _ in range(self.epochs):
            self.optimizer.zero_grad()
            with torch.enable_grad():
                log_prob, entropy = self.policy(draws)
                self.loss(log_prob, entropy, old, advantage).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self.told.clear()
        self.queue.clear()

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "policy": {name: value.clone() for name, value in self.policy.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.policy.generator.get_state(),
            "baseline": self.baseline.state(),
            "queue": [_plain(child) for child in self.queue],
            "drawn": [[number, _plain(child)] for number, child in self.drawn.items()],
            "told": [[_plain(child), reward] for child, reward in self.told],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.policy.generator.set_state(state["generator"])
        self.baseline.load_state(state["baseline"])
        self.queue = deque(map(_child, state["queue"]))
        self.drawn = {number: _child(plain) for number, plain in state["drawn"]}
        self.told = [(_child(plain), reward) for plain, reward in state["told"]]


def _plain(child: Child) -> list[list[Any]]:
    return [[list(kept) for kept in child.draw], child.log_prob]


def _child(plain: list[list[Any]]) -> Child:
    draw, log_prob = plain
    return Child(tuple(map(tuple, draw)), log_prob)
