"""The base of all searchers: ask for trials, tell results, in a state of plain values."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.described import Described
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space, get_space

__all__ = ["Searcher"]


class Searcher(Described, ABC):
    """Proposes architectures and learns from how good they were.

    A searcher trains nothing and counts no budget; whoever runs it does. It is deterministic: the same seed and the
    same results told in the same order give the same proposals, also after `load_state_dict`. Trials may be asked
    before earlier ones are told. A failed trial counts as asked and is not learned from, unless a searcher says so.

    A subclass gives `propose` and `observe`, and, if it has any memory of its own, `state` and `load_state`; one that
    needs more than a score says by `objection` what it cannot use.

    Args:
        space: Name of a search space, or a space.
        seed: Seed of all its random choices.

    Attributes:
        asked: Number of trials asked so far.
        pending: Number of a trial -> the trials asked and not yet told.
        best: The result with the largest `worth`: the best score among those at the largest budget told so far.
        failures: Number of trials that came to nothing.
    """

    def __init__(self, space: str | Space, seed: int = 0) -> None:
        self.space = get_space(space)
        self.seed, self.rng = seed, random.Random(seed)  # noqa: S311
        self.asked = 0
        self.pending: dict[int, Trial] = {}
        self.best: Result | None = None
        self.failures = 0

    @abstractmethod
    def propose(self) -> Trial | None:
        """The next trial, made by `trial`; ``None`` to wait for the results of pending ones, or at the end."""

    @abstractmethod
    def observe(self, result: Result) -> None:
        """Learn from a result."""

    def observe_failure(self, result: Result) -> None:
        """Take note of a trial that came to nothing."""
        self.failures += 1

    def objection(self, result: Result) -> str | None:
        """Why this searcher cannot learn from a result that has a score; it counts as failed then."""
        return None

    def usable(self, result: Result) -> Result:
        """The result, or, where there is an `objection`, the failure that it counts as."""
        reason = self.objection(result) if result.ok else None
        return result if reason is None else replace(result, score=math.nan, error=reason)

    def worth(self, result: Result) -> tuple[float, ...]:
        """What makes a result better than another: a larger budget, then a better score."""
        budget = result.trial.budget
        return math.inf if budget is None else budget, result.score

    def trial(
        self, genotype: Genotype, budget: float | None = None, continues: int | None = None, **note: float | str
    ) -> Trial:
        """A trial with the next number."""
        return Trial(self.asked, genotype, budget, continues, note=note)

    def ask(self, n: int = 1) -> list[Trial]:
        """Up to `n` new trials; fewer, or none, if the searcher waits for results or has come to its end.

        Raises:
            ValueError: If `n` is not positive.
        """
        if n < 1:
            raise ValueError(f"ask(n={n}): at least one trial must be asked for")
        trials: list[Trial] = []
        while len(trials) < n and (trial := self.propose()) is not None:
            self.asked += 1
            self.pending[trial.number] = trial
            trials.append(trial)
        return trials

    def tell(self, results: Sequence[Result]) -> None:
        """Hand over results, each of a pending trial.

        Raises:
            ValueError: If a result is of no pending trial.
        """
        for result in results:
            if self.pending.get(result.trial.number) != result.trial:
                raise ValueError(
                    f"trial {result.trial.number} is not pending; tell the result of each trial that was asked once"
                )
            del self.pending[result.trial.number]
            usable = self.usable(result)
            if usable.ok:
                if self.best is None or self.worth(usable) > self.worth(self.best):
                    self.best = usable
                self.observe(usable)
            else:
                self.observe_failure(usable)

    def genotype(self) -> Genotype:
        """The best architecture so far: the best score at the largest budget told.

        Raises:
            ValueError: If no trial has succeeded yet.
        """
        if self.best is None:
            raise ValueError("the search has no successful trial yet")
        return self.best.trial.genotype

    def state(self) -> dict[str, Any]:
        """The subclass's own memory as plain values."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} remembers nothing, and the state has {sorted(state)}")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next proposals depend on, as plain values."""
        version, internal, gauss = self.rng.getstate()
        return {
            "rng": [version, list(internal), gauss],
            "asked": self.asked,
            "failures": self.failures,
            "pending": [trial.to_plain(self.space) for trial in self.pending.values()],
            "best": None if self.best is None else self.best.to_plain(self.space),
            "own": self.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the searcher that returned this state was."""
        version, internal, gauss = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss))
        self.asked, self.failures = state["asked"], state["failures"]
        pending = [Trial.from_plain(trial, self.space) for trial in state["pending"]]
        self.pending = {trial.number: trial for trial in pending}
        self.best = None if state["best"] is None else Result.from_plain(state["best"], self.space)
        self.load_state(state["own"])
