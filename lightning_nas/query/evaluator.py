"""Brings a searcher and an oracle together: trials in flight, results in a fixed order, nothing lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_nas.query.answers import answer, this_process
from lightning_nas.query.executors import Shared, end
from lightning_nas.query.history import History
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Oracle, Result, Trial

__all__ = ["Evaluator"]


class Evaluator:
    """Keeps up to `in_flight` trials under way and tells their results in the order of their numbers.

    What a searcher proposes depends on the results told before, so the order is the same whoever evaluates, and however
    long each trial takes: a process, any `concurrent.futures.Executor` or Ray give the same history for the same seed
    and the same number in flight. Every result is in the history before the searcher is told; a trial that the history
    knows is not evaluated again.

    The price is that a worker may stand idle until the oldest trial ends. Where trials take different times, as with
    ASHA, keep several trials for each worker under way: with as many trials as workers ASHA uses 0.69 of 2, 0.49 of 4
    and 0.32 of 8 workers; with four times as many 0.94, 0.78 and 0.76.

    Args:
        oracle: What answers.
        history: Where results are kept; ``None`` for memory alone.
        in_flight: Trials under way at once; at least four for each worker of the executor are recommended.
        executor: A function that makes the executor in which they run, for example
            ``partial(ProcessPoolExecutor, 2, get_context("spawn"))``; ``None`` for this process, one at a time, at the
            moment a result is needed. If a worker dies and takes its pool along, a new one is made. `Processes` and
            `RayExecutor` send the oracle once to each worker, others with each trial.
        timeout: Seconds after which the process of a trial that does not end is ended; for executors with processes.
        attempts: Times that a trial is begun in this process if the process dies during it, before the trial has
            failed; for a history in a file.

    Raises:
        ValueError: If a number is not positive, or a timeout is asked for in this process.

    Example:
        >>> from lightning_nas.query import RandomSearch
        >>> searcher = RandomSearch("nasbench201")
        >>> from lightning_nas.query import Oracle
        >>> class Length(Oracle):
        ...     space = searcher.space
        ...     def __call__(self, trial):
        ...         return Result(trial, score=len(self.space.format(trial.genotype)))
        >>> evaluator = Evaluator(Length())
        >>> [evaluator.step(searcher).trial.number for _ in range(3)], len(evaluator.history)
        ([0, 1, 2], 3)
    """

    def __init__(
        self,
        oracle: Oracle,
        history: History | None = None,
        in_flight: int = 1,
        executor: Callable[[], Executor] | None = None,
        timeout: float | None = None,
        attempts: int = 2,
    ) -> None:
        if in_flight < 1 or attempts < 1 or (timeout is not None and timeout <= 0):
            raise ValueError(f"in_flight={in_flight}, timeout={timeout}, attempts={attempts}: each must be positive")
        if timeout is not None and executor is None:
            raise ValueError(
                f"timeout={timeout} needs an executor with processes (Processes, RayExecutor): a trial in this process"
                " cannot be given up"
            )
        self.oracle, self.in_flight, self.timeout, self.attempts = oracle, in_flight, timeout, attempts
        self.history = History(oracle.space) if history is None else history
        self._make, self._executor = executor, None if executor is None else executor()
        if timeout is not None and isinstance(self._executor, ThreadPoolExecutor):
            raise ValueError(
                f"timeout={timeout}: a thread cannot be ended; give an executor with processes (Processes,"
                " RayExecutor), or no timeout"
            )
        self._sent = self._share()
        self._searcher: Searcher | None = None
        self._warned = False
        self._queue: deque[Trial] = deque()
        self._running: dict[Trial, Future[Result]] = {}

    def _share(self) -> Oracle | Shared[Oracle]:
        """The oracle, or its stand-in where the executor sends it once to each worker."""
        share: Callable[[Oracle], Shared[Oracle]] | None = getattr(self._executor, "share", None)
        return self.oracle if share is None else share(self.oracle)

    def step(self, searcher: Searcher, limit: int | None = None) -> Result | None:
        """Fill up what is under way, wait for the oldest trial, tell its result.

        Args:
            searcher: What proposes.
            limit: Trials of the search in all. Those beyond it are asked for all the same, so that a search with a
                larger limit makes the same proposals, but nobody evaluates them.

        Returns:
            The result; ``None`` if the searcher has come to its end.

        Raises:
            ValueError: If the history is one of another search.
        """
        if self._searcher is not searcher:
            self.history.bind({"searcher": searcher.describe(), "oracle": self.oracle.describe()})
            self._searcher = searcher
        for trial in searcher.pending.values():  # after a resume they are pending and not yet under way
            if trial not in self._queue:
                self._start(trial, limit)
        while len(self._queue) < self.in_flight and (asked := searcher.ask()):
            self._start(asked[0], limit)
        if not self._queue:
            return None
        result = self._result(self._queue[0])
        self._queue.popleft()
        searcher.tell([result])
        return result

    def _start(self, trial: Trial, limit: int | None) -> None:
        self._queue.append(trial)
        wanted = limit is None or trial.number < limit
        if wanted and self._executor is not None and self.history.find(trial) is None:
            self._running[trial] = self._submit(trial)

    def _submit(self, trial: Trial) -> Future[Result]:
        """Hand a trial to the executor, to a new one if it is broken."""
        if self._executor is None or self._make is None:
            raise RuntimeError("there is no executor")
        informed = self._informed(trial)
        try:
            return self._executor.submit(partial(answer, self._sent, informed, self.timeout, this_process()))
        except BrokenExecutor:
            self._executor = self._make()
            self._sent = self._share()
            return self._executor.submit(partial(answer, self._sent, informed, self.timeout, this_process()))

    def _informed(self, trial: Trial) -> Trial:
        """The trial with the epochs of the one that it continues."""
        if trial.continues is None:
            return trial
        return replace(trial, trained=self.history[trial.continues].trial.budget or 0.0)

    def _result(self, trial: Trial) -> Result:
        """The result of a trial: known, computed here, or waited for while others that end are kept too."""
        known = self.history.find(trial)
        if known is not None:
            return known
        if self._executor is None:
            self._add(self._here(trial))
            return self.history[trial.number]
        if trial not in self._running:
            self._running[trial] = self._submit(trial)
        while trial in self._running:
            self._harvest()
        return self.history[trial.number]

    def _here(self, trial: Trial) -> Result:
        """Evaluate in this process, unless that has killed it too often."""
        if self.history.begun(trial) >= self.attempts:
            often = "twice" if self.attempts == 2 else f"{self.attempts} times"
            return Result.failed(trial, f"the process died {often} during it")
        self.history.begin(trial)
        try:
            return answer(self.oracle, self._informed(trial))
        except BaseException:  # an interrupt, which the process survives
            self.history.withdraw(trial)
            raise

    def _add(self, result: Result) -> None:
        """Put a result into the history; one that the searcher cannot use has failed."""
        if math.isnan(result.cost):
            if not self._warned:
                rank_zero_warn("the oracle does not know the seconds of some trials (NaN); they count as 0")
            self._warned, result = True, replace(result, cost=0.0)
        self.history.add(result if self._searcher is None else self._searcher.usable(result))

    def _harvest(self) -> None:
        """Wait for any trial to end, and keep all that have."""
        trials = {future: trial for trial, future in self._running.items()}
        done, _ = wait(trials, return_when="FIRST_COMPLETED")
        broken = {future for future in done if isinstance(future.exception(), BrokenExecutor)}
        for future in done - broken:
            self._keep(trials[future], future)
        if broken:
            self._rescue()

    def _keep(self, trial: Trial, future: Future[Result]) -> None:
        """Put what a trial has come to into the history."""
        error = future.exception()
        if error is not None:
            within = "" if self.timeout is None else f" or gave no answer within {self.timeout:g} s"
            reason = f"the worker died{within} ({type(error).__name__}: {error})"
        self._add(future.result() if error is None else Result.failed(trial, reason[:500]))
        del self._running[trial]

    def _rescue(self) -> None:
        """A worker died and its pool with it: run what was under way one by one, so that the culprit shows itself."""
        for trial in list(self._running):  # in the order of their numbers
            future = self._running[trial] = self._submit(trial)
            wait([future])
            self._keep(trial, future)

    def close(self) -> None:
        """End what is under way, let go of the executor and of the history."""
        for future in self._running.values():
            future.cancel()
        self._running.clear()
        if self._executor is not None:
            end(self._executor)
        self.history.close()
