"""Asynchronous successive halving."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import Any

from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers.halving import Finisher, Sampler, UniformSampler
from lightning_nas.query.searchers.rungs import rung_budgets
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["ASHA"]


class _AsyncRung:
    """The trials that have ended on a rung, and those of them that have not gone on."""

    def __init__(self) -> None:
        self.failed = 0
        self.orders: list[tuple[float, int]] = []  # of all that succeeded, best first
        self.waiting: list[tuple[float, int, Finisher]] = []  # a heap of those that have not gone on

    def add(self, finisher: Finisher) -> None:
        """Take in one that succeeded."""
        insort(self.orders, finisher.order)
        heapq.heappush(self.waiting, (*finisher.order, finisher))

    def pop(self, eta: float) -> Finisher | None:
        """The best that has not gone on, if it is among the best in `eta`; it counts as gone on from now."""
        places = int((len(self.orders) + self.failed) / eta)
        if not self.waiting or bisect_left(self.orders, self.waiting[0][:2]) >= places:
            return None
        return heapq.heappop(self.waiting)[2]


class ASHA(Searcher):
    r"""Asynchronous successive halving: whoever is among the best in `eta` of a rung goes on at once.

    For each new trial the rungs are scanned from the top: the best trial that is among the best
    :math:`\lfloor |rung| / \eta \rfloor` of those that have ended there, and has not gone on, does so, as a trial that
    `continues` it. If there is none, a new genotype starts on the lowest rung. So it has a trial whenever it is asked.
    A failed trial counts as one that ended worst. Note of a trial: its rung.

    The `Evaluator` tells results in the order of the trials, so that the same seed gives the same search: it does wait,
    for the oldest trial, and with as many trials under way as there are workers these are idle for a third of the time
    (2 workers) to two thirds (8). With an `in_flight` of at least four times the workers they are at work for 94 %
    (2 workers), 78 % (4) and 76 % (8) of it.

    Reference: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019; Li et
    al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.

    Args:
        space: Name of a search space, or a space.
        min_budget: Epochs `r` on the lowest rung; rung `k` has :math:`r \eta^k`.
        max_budget: Epochs that no rung exceeds.
        eta: One in `eta` goes on.
        sampler: Where new genotypes come from; ``None`` for uniform draws.
        seed: Seed of all draws.

    Raises:
        ValueError: If the budgets or `eta` are wrong.

    Example:
        >>> searcher = ASHA("nasbench201", min_budget=1, max_budget=9, eta=3)
        >>> for _ in range(4):
        ...     (trial,) = searcher.ask()
        ...     searcher.tell([Result(trial, score=-trial.number)])
        >>> trial.budget, trial.continues
        (3.0, 0)
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        min_budget: float = 4,
        max_budget: float = 108,
        eta: float = 3,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        self.budgets, self.eta = rung_budgets(min_budget, max_budget, eta), eta
        self.sampler: Sampler = UniformSampler(self.space) if sampler is None else sampler
        self.rungs = [_AsyncRung() for _ in self.budgets]

    def propose(self) -> Trial:
        """A promotion on the highest rung that has one, or a new genotype."""
        for level in range(len(self.rungs) - 2, -1, -1):
            below = self.rungs[level].pop(self.eta)
            if below is not None:
                return self.trial(below.genotype, self.budgets[level + 1], below.number, rung=level + 1)
        return self.trial(self.sampler(self.rng), self.budgets[0], rung=0)

    def observe(self, result: Result) -> None:  # noqa: D102
        self._rung(result).add(Finisher.of(result))
        self.sampler.learn(result.trial, result.score)

    def observe_failure(self, result: Result) -> None:  # noqa: D102
        super().observe_failure(result)
        self._rung(result).failed += 1
        self.sampler.learn(result.trial, float("-inf"))

    def _rung(self, result: Result) -> _AsyncRung:
        return self.rungs[int(result.trial.note["rung"])]

    def state(self) -> dict[str, Any]:  # noqa: D102
        plain = []
        for rung in self.rungs:
            waiting = [finisher.to_plain(self.space) for _, _, finisher in sorted(rung.waiting)]
            plain.append({"failed": rung.failed, "orders": [list(o) for o in rung.orders], "waiting": waiting})
        return {"rungs": plain, "sampler": self.sampler.state()}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.rungs = [_AsyncRung() for _ in self.budgets]
        for rung, plain in zip(self.rungs, state["rungs"], strict=True):
            rung.failed, rung.orders = plain["failed"], [(loss, number) for loss, number in plain["orders"]]
            for entry in plain["waiting"]:
                finisher = Finisher.from_plain(entry, self.space)
                heapq.heappush(rung.waiting, (*finisher.order, finisher))
        self.sampler.load_state(state["sampler"])
