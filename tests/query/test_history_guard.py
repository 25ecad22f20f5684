"""A history guards its results: other settings, a program that holds the file, trials that kill the process."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from asked import Convolutions

from lightning_nas.data import DigitsDataModule
from lightning_nas.oracles import FunctionOracle, RoutedOracle, TrainingOracle, give_data
from lightning_nas.query import Evaluator, History, Oracle, RandomSearch, RegularizedEvolution, Result, Searcher, Trial
from lightning_nas.query.described import Described
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")


def step(path: Path, oracle: Oracle, searcher: Searcher | None = None) -> Result | None:
    evaluator = Evaluator(oracle, History(SPACE, path))
    try:
        return evaluator.step(RandomSearch(SPACE) if searcher is None else searcher)
    finally:
        evaluator.close()


class Set(Convolutions):
    """Has settings that matter, and one that does not."""

    def __init__(self, channels: int, workers: int = 0, data: L.LightningDataModule | None = None) -> None:
        super().__init__(SPACE)
        self.data = data


class Other(Convolutions):
    """Another oracle."""


def test_a_search_with_other_settings_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "h"
    step(path, Set(8))
    wrong: list[tuple[Oracle, Searcher | None, str]] = [
        (Set(16), None, r"oracle\.channels was 8 and is 16\. Give this search another history, or the old settings"),
        (Other(SPACE), None, r"oracle\.class was 'Set' and is 'Other'"),
        (Set(8, data=DigitsDataModule()), None, r"oracle\.data was None and is \{'class': 'DigitsDataModule'"),
        (Set(8), RandomSearch(SPACE, budget=3), r"searcher\.budget was None and is 3"),
        (Set(8), RegularizedEvolution(SPACE), r"searcher\.class was 'RandomSearch' and is 'RegularizedEvolution'"),
    ]
    for oracle, searcher, message in wrong:
        with pytest.raises(ValueError, match=message):
            step(path, oracle, searcher)
    step(path, Set(8, workers=4))  # changes no answer
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM settings")
    step(path, Set(16))  # an older file goes with any, and then with that
    with pytest.raises(ValueError, match=r"oracle\.channels was 16 and is 8"):
        step(path, Set(8))


def test_descriptions_are_plain_and_follow_what_was_given_later(tmp_path: Path) -> None:
    few: dict[str, Any] = {"limit_train_batches": 2, "accelerator": "cpu"}
    training = TrainingOracle("nasbench201", None, 2, tmp_path, channels=4, trainer=few)
    oracle = RoutedOracle([FunctionOracle(SPACE, len), training], up_to=[0])
    before = json.loads(json.dumps(oracle.describe()))
    give_data(oracle, DigitsDataModule())
    cheap, dear = oracle.describe()["oracles"]
    assert cheap == {"class": "FunctionOracle", "space": "nasbench201", "function": "len", "budgets": False}
    assert dear["trainer"] == {"limit_train_batches": 2}
    assert "folder" not in dear
    assert before["oracles"][1]["data"] is None
    assert dear["data"]["class"] == "DigitsDataModule"


def test_a_description_stays_as_the_object_changes() -> None:
    searcher = RegularizedEvolution(SPACE, population=3, sample=2, seed=1)
    before = searcher.describe()
    evaluator = Evaluator(Convolutions(SPACE))
    for _ in range(9):
        evaluator.step(searcher)
    assert searcher.describe() == before
    assert (before["population"], before["mutate"], before["class"]) == (3, "one", "RegularizedEvolution")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        type("Needs", (Described,), {"__init__": lambda self, a: None})()


def test_a_file_that_another_program_holds_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert History.patience == 60
    monkeypatch.setattr(History, "patience", 0.05)
    path = tmp_path / "h"
    step(path, Convolutions(SPACE))
    searcher, evaluator = RandomSearch(SPACE), Evaluator(Convolutions(SPACE), History(SPACE, path))
    evaluator.step(searcher)
    viewer = sqlite3.connect(path)
    viewer.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match=r"cannot be written .database is locked.; end the program that has held it"):
        evaluator.step(searcher)
    evaluator.close()
    viewer.close()
    step(path, Convolutions(SPACE))


class Deadly(Convolutions):
    """Trial 1 takes the process along."""

    def __call__(self, trial: Trial) -> Result:
        if trial.number == 1:
            os._exit(9)
        return super().__call__(trial)


def test_a_trial_that_kills_the_process_twice_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "h"
    for code in (9, 9, 0):
        child = os.fork()
        if child == 0:
            searcher, evaluator = RandomSearch(SPACE), Evaluator(Deadly(SPACE), History(SPACE, path))
            for _ in range(3):
                evaluator.step(searcher)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    with History(SPACE, path) as history:
        assert [result.error for result in history] == [None, "the process died twice during it", None]


def test_an_interrupt_is_no_death(tmp_path: Path) -> None:
    class Interrupted(Convolutions):
        def __call__(self, trial: Trial) -> Result:
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            step(tmp_path / "h", Interrupted(SPACE))
    with History(SPACE, tmp_path / "h") as history:
        assert history.begun(Trial(0, SPACE.sample(random.Random(0)))) == 0
