"""What travels between a searcher and an oracle: a trial there, a result back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.described import Described
from lightning_nas.spaces import Space

__all__ = ["Oracle", "Result", "Trial"]


@dataclass(frozen=True)
class Trial:
    """A question: how good is this genotype, at this budget?

    Args:
        number: Its place in the search; trials are numbered from 0 as they are asked.
        genotype: The architecture.
        budget: Epochs of training in all, those of the trial that it continues included; ``None`` for what the oracle
            takes as full training.
        continues: Number of an earlier trial, whose network this training goes on from: the same genotype at a smaller
            budget, or a relative that hands on its weights; ``None`` to start from scratch.
        trained: Epochs of the trial that it continues; whoever runs the search fills this in from its history.
        note: Whatever else the searcher wants to find again in the history (parent, rung, bracket), plain values.

    Example:
        >>> Trial(0, Genotype("toy", {"edge": (1,)}), budget=3.0).continues is None
        True
    """

    number: int
    genotype: Genotype
    budget: float | None = None
    continues: int | None = None
    trained: float = field(default=0.0, compare=False)
    note: Mapping[str, float | str] = field(default_factory=dict, compare=False)

    def to_plain(self, space: Space) -> dict[str, Any]:
        """Plain values, for checkpoints and histories."""
        text = space.format(self.genotype)
        plain = {"number": self.number, "genotype": text, "budget": self.budget, "continues": self.continues}
        return plain | {"note": dict(self.note)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], space: Space) -> Trial:
        """Read what `to_plain` wrote."""
        genotype = space.parse(plain["genotype"])
        return cls(plain["number"], genotype, plain["budget"], plain["continues"], note=dict(plain["note"]))

    def __reduce__(self) -> tuple[type[Trial], tuple[Any, ...]]:
        return Trial, (self.number, self.genotype, self.budget, self.continues, self.trained, dict(self.note))


@dataclass(frozen=True)
class Result:
    """An answer.

    Args:
        trial: The question.
        score: Validation accuracy in percent, or whatever the oracle maximises; NaN if the trial failed.
        cost: Seconds that this trial took beyond those of the trial it continues; simulated ones where a table says so.
        epochs: Epochs it was trained beyond those of the trial it continues.
        source: Where the score is from: ``"table"``, ``"training"``, ``"supernet"``, ``"zero-cost"``.
        test: Test accuracy, where the oracle has one; for reports, never for a searcher's choice.
        metrics: Further figures by name (latency, parameters), which a searcher with several objectives may use.
        error: Why the trial failed; ``None`` if it did not.

    Example:
        >>> trial = Trial(0, Genotype("toy", {"edge": (1,)}))
        >>> Result(trial, 91.0).ok, Result.failed(trial, "out of memory").ok
        (True, False)
    """

    trial: Trial
    score: float
    cost: float = 0.0
    epochs: float = 0.0
    source: str = "function"
    test: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a score."""
        return self.error is None and not math.isnan(self.score)

    @classmethod
    def failed(cls, trial: Trial, error: str, cost: float = 0.0) -> Result:
        """The result of a trial that came to nothing.

        Args:
            trial: The trial.
            error: Why, in a line.
            cost: Seconds lost.
        """
        return cls(trial, math.nan, cost, source="failed", error=error)

    def to_plain(self, space: Space) -> dict[str, Any]:
        """Plain values, for checkpoints and histories."""
        own = {"score": self.score, "cost": self.cost, "epochs": self.epochs, "source": self.source}
        own |= {"test": self.test, "metrics": dict(self.metrics), "error": self.error}
        return {"trial": self.trial.to_plain(space)} | own

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], space: Space) -> Result:
        """Read what `to_plain` wrote."""
        rest = {name: value for name, value in plain.items() if name != "trial"}
        return cls(Trial.from_plain(plain["trial"], space), **rest)

    def __reduce__(self) -> tuple[Any, ...]:
        metrics = dict(self.metrics)
        return Result, (
            self.trial,
            self.score,
            self.cost,
            self.epochs,
            self.source,
            self.test,
            metrics,
            self.error,
        )


class Oracle(Described, ABC):
    """Whatever tells how good a genotype is.

    An oracle for other processes must be one that pickles. Whatever it raises becomes a failed trial, and so does an
    answer that is no `Result` of the trial in plain numbers; only seconds may be unknown (NaN).

    Attributes:
        space: The space whose genotypes it knows.
    """

    space: Space

    @abstractmethod
    def __call__(self, trial: Trial) -> Result:
        """Answer a trial."""
