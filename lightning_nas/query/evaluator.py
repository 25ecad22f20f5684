"""Brings a searcher and an oracle together: trials in flight, results in a fixed order, nothing lost."""

from __future__ import annotations

import faulthandler
import math
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import replace
from functools import partial

from lightning_nas.query.history import History
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Oracle, Result, Trial

__all__ = ["Evaluator", "answer"]


def answer(oracle: Oracle, trial: Trial, timeout: float | None = None, asker: int | None = None) -> Result:
    """Ask the oracle; whatever it raises, and a score that is not finite, is a failed trial with its reason.

    Args:
        oracle: The oracle.
        trial: The trial.
        timeout: Seconds after which this process ends itself, whatever it hangs in.
        asker: Process that must not be ended.
    """
    start = time.perf_counter()
    if timeout is not None and os.getpid() != asker:
        faulthandler.dump_traceback_later(timeout, exit=True, file=2)
    try:
        result = oracle(trial)
    except Exception as error:  # an oracle runs code of the user's
        return Result.failed(trial, f"{type(error).__name__}: {error}"[:500], time.perf_counter() - start)
    finally:
        if timeout is not None and os.getpid() != asker:
            faulthandler.cancel_dump_traceback_later()
    if result.error is None and not math.isfinite(result.score):
        return replace(result, score=math.nan, error=f"the score is {result.score}")
    return result


class Evaluator:
    """Keeps up to `in_flight` trials under way and tells their results in the order of their numbers.

    What a searcher proposes depends on the results told before, so the order is the same whoever evaluates, and however
    long each trial takes: a process, any `concurrent.futures.Executor` or Ray give the same history for the same seed
    and the same number in flight. Every result is in the history before the searcher is told; a trial that the history
    knows is not evaluated again.

    Args:
        oracle: What answers.
        history: Where results are kept; ``None`` for memory alone.
        in_flight: Trials under way at once.
        executor: A function that makes the executor in which they run, for example
            ``partial(ProcessPoolExecutor, 2, get_context("spawn"))``; ``None`` for this process, one at a time, at the
            moment a result is needed. If a worker dies and takes its pool along, a new one is made.
        timeout: Seconds after which the process of a trial that does not end is ended; for executors with processes.

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
    ) -> None:
        if in_flight < 1 or (timeout is not None and timeout <= 0):
            raise ValueError(f"in_flight={in_flight}, timeout={timeout}: both must be positive")
        if timeout is not None and executor is None:
            raise ValueError(f"timeout={timeout} needs an executor: a trial in this process cannot be given up")
        self.oracle, self.in_flight, self.timeout = oracle, in_flight, timeout
        self.history = History(oracle.space) if history is None else history
        self._make, self._executor = executor, None if executor is None else executor()
        self._queue: deque[Trial] = deque()
        self._running: dict[Trial, Future[Result]] = {}

    def step(self, searcher: Searcher) -> Result | None:
        """Fill up what is under way, wait for the oldest trial, tell its result.

        Returns:
            The result; ``None`` if the searcher has come to its end.
        """
        for trial in searcher.pending.values():  # after a resume they are pending and not yet under way
            if trial not in self._queue:
                self._start(trial)
        while len(self._queue) < self.in_flight and (asked := searcher.ask()):
            self._start(asked[0])
        if not self._queue:
            return None
        result = self._result(self._queue[0])
        self._queue.popleft()
        searcher.tell([result])
        return result

    def _start(self, trial: Trial) -> None:
        self._queue.append(trial)
        if self._executor is not None and self.history.find(trial) is None:
            self._running[trial] = self._submit(trial)

    def _submit(self, trial: Trial) -> Future[Result]:
        """Hand a trial to the executor, to a new one if it is broken."""
        if self._executor is None or self._make is None:
            raise RuntimeError("there is no executor")
        call = partial(answer, self.oracle, self._informed(trial), self.timeout, os.getpid())
        try:
            return self._executor.submit(call)
        except BrokenExecutor:
            self._executor = self._make()
            return self._executor.submit(call)

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
            self.history.add(answer(self.oracle, self._informed(trial)))
            return self.history[trial.number]
        while trial in self._running:
            self._harvest()
        return self.history[trial.number]

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
        self.history.add(future.result() if error is None else Result.failed(trial, reason[:500]))
        del self._running[trial]

    def _rescue(self) -> None:
        """A worker died and its pool with it: run what was under way one by one, so that the culprit shows itself."""
        for trial in list(self._running):  # in the order of their numbers
            future = self._submit(trial)
            wait([future])
            self._keep(trial, future)

    def close(self) -> None:
        """Let go of the executor and of the history."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self.history.close()
