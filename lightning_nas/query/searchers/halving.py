"""Successive halving: train many for a short time, the best of them for longer."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers.rungs import Rung, rungs
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["BracketSearch", "Finisher", "Sampler", "SuccessiveHalving", "UniformSampler"]


class Sampler(Protocol):
    """Where a multi-fidelity search takes its new genotypes from."""

    def __call__(self, rng: random.Random) -> Genotype:
        """A new genotype, all its randomness from `rng`."""
        ...

    def learn(self, trial: Trial, score: float) -> None:
        """Take note of the score of a trial at its budget; minus infinity if it failed."""
        ...

    def state(self) -> dict[str, Any]:
        """Its memory as plain values."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        ...


class UniformSampler:
    """Draws uniformly over the decisions and learns nothing.

    Args:
        space: The space.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def __call__(self, rng: random.Random) -> Genotype:  # noqa: D102
        return self.space.sample(rng)

    def learn(self, trial: Trial, score: float) -> None:
        """Nothing is learned."""

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to take back."""


class Finisher(NamedTuple):
    """A configuration that has finished a rung; in the order from the best to the worst, the older first in a tie.

    Args:
        loss: Minus its score.
        number: The trial.
        genotype: Its genotype.
    """

    loss: float
    number: int
    genotype: Genotype

    @classmethod
    def of(cls, result: Result) -> Finisher:
        """The finisher of a result."""
        return cls(-result.score, result.trial.number, result.trial.genotype)

    @property
    def order(self) -> tuple[float, int]:
        """What finishers are sorted by."""
        return self.loss, self.number

    def to_plain(self, space: Space) -> list[Any]:
        """Plain values, for checkpoints."""
        return [self.loss, self.number, space.format(self.genotype)]

    @classmethod
    def from_plain(cls, plain: Sequence[Any], space: Space) -> Finisher:
        """Read what `to_plain` wrote."""
        return cls(plain[0], plain[1], space.parse(plain[2]))


class BracketSearch(Searcher):
    """Runs brackets of successive halving one after another, in a circle without end.

    A rung starts when all trials of the rung below have been told: until then `propose` waits. The best of them go on,
    each as a trial that `continues` its trial below. A failed trial counts as the worst; if fewer succeed than the next
    rung has places, places stay empty, and if none does, the next bracket starts. Notes of a trial: its bracket
    (counted from 0, without end) and its rung.

    Args:
        space: Name of a search space, or a space.
        schedule: The brackets, each a sequence of rungs.
        sampler: Where the genotypes of the lowest rungs come from; ``None`` for uniform draws.
        seed: Seed of all draws.

    Raises:
        ValueError: If there is no bracket, or a rung has no place.
    """

    def __init__(
        self,
        space: str | Space,
        schedule: Sequence[Sequence[Rung]],
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        self.schedule = tuple(tuple(bracket) for bracket in schedule)
        if not self.schedule or any(not bracket or min(rung.n for rung in bracket) < 1 for bracket in self.schedule):
            raise ValueError(f"schedule={self.schedule}: give at least one bracket, and each rung at least one place")
        self.sampler: Sampler = UniformSampler(self.space) if sampler is None else sampler
        self.bracket, self.level = 0, 0
        self.started, self.failed = 0, 0  # trials on the present rung
        self.finishers: list[Finisher] = []  # those of them that have succeeded
        self.promoted: deque[Finisher] = deque()  # who is to start on it, best first

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs of the present bracket."""
        return self.schedule[self.bracket % len(self.schedule)]

    def propose(self) -> Trial | None:
        """A new genotype, or the next one to go on; ``None`` while a rung waits for its last results."""
        if self._waits_for_none() and self.started == len(self.finishers) + self.failed:
            self._advance()
        rung, note = self.rungs[self.level], {"bracket": self.bracket, "rung": self.level}
        if self.level == 0 and self.started < rung.n:
            self.started += 1
            return self.trial(self.sampler(self.rng), rung.budget, **note)
        if self.promoted:
            self.started += 1
            below = self.promoted.popleft()
            return self.trial(below.genotype, rung.budget, below.number, **note)
        return None

    def _waits_for_none(self) -> bool:
        """Whether every trial of the present rung has been started."""
        return not self.promoted and (self.level > 0 or self.started >= self.rungs[0].n)

    def _advance(self) -> None:
        """The next rung, or the first one of the next bracket."""
        ranked = sorted(self.finishers, key=lambda finisher: finisher.order)
        self.level += 1
        if self.level == len(self.rungs) or not ranked:
            self.bracket, self.level = self.bracket + 1, 0
        else:
            self.promoted.extend(ranked[: self.rungs[self.level].n])
        self.started, self.failed, self.finishers = 0, 0, []

    def observe(self, result: Result) -> None:  # noqa: D102
        self.finishers.append(Finisher.of(result))
        self.sampler.learn(result.trial, result.score)

    def observe_failure(self, result: Result) -> None:  # noqa: D102
        super().observe_failure(result)
        self.failed += 1
        self.sampler.learn(result.trial, float("-inf"))

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "place": [self.bracket, self.level, self.started, self.failed],
            "finishers": [finisher.to_plain(self.space) for finisher in self.finishers],
            "promoted": [finisher.to_plain(self.space) for finisher in self.promoted],
            "sampler": self.sampler.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.bracket, self.level, self.started, self.failed = state["place"]
        self.finishers = [Finisher.from_plain(plain, self.space) for plain in state["finishers"]]
        self.promoted = deque(Finisher.from_plain(plain, self.space) for plain in state["promoted"])
        self.sampler.load_state(state["sampler"])


class SuccessiveHalving(BracketSearch):
    r"""Trains `n` genotypes for a short time, and again and again the best in `eta` of them `eta` times as long.

    Rung `i` keeps :math:`\lfloor n \eta^{-i} \rfloor` genotypes at :math:`r \eta^i` epochs. After the top rung a new
    bracket starts with new genotypes.

    Reference: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    AISTATS 2016.

    Args:
        space: Name of a search space, or a space.
        n: Genotypes of a bracket.
        min_budget: Epochs on the lowest rung, `r`.
        max_budget: Epochs that no rung exceeds.
        eta: One in `eta` goes on.
        sampler: Where new genotypes come from; ``None`` for uniform draws.
        seed: Seed of all draws.

    Raises:
        ValueError: If budgets or `eta` are wrong, or `n` is so small that nobody would reach the top rung.

    Example:
        >>> searcher = SuccessiveHalving("nasbench201", n=9, min_budget=1, max_budget=9)
        >>> for _ in range(13):
        ...     (trial,) = searcher.ask()
        ...     searcher.tell([Result(trial, score=trial.number)])
        >>> trial.budget, trial.note["rung"], searcher.best.trial.number
        (9.0, 2, 12)
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        n: int = 27,
        min_budget: float = 4,
        max_budget: float = 108,
        eta: float = 3,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, (rungs(n, min_budget, max_budget, eta),), sampler, seed)
