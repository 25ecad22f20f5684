"""Tables as oracles."""

from __future__ import annotations

import random
from typing import Literal

from lightning_nas.benchmarks.base import Benchmark, Record
from lightning_nas.query.trial import Oracle, Result, Trial

__all__ = ["TableOracle"]


class TableOracle(Oracle):
    """Answers from a benchmark: validation accuracy as the score, simulated seconds as the cost.

    A trial that continues another costs what it trains beyond that one where the two budgets are one training
    (`Benchmark.continues`). Where the benchmark trained them separately it costs the whole of its own.

    Args:
        benchmark: The benchmark.
        dataset: One of its data sets; ``None`` for its first.
        run: ``"random"`` for one of the runs, drawn anew for each trial, as a search would see (that of the trial it
            continues, if it does); ``"mean"`` over them; or the number of a run.
        costs: Whether results have the architecture's further figures (parameters, latencies) as metrics, where the
            benchmark knows them.
        seed: Seed of the draws of runs.

    Example:
        >>> from lightning_nas.oracles import OwnTable
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> genotype = space.sample(random.Random(0))
        >>> oracle = TableOracle(OwnTable(space, {genotype: Record(90.0, 89.5, 120.0, 12)}))
        >>> result = oracle(Trial(0, genotype))
        >>> result.score, result.test, result.cost
        (90.0, 89.5, 120.0)
    """

    def __init__(
        self,
        benchmark: Benchmark,
        dataset: str | None = None,
        run: Literal["random", "mean"] | int = "random",
        costs: bool = False,
        seed: int = 0,
    ) -> None:
        if isinstance(run, str) and run not in ("random", "mean"):
            raise ValueError(f"run={run!r}; give 'random', 'mean' or the number of a run")
        self.benchmark, self.space = benchmark, benchmark.space
        self.dataset, self.run, self.costs, self.seed = dataset, run, costs, seed

    def __call__(self, trial: Trial) -> Result:
        """Look the genotype up."""
        record = self._record(trial, trial.budget)
        seconds, epochs = record.seconds, record.epochs
        if trial.trained and self._continues(trial.trained, trial.budget):
            before = self._record(trial, trial.trained)
            seconds, epochs = seconds - before.seconds, epochs - before.epochs
        figures = self.benchmark.metrics(trial.genotype) if self.costs else {}
        return Result(trial, record.val, seconds, epochs, "table", record.test, figures)

    def _continues(self, trained: float, budget: float | None) -> bool:
        return self.benchmark.continues(_whole(trained), None if budget is None else _whole(budget), self.dataset)

    def _record(self, trial: Trial, budget: float | None) -> Record:
        epochs = None if budget is None else _whole(budget)
        run = self.run
        if run == "random":
            runs = self.benchmark.runs(trial.genotype, self.dataset, epochs)
            first = trial.number if trial.continues is None else trial.continues
            run = random.Random(f"{self.seed}/{first}").randrange(runs) if runs > 1 else 0  # noqa: S311
        number = run if isinstance(run, int) else None
        return self.benchmark.query(trial.genotype, self.dataset, epochs, number)


def _whole(budget: float) -> int:
    """The epoch that is read for a budget: the last whole one, as 1 for 4/3 in BOHB; a rung of 11.9999999 is 12."""
    return int(budget + 1e-6)
