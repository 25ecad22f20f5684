"""The one LightningModule of all query-based methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightning_nas.arch import Genotype
from lightning_nas.data.stateful import StatefulLoader
from lightning_nas.methods.base import SearchModule
from lightning_nas.query import Evaluator, History, Oracle, Result, Searcher
from lightning_nas.query.searcher import merit

__all__ = ["QuerySearch"]


class QuerySearch(SearchModule):
    """A searcher asks, an oracle answers: one training batch is one trial told.

    Any Trainer runs it: ``max_steps`` counts trials, ``max_time`` and ModelCheckpoint (its step cadence included) work
    as for any module, EarlyStopping after each epoch of `trials_an_epoch` (``max_epochs`` is -1 then). A fit that is
    resumed from a checkpoint makes the same proposals as one that was never stopped. With a `history` nothing is lost
    between checkpoints either: trials that were evaluated once are read from it, whatever the checkpoint, so a search
    that was killed is simply started again.

    Logs ``query/score`` of each trial, ``query/best`` (the best validation score at the largest budget), ``query/test``
    (the test value of that architecture where the oracle has one; nothing chooses by it), ``query/trials``,
    ``query/cost`` (seconds), ``query/epochs`` and ``query/failed``.

    Args:
        searcher: What proposes.
        oracle: What answers; it knows the searcher's space.
        trials: Trials in all.
        max_cost: Seconds, simulated where the oracle simulates them; the search ends with the trial that reaches them.
            ``None`` for no limit.
        max_epochs_trained: The same in epochs of training.
        history: SQLite file of all results; ``None`` to keep them in memory.
        in_flight: Trials under way at once.
        executor: Function that makes the executor in which they run; ``None`` for this process, see `Evaluator`.
        timeout: Seconds after which a trial is given up.
        trials_an_epoch: Trials after which the Trainer begins another epoch; ``None`` for one epoch with all.

    Raises:
        ValueError: If a number is not positive, or searcher and oracle have different spaces.

    Example:
        >>> import lightning as L
        >>> from lightning_nas.oracles import FunctionOracle
        >>> from lightning_nas.query import RandomSearch
        >>> oracle = FunctionOracle("nasbench201", lambda genotype: sum(k for k, in genotype.picks.values()))
        >>> search = QuerySearch(RandomSearch("nasbench201"), oracle, trials=5)
        >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        >>> trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
        >>> trainer.fit(search)  # doctest: +ELLIPSIS
        genotype ...
        >>> trainer.global_step, search.evaluator.history[0].score <= search.searcher.best.score
        (5, True)
    """

    def __init__(
        self,
        searcher: Searcher,
        oracle: Oracle,
        trials: int = 100,
        max_cost: float | None = None,
        max_epochs_trained: float | None = None,
        history: str | Path | None = None,
        in_flight: int = 1,
        executor: Callable[[], Executor] | None = None,
        timeout: float | None = None,
        trials_an_epoch: int | None = None,
    ) -> None:
        super().__init__(searcher.space)
        limits = {
            "trials": trials,
            "trials_an_epoch": trials_an_epoch,
            "max_cost": max_cost,
            "max_epochs_trained": max_epochs_trained,
        }
        if any(value is not None and value <= 0 for value in limits.values()):
            raise ValueError(f"{limits}: each must be positive")
        if oracle.space.name != searcher.space.name:
            raise ValueError(
                f"the searcher proposes in {searcher.space.name!r}, the oracle answers in {oracle.space.name!r}; give"
                " both the same space"
            )
        self.searcher, self.oracle, self.trials = searcher, oracle, trials
        self.trials_an_epoch = trials if trials_an_epoch is None else trials_an_epoch
        self.max_cost = float("inf") if max_cost is None else max_cost
        self.max_epochs_trained = float("inf") if max_epochs_trained is None else max_epochs_trained
        self.history_path = history
        self.in_flight, self.executor, self.timeout = in_flight, executor, timeout
        self.clock = nn.Parameter(torch.zeros(()))  # moves with each trial, so that Lightning counts steps
        self.spent = {"cost": 0.0, "epochs": 0.0}
        self.evaluator = Evaluator(oracle, History(self.space), in_flight)
        self.over = False

    def genotype(self) -> Genotype:
        """The best architecture so far, chosen by validation score at the largest budget; a draw before the first."""
        if self.searcher.best is None:
            return self.space.sample(type(self.searcher.rng)(0))
        return self.searcher.genotype()

    def columns(self) -> dict[str, list[float]]:
        """The history by column, in the order of the trials: ``score``, ``cost``, and ``best`` so far.

        The best is that at the largest budget so far. Scores without training have another scale than accuracies:
        where there are both, they are NaN.
        """
        results = list(self.evaluator.history)
        trained = {result.source != "zero-cost" for result in results if result.ok}
        scores = [result.score if len(trained) < 2 or result.source != "zero-cost" else math.nan for result in results]
        best, top = [], (-math.inf, math.nan)
        for result, score in zip(results, scores, strict=True):
            if not math.isnan(score) and (math.isnan(top[1]) or merit(result) > top):
                top = merit(result)
            best.append(top[1])
        return {"score": scores, "cost": [result.cost for result in results], "best": best}

    # --- what a fit starts and ends with

    def setup(self, stage: str) -> None:
        """Open the history.

        Raises:
            MisconfigurationException: With more than one process.
        """
        super().setup(stage)
        if self.trainer.world_size > 1:
            raise MisconfigurationException(
                f"Trainer(devices={self.trainer.num_devices}): a search by queries is one process; give devices=1 and"
                " evaluate trials in parallel with executor= and in_flight="
            )
        self.evaluator.close()
        history = History(self.space, self.history_path)
        self.evaluator = Evaluator(self.oracle, history, self.in_flight, self.executor, self.timeout)
        if len(history):
            rank_zero_info(f"{self.history_path} knows {len(history)} trials, which are not evaluated again")

    def teardown(self, stage: str) -> None:
        """Let go of the history's file and of the executor; the results stay in memory."""
        self.evaluator.close()

    def train_dataloader(self) -> StatefulLoader[int]:
        """A batch for each trial."""
        return _Turns(self.trials_an_epoch)

    def configure_optimizers(self) -> Optimizer:
        """An optimiser of the clock alone."""
        return SGD([self.clock], lr=1.0)

    # --- one trial

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Wait for the next trial, tell it, log."""
        if self.over:
            return
        result = self.evaluator.step(self.searcher)
        if result is None:
            self._stop("the searcher has come to its end")
            return
        self.spent["cost"] += result.cost
        self.spent["epochs"] += result.epochs
        self._tick()
        self._report(result)
        told = self.searcher.asked - len(self.searcher.pending)
        if told >= self.trials and self.trials_an_epoch < self.trials:
            self._stop(f"{told} trials are told")
        elif self.spent["cost"] >= self.max_cost:
            self._stop(f"{self.spent['cost']:.0f} s are spent")
        elif self.spent["epochs"] >= self.max_epochs_trained:
            self._stop(f"{self.spent['epochs']:.0f} epochs are spent")

    def _tick(self) -> None:
        """One step of the optimiser, the only thing that Lightning counts."""
        optimizer: Any = self.optimizers()
        self.clock.grad = torch.full_like(self.clock, -1.0)
        optimizer.step()

    def _stop(self, reason: str) -> None:
        self.over = True
        self.trainer.should_stop = True
        rank_zero_info(f"the search ends: {reason}")

    def _report(self, result: Result) -> None:
        best = self.searcher.best
        figures: dict[str, float | Tensor] = {
            "query/trials": float(self.searcher.asked - len(self.searcher.pending)),
            "query/cost": self.spent["cost"],
            "query/epochs": self.spent["epochs"],
            "query/failed": float(self.searcher.failures),
        }
        if result.ok:
            figures["query/score"] = result.score
        if best is not None:
            figures["query/best"] = best.score
            if best.test is not None:
                figures["query/test"] = best.test
        self.log_dict(figures, on_step=True, on_epoch=False, prog_bar=False, batch_size=1)
        if best is not None:
            self.log("query/best_bar", best.score, prog_bar=True, logger=False, on_step=True, batch_size=1)

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the searcher's state and what is spent."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["searcher"] = self.searcher.state_dict()
        checkpoint["query"] = {"spent": dict(self.spent), "over": self.over, "results": self._results()}

    def _results(self) -> list[dict[str, Any]]:
        """All results, unless a file has them."""
        if self.history_path is not None:
            return []
        return [result.to_plain(self.space) for result in self.evaluator.history]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the searcher where it was."""
        super().on_load_checkpoint(checkpoint)
        self.searcher.load_state_dict(checkpoint["searcher"])
        self.spent, self.over = dict(checkpoint["query"]["spent"]), checkpoint["query"]["over"]
        known = self.evaluator.history
        for plain in checkpoint["query"]["results"]:
            result = Result.from_plain(plain, self.space)
            if known.find(result.trial) is None:
                known.add(result)


class _Turns(StatefulLoader[int]):
    """The numbers of the trials, from any place."""

    def __init__(self, trials: int) -> None:
        super().__init__()
        self.trials = trials

    def __len__(self) -> int:
        return self.trials

    def read(self, epoch: int, start: int = 0) -> Iterator[int]:
        return iter(range(start, self.trials))
