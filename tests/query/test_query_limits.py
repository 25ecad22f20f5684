"""When a search by queries ends: limits, limits that are raised, failures, a second fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from asked import Convolutions
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_nas.methods import QuerySearch
from lightning_nas.methods.query_limits import NothingSucceededError
from lightning_nas.query import (
    RandomSearch,
    RegularizedEvolution,
    Result,
    SuccessiveHalving,
    TournamentEvolution,
    Trial,
)
from lightning_nas.query.course import course
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fitted(module: QuerySearch, keep: Path | None = None, resume: Path | None = None, **options: Any) -> L.Trainer:
    """The Trainer after the fit; it keeps a checkpoint of the end in a folder."""
    if keep is not None:
        options["callbacks"] = [ModelCheckpoint(keep, "end", save_last=True)]
    trainer = L.Trainer(**QUIET | {"max_epochs": 1, "enable_checkpointing": keep is not None} | options)
    trainer.fit(module, ckpt_path=resume, weights_only=True)
    return trainer


def search(trials: int = 20, **options: Any) -> QuerySearch:
    return QuerySearch(RegularizedEvolution(SPACE, 4, 2, seed=3), Convolutions(SPACE), trials, **options)


def texts(module: QuerySearch) -> list[str]:
    return [SPACE.format(result.trial.genotype) for result in module.evaluator.history]


class Broken(Convolutions):
    """Its first trials fail."""

    def __init__(self, good_from: int) -> None:
        super().__init__(SPACE)
        self.good_from = good_from

    def __call__(self, trial: Trial) -> Result:
        if trial.number < self.good_from:
            raise RuntimeError(f"typo in trial {trial.number}")
        return super().__call__(trial)


@pytest.mark.filterwarnings("ignore:`max_epochs` was not set")
@pytest.mark.parametrize("epochs", [3, -1, None])
def test_trials_limit_the_search_whatever_the_epochs(epochs: int | None) -> None:
    module = search(5, in_flight=3)
    trainer = fitted(module, max_epochs=epochs)
    assert trainer.global_step == len(module.evaluator.history) == module.told == 5


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("epochs", [1, -1])
def test_a_search_that_is_over_stays_so_and_a_raised_limit_goes_on(tmp_path: Path, epochs: int) -> None:
    whole = search(12, in_flight=3)
    fitted(whole)
    fitted(search(7, in_flight=3), tmp_path)
    again = search(7, in_flight=3)
    assert fitted(again, resume=tmp_path / "last.ckpt", max_epochs=epochs).global_step == 7
    lowered = search(5, in_flight=3)
    assert fitted(lowered, resume=tmp_path / "last.ckpt", max_epochs=epochs).global_step == 7
    more = search(12, in_flight=3)
    assert fitted(more, resume=tmp_path / "last.ckpt", max_epochs=epochs).global_step == 12
    assert texts(more) == texts(whole)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_raised_budget_goes_on(tmp_path: Path) -> None:
    short = search(max_cost=10)
    assert fitted(short, tmp_path).global_step == 5
    more = search(max_cost=30)
    assert fitted(more, resume=tmp_path / "last.ckpt").global_step == 15
    whole = search(15)
    fitted(whole)
    assert texts(more) == texts(whole)


def test_a_second_fit_goes_on_from_memory() -> None:
    module = QuerySearch(SuccessiveHalving(SPACE, 9, 1, 9), Convolutions(SPACE), trials=13)
    fitted(module, max_steps=9)
    assert module.told == 9
    fitted(module)
    assert [result.trial.budget for result in module.evaluator.history] == [1.0] * 9 + [3.0] * 3 + [9.0]


def test_a_search_in_which_all_trials_fail_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(NothingSucceededError, match=r"first 8 trials failed.*trial 7"),
    ):
        fitted(QuerySearch(RandomSearch(SPACE), Broken(100), 50, max_failures=8))
    lines = [record.getMessage() for record in caplog.records if "typo" in record.getMessage()]
    assert lines[0] == "trial 0 failed: RuntimeError: typo in trial 0"
    assert len(lines) == 5
    lucky = QuerySearch(RandomSearch(SPACE), Broken(7), 50, max_failures=8)
    fitted(lucky)
    assert lucky.told == 50


def test_the_best_so_far_is_the_searcher_s_own() -> None:
    """Budgets of large-scale evolution grow: its best is the best score, that of others the best at the largest."""
    genotype = SPACE.sample(SuccessiveHalving(SPACE).rng)
    told = [Result(Trial(k, genotype, budget), score) for k, (budget, score) in enumerate([(1, 56), (2, 54), (2, 55)])]
    assert course(told, TournamentEvolution(SPACE).worth)["best"] == [56, 56, 56]
    assert course(told, RandomSearch(SPACE).worth)["best"] == [56, 54, 55]


def test_numbers_must_be_positive() -> None:
    for wrong in ({"trials": 0}, {"max_cost": 0.0}, {"max_failures": 0}, {"trials_an_epoch": 0}):
        with pytest.raises(ValueError, match="each must be positive"):
            search(**wrong)  # type: ignore[arg-type]
