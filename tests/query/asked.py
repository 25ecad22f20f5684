"""Oracles for tests that other processes can unpickle."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from lightning_nas.query import Oracle, Result, Searcher, Trial
from lightning_nas.spaces import Space


def proposals(searcher: Searcher, score: Callable[[Trial], float]) -> list[str]:
    """What a searcher asks for next, 20 times one trial, while the oldest pending one is told each time."""
    seen = []
    for _ in range(20):
        seen += [searcher.space.format(trial.genotype) for trial in searcher.ask()]
        trial = next(iter(searcher.pending.values()))
        searcher.tell([Result(trial, score(trial))])
    return seen


class Convolutions(Oracle):
    """The number of 3x3 convolutions in a cell; it keeps a line for each evaluation."""

    def __init__(self, space: Space, log: Path | None = None, seconds: float = 0.0) -> None:
        self.space, self.log, self.seconds = space, log, seconds

    def __call__(self, trial: Trial) -> Result:
        time.sleep(self.seconds)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{trial.number}\n")
        score = float(self.space.format(trial.genotype).count("nor_conv_3x3"))
        return Result(trial, score, 2.0, trial.budget or 0.0, "function", metrics={"number": float(trial.number)})


class Unlucky(Convolutions):
    """One worker dies, one trial raises, one hangs, one is NaN."""

    def __call__(self, trial: Trial) -> Result:
        if trial.number == 2:
            os._exit(3)
        if trial.number == 4:
            raise MemoryError("no memory left")
        if trial.number == 6:
            time.sleep(1000)
        if trial.number == 7:
            return Result(trial, float("nan"))
        return super().__call__(trial)
