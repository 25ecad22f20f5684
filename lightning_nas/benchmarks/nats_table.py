"""Benchmarks in the compact form: columns of numbers by data set and budget, in one ``.npz`` file."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Array, Benchmark, Record, data_file, read_npz
from lightning_nas.benchmarks.official import DATASETS
from lightning_nas.spaces.base import Space

__all__ = ["NATSTable"]

_PARTS = ("val", "test")


class _Column(NamedTuple):
    val: Array
    test: Array
    seconds: Array
    validation: Array
    epochs: int
    single: Array | None


class NATSTable(Benchmark):
    """A table of NATS-Bench: accuracies on three data sets at a few budgets, each budget a training of its own.

    A query costs the recorded seconds of the training (for CIFAR-10 that on half of the training pictures) and of one
    validation; tables made from other sources than the published files may lack the validation, which then counts
    nothing. Where the table has the accuracy after every epoch, budgets in between are answered from the longest
    training, stopped early; its learning rate is then still high. They have no test accuracy. Another training can be
    chosen to be stopped early: one of 12 epochs then answers for 1 and 4 as well, and those for which it answers
    continue each other.

    Args:
        path: The table, its folder, or ``None`` for the folder that ``LIGHTNING_NAS_DATA`` names.
        space: The space of its architectures.
        training: The training, by its length, that answers for all budgets up to its own; ``None`` for one of their own
            for `budgets`, and the longest for those in between.

    Attributes:
        file: The table's usual name.
        archs: Name of the array that holds the architectures.
    """

    file: ClassVar[str]
    archs: ClassVar[str]
    datasets = tuple(DATASETS)

    def __init__(self, path: str | os.PathLike[str] | None, space: Space, training: int | None = None) -> None:
        if training is not None and training not in self.budgets:
            raise ValueError(f"training={training!r}; {self.name} has trainings of {self.budgets} epochs, or give None")
        self.training = training
        make = "make it by: lightning-nas benchmark convert OFFICIAL OUT.npz"
        self.path, self.space = data_file(path, self.file, make).absolute(), space
        table = read_npz(self.path)
        needed = [self.archs, *(f"{s.column}_{part}_{self.budgets[-1]}" for s in DATASETS.values() for part in _PARTS)]
        lacking = [name for name in needed if name not in table]
        if lacking:
            raise ValueError(f"{self.path} is no table of {self.name}: it lacks {', '.join(lacking)}; {make}")
        self._size = len(table[self.archs])
        self._rows = {genotype: row for row, genotype in enumerate(self.read_archs(table))}
        if len(self._rows) != self._size:
            raise ValueError(f"{self.path} has architectures twice; {make}")
        self._columns: dict[tuple[str | None, int | None], _Column] = dict(self._entries(table))
        self._curves, self._single_curves = (
            {
                (name, budget): table[key]
                for name, split in DATASETS.items()
                for budget in self.budgets
                if (key := f"{split.column}_val_curve_{budget}{kind}") in table
            }
            for kind in ("", "_runs")
        )
        self._metrics: dict[str, Array] = {name: table[name] for name in ("params_m", "flops_m") if name in table}
        self._correct = table.get("c10_val_correct_of_25000")
        self._n_runs = table.get("n_runs")

    @abstractmethod
    def read_archs(self, table: Mapping[str, Array]) -> Iterator[Genotype]:
        """The genotypes of the table's rows."""

    def query(  # noqa: D102
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        row = self._row(genotype)
        column = self._columns.get((dataset, epochs))
        if column is None:
            return self._stopped_early(row, *self.choose(dataset, epochs), run)
        val, test = column.val.item(row), column.test.item(row)
        if run is not None and (runs := self._runs(row, column)) > 1:
            val = self._single_val(row, column, run % runs)
        if val != val:
            raise ValueError(f"{self.path} has no accuracy of {self.space.format(genotype)} at {column.epochs} epochs")
        return Record(val, test if test == test else None, column.seconds.item(row), column.epochs)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """Runs that can be asked for one by one, where the table has them: those of CIFAR-10's trainings.

        They differ in their validation accuracy; the test accuracy of a query is always the mean over runs.
        """
        row, (name, budget) = self._row(genotype), self.choose(dataset, epochs)
        column = self._columns.get((name, budget))
        if column is not None:
            return self._runs(row, column)
        source = (name, self._source(budget))
        return self._runs(row, self._columns[source]) if source in self._single_curves else 1

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        """Whether both budgets are answered from one training, stopped early: none of `budgets` goes on another."""
        return self._source(shorter) == self._source(self.budgets[-1] if longer is None else longer)

    def genotypes(self) -> Iterator[Genotype]:  # noqa: D102
        return iter(self._rows)

    def best(self, dataset: str | None = None) -> tuple[float, float]:  # noqa: D102
        column = self._columns[self.choose(dataset, None)]
        return float(np.nanmax(column.val)), float(np.nanmax(column.test))

    def curve(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> tuple[float, ...]:
        """The mean validation accuracy in percent after every epoch of one training.

        Args:
            genotype: An architecture of the space.
            dataset: One of `datasets`; ``None`` for the first.
            epochs: The training, by its length; ``None`` for the longest.

        Raises:
            ValueError: If the table has no such curve.
        """
        name, budget = self.choose(dataset, epochs)
        row = self._row(genotype)
        if (name, budget) not in self._curves:
            raise ValueError(self._no_curve(name, budget))
        return tuple(self._curves[name, budget][row].tolist())

    def has_curve(self, dataset: str | None = None, epochs: int | None = None) -> bool:
        """Whether the table has the validation accuracy after every epoch of a training, which `curve` gives."""
        return self.choose(dataset, epochs) in self._curves

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """Parameters and multiply-adds of the CIFAR-10 network in millions, where the table has them.

        Raises:
            ValueError: If the table has no such architecture.
        """
        row = self._row(genotype)
        figures = {name: values.item(row) for name, values in self._metrics.items()}
        return {name: figure for name, figure in figures.items() if figure == figure}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.training)

    def __len__(self) -> int:
        return self._size

    def _row(self, genotype: Genotype) -> int:
        row = self._rows.get(genotype)
        if row is None:
            text = self.space.format(self.space.check(genotype))
            raise ValueError(f"{self.path} has no architecture {text}; it has {self._size}; ask for one of them")
        return row

    def _source(self, budget: float) -> int:
        """The training, by its length, that answers for a budget."""
        if self.training is not None and budget <= self.training:
            return self.training
        return int(budget) if budget in self.budgets else self.budgets[-1]

    def _runs(self, row: int, column: _Column) -> int:
        if column.single is not None:
            return max(1, int(np.isfinite(column.single[row]).sum()))
        if self._correct is None or self._n_runs is None or column is not self._columns[None, None]:
            return 1
        return max(1, int(self._n_runs.item(row)))

    def _single_val(self, row: int, column: _Column, run: int) -> float:
        if column.single is None and self._correct is not None:
            return float(self._correct.item(row, run) / 250)
        return float((column.val if column.single is None else column.single[:, run]).item(row))

    def _entries(self, table: Mapping[str, Array]) -> Iterator[tuple[tuple[str | None, int | None], _Column]]:
        """The columns by data set and budget, and by the defaults `None`."""
        for name, split in DATASETS.items():
            answering = [budget for budget in self.budgets if budget >= (self.training or 0)]
            for budget in (b for b in answering if f"{split.column}_val_{b}" in table):
                column = self._column(table, name, budget)
                datasets = (name, None) if name == self.datasets[0] else (name,)
                epochs = (budget, None) if budget == self.budgets[-1] else (budget,)
                yield from (((d, e), column) for d in datasets for e in epochs)

    def _column(self, table: Mapping[str, Array], name: str, budget: int) -> _Column:
        prefix, none = DATASETS[name].column, np.full(self._size, np.nan)
        val, test = (table.get(f"{prefix}_{part}_{budget}", none) for part in _PARTS)
        recorded = table.get(f"valid_time_s_{DATASETS[name].time}_{budget}", np.zeros(self._size))
        validation = np.nan_to_num(recorded.astype(float), nan=0.0)
        seconds = self._epoch_seconds(table, name, budget) * budget + validation
        return _Column(val, test, seconds, validation, budget, table.get(f"{prefix}_val_{budget}_runs"))

    def _epoch_seconds(self, table: Mapping[str, Array], name: str, budget: int) -> Array:
        """Those of this budget, else of the longest; CIFAR-100 has twice as many pictures as half of CIFAR-10."""
        times = [(DATASETS[name].time, 1), ("c10val", 2)][: 2 if name == "cifar100" else 1]
        for known in (budget, self.budgets[-1]):
            for time, factor in times:
                if (key := f"train_time_s_{time}_{known}") in table:
                    return table[key].astype(float) * factor / known
        return np.full(self._size, np.nan)

    def _stopped_early(self, row: int, name: str, budget: int, run: int | None) -> Record:
        source = name, self._source(budget)
        if budget != int(budget) or budget >= source[1] or source not in self._curves:
            raise ValueError(self._no_curve(name, budget))
        column, after = self._columns[source], int(budget) - 1
        validation = column.validation.item(row)
        seconds = (column.seconds.item(row) - validation) * budget / source[1] + validation
        if run is not None and source in self._single_curves:
            single = self._single_curves[source]
            return Record(single.item(row, run % self._runs(row, column), after), None, seconds, budget)
        return Record(self._curves[source].item(row, after), None, seconds, budget)

    def _no_curve(self, name: str, budget: int) -> str:
        text = f"{self.path} has no validation accuracy on {name} after {budget} epochs; it has {self.budgets}"
        others = [other for other in self.budgets[:-1] if budget < other and (name, other) in self._curves]
        if name == self.datasets[0]:
            return f"{text}; convert the official files for the epochs in between"
        text += ", and between them the benchmark recorded accuracies on pictures of the test set only"
        return f"{text}; for the curve of {others[0]} epochs give training={others[0]}" if others else text
