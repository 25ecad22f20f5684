"""Tables as oracles: published benchmarks, and a user's own."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record, read_npz
from lightning_nas.query.trial import Oracle, Result, Trial
from lightning_nas.spaces import Space, get_space

__all__ = ["OwnTable", "TableOracle"]


class TableOracle(Oracle):
    """Answers from a benchmark: validation accuracy as the score, simulated seconds as the cost.

    A trial that continues another costs what it trains beyond that one.

    Args:
        benchmark: The benchmark.
        dataset: One of its data sets; ``None`` for its first.
        run: ``"random"`` for one of the runs, drawn anew for each trial, as a search would see (that of the trial it
            continues, if it does); ``"mean"`` over them; or the number of a run.
        costs: Whether results have the architecture's further figures (parameters, latencies) as metrics, where the
            benchmark knows them.
        seed: Seed of the draws of runs.

    Example:
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
        if trial.trained:
            before = self._record(trial, trial.trained)
            seconds, epochs = seconds - before.seconds, epochs - before.epochs
        figures = self.benchmark.metrics(trial.genotype) if self.costs else {}
        return Result(trial, record.val, seconds, epochs, "table", record.test, figures)

    def _record(self, trial: Trial, budget: float | None) -> Record:
        epochs = None if budget is None else int(budget)
        run = self.run
        if run == "random":
            runs = self.benchmark.runs(trial.genotype, self.dataset, epochs)
            first = trial.number if trial.continues is None else trial.continues
            run = random.Random(f"{self.seed}/{first}").randrange(runs) if runs > 1 else 0  # noqa: S311
        number = run if isinstance(run, int) else None
        return self.benchmark.query(trial.genotype, self.dataset, epochs, number)


class OwnTable(Benchmark):
    """A table of your own: what each genotype has reached.

    Args:
        space: Name of a search space, or a space.
        records: Genotype -> its record. A genotype is found in each of its forms (`Space.canonical`).

    Raises:
        ValueError: If the table is empty; in a query, if it does not have the genotype.

    Example:
        >>> space = get_space("nasbench201")
        >>> rows = {space.sample(random.Random(k)): Record(80.0 + k, None, 60.0, 12) for k in range(3)}
        >>> OwnTable(space, rows).best()[0]
        82.0
    """

    def __init__(self, space: str | Space, records: Mapping[Genotype, Record]) -> None:
        self.space, self.name = get_space(space), "own table"
        self.records = {self.space.canonical(genotype): record for genotype, record in records.items()}
        if not self.records:
            raise ValueError("the table has no rows; give at least one genotype with its accuracy")
        self.datasets, self.budgets = ("own",), (max(int(record.epochs) for record in self.records.values()),)

    @classmethod
    def read(cls, path: str | Path, space: str | Space) -> Self:
        """Read a ``.csv`` or ``.npz``.

        Its columns are ``genotype`` (text) and ``val``, and if there are, ``test``, ``seconds`` and ``epochs``.

        Args:
            path: The file.
            space: Name of the genotypes' space, or the space.

        Raises:
            ValueError: If it is no such file, or a line does not fit; the message names it.
        """
        own = get_space(space)
        records: dict[Genotype, Record] = {}
        for number, row in enumerate(_rows(Path(path)), start=1):
            try:
                test = row.get("test")
                rest = (float(row.get("seconds") or 0.0), float(row.get("epochs") or 0.0))
                records[own.parse(str(row["genotype"]))] = Record(
                    float(row["val"]), None if test in (None, "") else float(test), *rest
                )
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, row {number}: {type(error).__name__} {error}; expected the columns genotype, val and"
                    " perhaps test, seconds, epochs"
                ) from None
        return cls(own, records)

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        """The row of a genotype, whatever the budget."""
        found = self.records.get(genotype) or self.records.get(self.space.canonical(genotype))
        if found is None:
            raise ValueError(f"the table has no row for {self.space.format(genotype)}")
        return found

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """One."""
        return 1

    def genotypes(self) -> Iterator[Genotype]:
        """All rows."""
        return iter(self.records)

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        """The largest validation and the largest test accuracy; NaN for the latter if there is none."""
        tests = [record.test for record in self.records.values() if record.test is not None]
        return max(record.val for record in self.records.values()), max(tests, default=float("nan"))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file by column."""
    if path.suffix == ".npz":
        columns = {name: np.atleast_1d(array).tolist() for name, array in read_npz(path).items()}
        if len(set(map(len, columns.values()))) > 1:
            lengths = {name: len(column) for name, column in columns.items()}
            raise ValueError(f"{path} has columns of different lengths, {lengths}; give one value for each genotype")
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
    elif path.suffix == ".csv":
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no table ({error}); give a file of text with a line of column names") from None
        yield from rows
    else:
        raise ValueError(f"{path} is neither .csv nor .npz; give a table of one of these kinds")
