"""A search by real training that tests start in a process of its own: ``killed_search.py SEARCHER FOLDER HOW``."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from lightning_nas.data import DigitsDataModule
from lightning_nas.methods import QuerySearch
from lightning_nas.oracles import TrainingOracle
from lightning_nas.query import ASHA, RandomSearch, RayExecutor, RegularizedEvolution, Result, Searcher, Trial

TRIALS = 8
SEARCHERS: dict[str, Any] = {
    "asha": lambda: ASHA("nasbench201", min_budget=1, max_budget=2, eta=2, seed=4),
    "evolution": lambda: RegularizedEvolution("nasbench201", population=3, sample=2, budget=1, seed=4),
    "random": lambda: RandomSearch("nasbench201", budget=1, seed=4),
}


class Mortal(TrainingOracle):
    """Trains for real; the worker of trial 2 dies, which in the searching process is an error."""

    def __init__(self, folder: Path, searching: int) -> None:
        few = {"limit_train_batches": 2, "limit_val_batches": 2}
        super().__init__("nasbench201", DigitsDataModule(), 2, folder, channels=4, cells=1, trainer=few)
        self.searching = searching

    def describe(self) -> dict[str, Any]:
        """The searching process changes no answer."""
        return {name: value for name, value in super().describe().items() if name != "searching"}

    def __call__(self, trial: Trial) -> Result:
        if trial.number == 2:
            if os.getpid() != self.searching:
                os._exit(1)
            raise RuntimeError("it would have died")
        return super().__call__(trial)


def search(name: str, folder: Path, how: str) -> QuerySearch:
    """The search, over the history in a folder, fitted."""
    searcher: Searcher = SEARCHERS[name]()
    executor = partial(RayExecutor, workers=2) if how == "ray" else None
    module = QuerySearch(
        searcher,
        Mortal(folder / "trainings", os.getpid()),
        TRIALS,
        history=folder / "history.sqlite",
        in_flight=2,
        executor=executor,
    )
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(max_epochs=1, accelerator="cpu", devices=1, enable_model_summary=False, **quiet).fit(module)
    return module


if __name__ == "__main__":
    search(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
