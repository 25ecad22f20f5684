"""Asking an oracle: whatever it does, there is a result that a history and a searcher can use."""

from __future__ import annotations

import faulthandler
import math
import os
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

from lightning_nas.query.executors import Shared
from lightning_nas.query.trial import Oracle, Result, Trial

__all__ = ["answer", "checked", "this_process"]

_TOKEN = uuid4().hex


def this_process() -> tuple[int, str]:
    """What tells this process from all others, on other machines too."""
    return os.getpid(), _TOKEN


def answer(
    oracle: Oracle | Shared[Oracle], trial: Trial, timeout: float | None = None, asker: tuple[int, str] | None = None
) -> Result:
    """Ask the oracle; whatever it raises, and an answer that is none, is a failed trial with its reason.

    Args:
        oracle: The oracle.
        trial: The trial.
        timeout: Seconds after which this process ends itself, whatever it hangs in.
        asker: Process that must not be ended.
    """
    start = time.perf_counter()
    try:
        ready = oracle.value() if isinstance(oracle, Shared) else oracle
        if timeout is not None and asker == this_process():
            raise ValueError(
                f"timeout={timeout}: the executor runs trials in the process of the search, which cannot give one up;"
                " give Processes or RayExecutor, or no timeout"
            )
        if timeout is not None:
            faulthandler.dump_traceback_later(timeout, exit=True, file=2)
        return checked(ready(trial), trial)
    except Exception as error:  # an oracle runs code of the user's
        return Result.failed(trial, f"{type(error).__name__}: {error}"[:500], time.perf_counter() - start)
    finally:
        if timeout is not None:
            faulthandler.cancel_dump_traceback_later()


def checked(result: Any, trial: Trial) -> Result:
    """The result in plain numbers; one without a finite score has failed.

    Args:
        result: What an oracle returned; seconds that it does not know are NaN.
        trial: What it was asked.

    Raises:
        TypeError: If it is no result, or has something else in place of a number.
        ValueError: If it is the result of another trial, or cost or epochs are no number that can be added up.
    """
    if not isinstance(result, Result):
        raise TypeError(f"the oracle answered {type(result).__name__}; it must return a Result of the trial")
    if result.trial != trial:
        raise ValueError(f"the oracle was asked for trial {trial.number} and answered {result.trial}")
    error = None if result.error is None else str(result.error)
    score = math.nan if error is not None else _number("score", result.score)
    if error is None and not math.isfinite(score):
        score, error = math.nan, f"the score is {score}"
    cost, epochs = _number("cost", result.cost), _number("epochs", result.epochs)
    if math.isinf(cost) or not math.isfinite(epochs):
        raise ValueError(f"the oracle answered cost={cost}, epochs={epochs}; both must be finite")
    test = None if result.test is None else _number("test", result.test)
    return replace(
        result,
        trial=trial,
        score=score,
        cost=cost,
        epochs=epochs,
        source=str(result.source),
        test=None if test is None or math.isnan(test) else test,
        metrics={str(name): _number(f"metric {name!r}", value) for name, value in result.metrics.items()},
        error=error,
    )


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the oracle answered {name}={value!r:.80}, which is no number") from None
