"""The one LightningModule of all query-based methods."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightning_nas.arch import Genotype
from lightning_nas.methods.base import SearchModule
from lightning_nas.methods.query_limits import Limits, Turns, complain
from lightning_nas.query import Evaluator, History, Oracle, Result, Searcher
from lightning_nas.query.course import course

__all__ = ["QuerySearch"]


class QuerySearch(SearchModule):
    """A searcher asks, an oracle answers: one training batch is one trial told.

    Any Trainer runs it: ``max_steps`` counts trials, ``max_time`` and ModelCheckpoint (its step cadence included) work
    as for any module, EarlyStopping after each epoch of `trials_an_epoch` (``max_epochs`` is -1 then). `trials` is the
    limit whatever the Trainer's. A fit that is resumed from a checkpoint makes the same proposals as one that was never
    stopped, and goes on if a limit was raised. With a `history` nothing is lost between checkpoints either: trials that
    were evaluated once are read from it, whatever the checkpoint, so a search that was killed is simply started again.

    Logs ``query/score`` of each trial, ``query/best`` (the best validation score at the largest budget), ``query/test``
    (the test value of that architecture where the oracle has one; nothing chooses by it), ``query/trials``,
    ``query/cost`` (seconds), ``query/epochs`` and ``query/failed``.

    Args:
        searcher: What proposes.
        oracle: What answers; it knows the searcher's space.
        trials: Trials in all, those that failed included.
        max_cost: Seconds, simulated where the oracle simulates them; the search ends with the trial that reaches them.
            ``None`` for no limit.
        max_epochs_trained: The same in epochs of training.
        history: SQLite file of all results; ``None`` to keep them in memory.
        in_flight: Trials under way at once. Results are told in the order of the trials, so a worker stands idle until
            the oldest trial ends; give at least four for each worker of the executor.
        executor: Function that makes the executor in which they run; ``None`` for this process, see `Evaluator`.
        timeout: Seconds after which a trial is given up; for executors with processes.
        trials_an_epoch: Trials after which the Trainer begins another epoch; ``None`` for one epoch with all.
        max_failures: Trials after which the search ends with an error if not one has succeeded.
        attempts: Times that a trial is begun if this process dies during it, see `Evaluator`.

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
        max_failures: int = 20,
        attempts: int = 2,
    ) -> None:
        super().__init__(searcher.space)
        self.limits = Limits(trials, max_cost, max_epochs_trained)
        if max_failures < 1 or (trials_an_epoch is not None and trials_an_epoch < 1):
            raise ValueError(f"trials_an_epoch={trials_an_epoch}, max_failures={max_failures}: each must be positive")
        if oracle.space.name != searcher.space.name:
            raise ValueError(
                f"the searcher proposes in {searcher.space.name!r}, the oracle answers in {oracle.space.name!r}; give"
                " both the same space"
            )
        self.searcher, self.oracle = searcher, oracle
        self.trials_an_epoch, self.max_failures = trials_an_epoch, max_failures
        self.history_path = history
        self.in_flight, self.executor, self.timeout, self.attempts = in_flight, executor, timeout, attempts
        self.clock = nn.Parameter(torch.zeros(()))  # moves with each trial, so that Lightning counts steps
        self.spent = {"cost": 0.0, "epochs": 0.0}
        self.evaluator = Evaluator(oracle, History(self.space), in_flight)
        self.over = False

    @property
    def told(self) -> int:
        """Trials whose results the searcher knows."""
        return self.searcher.asked - len(self.searcher.pending)

    def genotype(self) -> Genotype:
        """The best architecture so far, chosen by validation score at the largest budget; a draw before the first."""
        if self.searcher.best is None:
            return self.space.sample(type(self.searcher.rng)(0))
        return self.searcher.genotype()

    def columns(self) -> dict[str, list[float]]:
        """The history by column, in the order of the trials: ``score``, ``cost``, ``epochs``, and ``best`` so far.

        The best is the searcher's own, for most that at the largest budget so far.
        """
        return course(self.evaluator.history, self.searcher.worth)

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
        kept = self.evaluator.history  # in memory, for a fit that follows another
        history = kept if self.history_path is None else History(self.space, self.history_path)
        try:
            self.evaluator = Evaluator(self.oracle, history, self.in_flight, self.executor, self.timeout, self.attempts)
        except BaseException:
            history.close()
            raise
        if len(history) and self.history_path is not None:
            rank_zero_info(f"{self.history_path} knows {len(history)} trials, which are not evaluated again")

    def teardown(self, stage: str) -> None:
        """End what is under way, let go of the history's file and the executor; the results stay in memory."""
        self.evaluator.close()

    def train_dataloader(self) -> Turns:
        """A batch for each trial."""
        return Turns(self.trials_an_epoch or self.limits.trials)

    def configure_optimizers(self) -> Optimizer:
        """An optimiser of the clock alone."""
        return SGD([self.clock], lr=1.0)

    def on_train_start(self) -> None:
        """Begin nothing if a limit is reached already."""
        self.over = False
        self._stop(self.limits.reached(self.told, self.spent))

    # --- one trial

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Wait for the next trial, tell it, log.

        Raises:
            NothingSucceededError: If `max_failures` trials are told, and all of them have failed.
        """
        if self.over:
            return
        try:
            result = self.evaluator.step(self.searcher, self.limits.trials)
            if result is not None and not result.ok:
                complain(result, self.searcher, self.told, self.max_failures)
        except BaseException:
            self.evaluator.close()  # or the trials under way would keep the process alive
            raise
        if result is None:
            self._stop("the searcher has come to its end")
            return
        self.spent["cost"] += result.cost
        self.spent["epochs"] += result.epochs
        self._tick()
        self._report(result)
        self._stop(self.limits.reached(self.told, self.spent))

    def _tick(self) -> None:
        """One step of the optimiser, the only thing that Lightning counts."""
        optimizer: Any = self.optimizers()
        self.clock.grad = torch.full_like(self.clock, -1.0)
        optimizer.step()

    def _stop(self, reason: str | None) -> None:
        """End the search, if there is a reason."""
        if reason is not None:
            self.over = True
            self.trainer.should_stop = True
            rank_zero_info(f"the search ends: {reason}")

    def _report(self, result: Result) -> None:
        best = self.searcher.best
        figures: dict[str, float | Tensor] = {f"query/{name}": value for name, value in self.spent.items()}
        figures |= {"query/trials": float(self.told), "query/failed": float(self.searcher.failures)}
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
        checkpoint["query"] = {"spent": dict(self.spent), "results": self._results()}

    def _results(self) -> list[dict[str, Any]]:
        """All results, unless a file has them."""
        if self.history_path is not None:
            return []
        return [result.to_plain(self.space) for result in self.evaluator.history]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the searcher where it was."""
        super().on_load_checkpoint(checkpoint)
        self.searcher.load_state_dict(checkpoint["searcher"])
        self.spent = dict(checkpoint["query"]["spent"])
        known = self.evaluator.history
        for plain in checkpoint["query"]["results"]:
            result = Result.from_plain(plain, self.space)
            if known.find(result.trial) is None:
                known.add(result)
        goes_on = self.trials_an_epoch is None and self.limits.reached(self.told, self.spent) is None
        if goes_on and self._trainer is not None:
            self._trainer.fit_loop.max_epochs = -1  # the epoch is at its end where a limit was raised
