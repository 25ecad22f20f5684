"""Answers of an oracle that are none: the trial fails with its reason, the search goes on."""

from __future__ import annotations

import math
import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asked import Convolutions

from lightning_nas.query import NSGA2, BlockQNN, Evaluator, History, Oracle, RandomSearch, Result, Searcher, Trial
from lightning_nas.query.answers import checked
from lightning_nas.spaces import get_space
from lightning_nas.spaces.blockqnn import BlockQNNSpace

SPACE = get_space("nasbench201")
OTHER = Trial(77, SPACE.sample(random.Random(0)))
WRONG: dict[str, tuple[Any, str]] = {
    "no result": (lambda trial: 91.0, "TypeError: the oracle answered float; it must return a Result of the trial"),
    "nothing": (lambda trial: None, "TypeError: the oracle answered NoneType"),
    "no score": (lambda trial: Result(trial, None), "score=None, which is no number"),  # type: ignore[arg-type]
    "a text": (lambda trial: Result(trial, "high"), "score='high', which is no number"),  # type: ignore[arg-type]
    "another trial": (lambda trial: Result(OTHER, 91.0), "ValueError: the oracle was asked for trial 1 and answered"),
    "cost": (lambda trial: Result(trial, 91.0, math.inf), "cost=inf, epochs=0.0; both must be finite"),
    "epochs": (lambda trial: Result(trial, 91.0, 1.0, math.nan), "epochs=nan; both must be finite"),
    "metrics": (lambda trial: Result(trial, 9.0, metrics={"ms": [1, 2]}), "metric 'ms'=[1, 2], which is no number"),  # type: ignore[dict-item]
    "test": (lambda trial: Result(trial, 9.0, test=torch.ones(2)), "test=tensor([1., 1.]), which is no number"),  # type: ignore[arg-type]
    "many scores": (lambda trial: Result(trial, np.ones(3)), "which is no number"),  # type: ignore[arg-type]
}


class Once(Convolutions):
    """Answers trial 1 by a function."""

    def __init__(self, second: Any) -> None:
        super().__init__(SPACE)
        self.second = second

    def __call__(self, trial: Trial) -> Result:
        answered: Result = self.second(trial) if trial.number == 1 else super().__call__(trial)
        return answered


def searched(oracle: Oracle, searcher: Searcher, path: Path | None, trials: int = 3) -> list[Result]:
    evaluator = Evaluator(oracle, History(oracle.space, path))
    found = [result for _ in range(trials) if (result := evaluator.step(searcher)) is not None]
    evaluator.close()
    return found


@pytest.mark.parametrize("name", WRONG)
def test_a_malformed_answer_fails_its_trial(name: str, tmp_path: Path) -> None:
    answered, reason = WRONG[name]
    for path in (None, tmp_path / "h"):
        found = searched(Once(answered), RandomSearch(SPACE), path)
        assert [result.ok for result in found] == [True, False, True]
        assert reason in str(found[1].error)
    with History(SPACE, tmp_path / "h") as history:
        assert reason in str(history[1].error)


def test_numbers_of_numpy_and_torch_are_kept_as_plain_ones(tmp_path: Path) -> None:
    def answered(trial: Trial) -> Result:
        metrics: Any = {"ms": np.float32(1.5), "flops": torch.tensor(3)}
        numbers: list[Any] = [np.float32(91.5), torch.tensor(2.0), np.int64(3), "table", np.float64(90.0), metrics]
        return Result(trial, *numbers)

    searched(Once(answered), RandomSearch(SPACE), tmp_path / "h")
    with History(SPACE, tmp_path / "h") as history:
        kept = history[1]
    values = [kept.score, kept.cost, kept.epochs, kept.test, *kept.metrics.values()]
    assert values == [91.5, 2.0, 3.0, 90.0, 1.5, 3.0]
    assert {type(value) for value in values} == {float}
    with sqlite3.connect(tmp_path / "h") as file:
        assert file.execute("SELECT typeof(score) FROM results WHERE number = 1").fetchone() == ("real",)


def test_unknown_seconds_count_as_none_and_are_told_once(tmp_path: Path) -> None:
    class Timeless(Convolutions):
        def __call__(self, trial: Trial) -> Result:
            return Result(trial, 91.0, math.nan, test=math.nan)

    with pytest.warns(UserWarning, match="does not know the seconds of some trials") as told:
        found = searched(Timeless(SPACE), RandomSearch(SPACE), tmp_path / "h")
    assert len(told) == 1
    assert [(result.cost, result.test, result.ok) for result in found] == [(0.0, None, True)] * 3


def test_the_note_of_a_trial_is_kept_where_the_oracle_drops_it() -> None:
    trial = Trial(0, OTHER.genotype, note={"rung": 2})
    assert checked(Result(Trial(0, OTHER.genotype), 1.0), trial).trial.note == {"rung": 2}


def test_what_a_searcher_cannot_use_is_a_failed_trial(tmp_path: Path) -> None:
    class Flops(Oracle):
        def __init__(self, space: Any, name: str) -> None:
            self.space, self.name = space, name

        def __call__(self, trial: Trial) -> Result:
            return Result(trial, 50.0 + trial.number, metrics={self.name: float(trial.number != 1)})

    blocks = BlockQNN(BlockQNNSpace(4), batch=2)
    assert [r.error for r in searched(Flops(blocks.space, "flops"), blocks, tmp_path / "h")] == [
        None,
        "the metric 'flops' is 0.0; it must be positive",
        None,
    ]
    assert (blocks.failures, len(blocks.memory)) == (1, 2)
    front = NSGA2(SPACE, cost="ms")
    found = searched(Flops(SPACE, "flops"), front, tmp_path / "g")
    assert [str(r.error)[:56] for r in found] == ["cost='ms': the oracle's results have no such metric, only"[:56]] * 3
    assert front.failures == 3
    with History(SPACE, tmp_path / "g") as history:
        assert not any(result.ok for result in history)
