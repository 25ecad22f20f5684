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
from lightning_nas.spaces.nats_size import NATSSizeSpace

__all__ = ["NATSSize", "NATSTable"]

_PARTS = ("val", "test")


class _Column(NamedTuple):
    val: Array
    test: Array
    seconds: Array
    validation: Array
    epochs: int


class NATSTable(Benchmark):
    """A table of NATS-Bench: accuracies on three data sets at a few budgets, each budget a training of its own.

    A query costs the recorded seconds of the training (for CIFAR-10 that on half of the training pictures) and of one
    validation; tables made from other sources than the published files may lack the validation, which then counts
    nothing. Where the table has the accuracy after every epoch, budgets in between are answered from the longest
    training, stopped early; its learning rate is then still high. They have no test accuracy.

    Attributes:
        file: The table's usual name.
        archs: Name of the array that holds the architectures.
    """

    file: ClassVar[str]
    archs: ClassVar[str]
    datasets = tuple(DATASETS)

    def __init__(self, path: str | os.PathLike[str] | None, space: Space) -> None:
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
        self._curves = {
            (name, budget): table[key]
            for name, split in DATASETS.items()
            for budget in self.budgets
            if (key := f"{split.column}_val_curve_{budget}") in table
        }
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
            return self._stopped_early(row, *self.choose(dataset, epochs))
        val, test = column.val.item(row), column.test.item(row)
        if run is not None and self._correct is not None and (runs := self._runs(row, column)) > 1:
            val = self._correct.item(row, run % runs) / 250
        if val != val:
            raise ValueError(f"{self.path} has no accuracy of {self.space.format(genotype)} at {column.epochs} epochs")
        return Record(val, test if test == test else None, column.seconds.item(row), column.epochs)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """Runs that can be asked for one by one: those of CIFAR-10's longest training, where the table has them.

        They differ in their validation accuracy; the test accuracy of a query is always the mean over runs.
        """
        row, column = self._row(genotype), self._columns.get(self.choose(dataset, epochs))
        return 1 if column is None else self._runs(row, column)

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

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """Parameters and multiply-adds of the CIFAR-10 network in millions, where the table has them.

        Raises:
            ValueError: If the table has no such architecture.
        """
        row = self._row(genotype)
        return {name: values.item(row) for name, values in self._metrics.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return self._size

    def _row(self, genotype: Genotype) -> int:
        row = self._rows.get(genotype)
        if row is None:
            text = self.space.format(self.space.check(genotype))
            raise ValueError(f"{self.path} has no architecture {text}; it has {self._size}; ask for one of them")
        return row

    def _runs(self, row: int, column: _Column) -> int:
        if self._correct is None or self._n_runs is None or column is not self._columns[None, None]:
            return 1
        return max(1, int(self._n_runs.item(row)))

    def _entries(self, table: Mapping[str, Array]) -> Iterator[tuple[tuple[str | None, int | None], _Column]]:
        """The columns by data set and budget, and by the defaults `None`."""
        for name, split in DATASETS.items():
            for budget in (b for b in self.budgets if f"{split.column}_val_{b}" in table):
                column = self._column(table, name, budget)
                datasets = (name, None) if name == self.datasets[0] else (name,)
                epochs = (budget, None) if budget == self.budgets[-1] else (budget,)
                yield from (((d, e), column) for d in datasets for e in epochs)

    def _column(self, table: Mapping[str, Array], name: str, budget: int) -> _Column:
        prefix, none = DATASETS[name].column, np.full(self._size, np.nan)
        val, test = (table.get(f"{prefix}_{part}_{budget}", none) for part in _PARTS)
        recorded = table.get(f"valid_time_s_{DATASETS[name].time}_{budget}", np.zeros(self._size))
        validation = np.nan_to_num(recorded.astype(float), nan=0.0)
        return _Column(val, test, self._epoch_seconds(table, name, budget) * budget + validation, validation, budget)

    def _epoch_seconds(self, table: Mapping[str, Array], name: str, budget: int) -> Array:
        """Those of this budget, else of the longest; CIFAR-100 has twice as many pictures as half of CIFAR-10."""
        times = [(DATASETS[name].time, 1), ("c10val", 2)][: 2 if name == "cifar100" else 1]
        for known in (budget, self.budgets[-1]):
            for time, factor in times:
                if (key := f"train_time_s_{time}_{known}") in table:
                    return table[key].astype(float) * factor / known
        return np.full(self._size, np.nan)

    def _stopped_early(self, row: int, name: str, budget: int) -> Record:
        longest = self.budgets[-1]
        between = budget == int(budget) and budget < longest and budget not in self.budgets
        if not between or (name, longest) not in self._curves:
            raise ValueError(self._no_curve(name, budget))
        column = self._columns[name, longest]
        validation = column.validation.item(row)
        seconds = (column.seconds.item(row) - validation) * budget / longest + validation
        return Record(self._curves[name, longest].item(row, int(budget) - 1), None, seconds, budget)

    def _no_curve(self, name: str, budget: int) -> str:
        text = f"{self.path} has no validation accuracy on {name} after {budget} epochs; it has {self.budgets}"
        if name == self.datasets[0]:
            return f"{text}; convert the official files for the epochs in between"
        return f"{text}, and between them the benchmark recorded accuracies on pictures of the test set only"


class NATSSize(NATSTable):
    """NATS-Bench's size space: 32,768 networks of other widths, trained for 1, 12 and 90 epochs.

    Reference: Dong, Liu, Musial and Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and
    Size", TPAMI 2021.

    Args:
        path: The table that ``lightning-nas benchmark convert`` makes of the published folder, or the folder of
            ``nats_size.npz``; ``None`` for the folder that ``LIGHTNING_NAS_DATA`` names.

    Raises:
        ValueError: If there is no such table.

    Example:
        >>> import tempfile
        >>> columns = {f"{d}_{part}_90": [70.0] for d in ("c10", "c100", "in16") for part in ("val", "test")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns |= {"widths": [[8, 16, 64, 8, 32]], "train_time_s_c10val_90": [180.0]}
        ...     np.savez(f"{folder}/nats_size.npz", **columns)
        ...     table = NATSSize(folder)
        >>> table.query(table.space.parse("8:16:64:8:32"))
        Record(val=70.0, test=70.0, seconds=180.0, epochs=90)
    """

    name = "nats_size"
    budgets = (1, 12, 90)
    file = "nats_size.npz"
    archs = "widths"
    space: NATSSizeSpace

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(path, NATSSizeSpace())

    def read_archs(self, table: Mapping[str, Array]) -> Iterator[Genotype]:
        """The genotypes of the table's rows."""
        return map(self.space.from_widths, table["widths"].tolist())
