"""Ends trials whose learning curve is not going to beat the best."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers.curves import extrapolate
from lightning_nas.query.trial import Result, Trial

__all__ = ["CurveExtrapolation"]


@dataclass
class _Course:
    """A trial of the inner searcher on its way, in several trials of ours."""

    inner: int  # number of the inner trial
    points: list[tuple[float, float]]  # epochs and score at each check
    start: float = 0.0  # epochs before the first of them
    last: int | None = None  # our latest trial that ended, or the one that the first is to continue
    cost: float = 0.0
    epochs: float = 0.0

    @property
    def trained(self) -> float:
        """Epochs so far."""
        return self.points[-1][0] if self.points else self.start

    def to_plain(self) -> list[Any]:
        return [self.inner, [list(point) for point in self.points], self.start, self.last, self.cost, self.epochs]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> _Course:
        return cls(plain[0], [(epochs, score) for epochs, score in plain[1]], *plain[2:])


class CurveExtrapolation(Searcher):
    r"""Any searcher, whose trials end early if their learning curve is unlikely to beat the best.

    Each trial of the inner searcher becomes trials of `period`, 2 `period`, ... epochs, each of which `continues` the
    one before. After each, the curve of scores is extrapolated to the end; if
    :math:`P(y(T) > y_{best} \mid \text{curve})` is below the threshold, the trial ends and the inner searcher is told
    the expected final score. Otherwise it goes on, to the full budget. :math:`y_{best}` is the best score measured at
    the full budget; until there is one nobody is stopped. Curves that have been begun go on before new ones start.

    The inner searcher's own budgets, if it has any, take the place of `epochs`, and a trial of its that continues
    another one of the same genotype inherits its curve. Note of a trial: the number of the inner trial.

    Reference: Domhan, Springenberg and Hutter, "Speeding Up Automatic Hyperparameter Optimization of Deep Neural
    Networks by Extrapolation of Learning Curves", IJCAI 2015. How the curve is extrapolated differs from there:
    see `curves.extrapolate`.

    Args:
        inner: The searcher, fresh; it must not be asked or told by anybody else.
        epochs: Epochs `T` of full training.
        period: Epochs from one check to the next.
        threshold: Probability below which a trial ends.
        warmup: No trial ends before it has been checked so many times.
        perfect: The score of a faultless network, by which scores are divided.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> from lightning_nas.query.searchers.random_search import RandomSearch
        >>> searcher = CurveExtrapolation(RandomSearch("nasbench201"), epochs=12, period=4)
        >>> budgets = []
        >>> for _ in range(4):
        ...     (trial,) = searcher.ask()
        ...     searcher.tell([Result(trial, score=80 + trial.budget)])
        ...     budgets.append((trial.budget, trial.continues))
        >>> budgets
        [(4.0, None), (8.0, 0), (12.0, 1), (4.0, None)]
    """

    def __init__(
        self,
        inner: Searcher,
        epochs: float,
        period: float,
        threshold: float = 0.05,
        warmup: int = 4,
        perfect: float = 100.0,
    ) -> None:
        if not 0 < period <= epochs or not 0 <= threshold <= 1 or warmup < 1 or not perfect > 0:
            raise ValueError(
                f"epochs={epochs}, period={period}, threshold={threshold}, warmup={warmup}, perfect={perfect}: the"
                " period must be positive and at most the epochs, the threshold from 0 to 1, warmup at least 1 and"
                " perfect positive"
            )
        super().__init__(inner.space, inner.seed)
        self.inner, self.epochs, self.period = inner, float(epochs), float(period)
        self.threshold, self.warmup, self.perfect = threshold, warmup, perfect
        self.stopped = 0
        self._ready: deque[_Course] = deque()
        self._running: dict[int, _Course] = {}  # by the number of our trial
        self._ended: dict[int, tuple[_Course, Genotype]] = {}  # by the number of the inner trial
        self._bests: dict[float, float] = {}  # full budget -> best score there

    def propose(self) -> Trial | None:
        """The next part of a course that has been begun, or the first one of a new one."""
        if self._ready:
            course = self._ready.popleft()
        else:
            asked = self.inner.ask()
            if not asked:
                return None
            course = self._begin(asked[0])
        inner = self.inner.pending[course.inner]
        checks = int(course.trained / self.period + 1e-9) + 1
        budget = min(checks * self.period, self._full(inner))
        self._running[self.asked] = course
        return self.trial(inner.genotype, budget, course.last, inner=course.inner)

    def _full(self, inner: Trial) -> float:
        return self.epochs if inner.budget is None else inner.budget

    def _begin(self, inner: Trial) -> _Course:
        """The course of a new inner trial, with the curve of the one that it continues."""
        if inner.continues is None:
            return _Course(inner.number, [])
        before, genotype = self._ended[inner.continues]
        points = list(before.points) if genotype == inner.genotype else []
        return _Course(inner.number, points, before.trained, before.last)

    def observe(self, result: Result) -> None:
        """Go on, or tell the inner searcher what the trial has come to or is going to come to."""
        course = self._running.pop(result.trial.number)
        inner = self.inner.pending[course.inner]
        full, budget = self._full(inner), result.trial.budget or 0.0
        course.points.append((budget, result.score))
        course.last = result.trial.number
        course.cost, course.epochs = course.cost + result.cost, course.epochs + result.epochs
        if budget >= full:
            self._bests[full] = max(result.score, self._bests.get(full, result.score))
            self._end(course, replace(result, trial=inner, cost=course.cost, epochs=course.epochs))
            return
        expected = self._expected(course, full)
        if expected is None:
            self._ready.append(course)
        else:
            self.stopped += 1
            self._end(course, Result(inner, expected, course.cost, course.epochs, "extrapolation"))

    def observe_failure(self, result: Result) -> None:
        """The inner trial has failed too."""
        super().observe_failure(result)
        course = self._running.pop(result.trial.number)
        inner = self.inner.pending[course.inner]
        self._end(course, Result.failed(inner, result.error or "no score", course.cost + result.cost))

    def _end(self, course: _Course, result: Result) -> None:
        self._ended[course.inner] = course, result.trial.genotype
        self.inner.tell([result])

    def _expected(self, course: _Course, full: float) -> float | None:
        """The expected final score of a course that is to end; ``None`` if it is to go on."""
        best = self._bests.get(full)
        if best is None or len(course.points) < self.warmup:
            return None
        x, y = zip(*((100 * epochs / full, score / self.perfect) for epochs, score in course.points), strict=True)
        forecast = extrapolate(x, y)
        return None if forecast.exceeds(best / self.perfect) >= self.threshold else forecast.mean * self.perfect

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "inner": self.inner.state_dict(),
            "stopped": self.stopped,
            "ready": [course.to_plain() for course in self._ready],
            "running": [[number, course.to_plain()] for number, course in self._running.items()],
            "ended": [[course.to_plain(), self.space.format(genotype)] for course, genotype in self._ended.values()],
            "bests": [[full, best] for full, best in self._bests.items()],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.inner.load_state_dict(state["inner"])
        self.stopped = state["stopped"]
        self._ready = deque(map(_Course.from_plain, state["ready"]))
        self._running = {number: _Course.from_plain(plain) for number, plain in state["running"]}
        ended = [(_Course.from_plain(plain), self.space.parse(text)) for plain, text in state["ended"]]
        self._ended = {course.inner: (course, genotype) for course, genotype in ended}
        self._bests = dict(state["bests"])
