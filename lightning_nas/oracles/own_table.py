"""A user's own table as a benchmark, and the part of a space that a table has."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record, read_npz
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.restricted import RestrictedSpace

__all__ = ["OwnTable", "TableSpace"]

_COLUMNS = "expected the columns genotype, val and perhaps test, seconds, epochs"


class OwnTable(Benchmark):
    """A table of your own: what each genotype has reached.

    A file is a ``.csv`` or ``.npz`` with the columns ``genotype`` (text) and ``val``, and if there are, ``test``,
    ``seconds`` and ``epochs``. In a recipe give ``space`` and ``path``.

    Args:
        space: Name of a search space, or a space.
        records: Genotype -> its record. A genotype is found in each of its forms (`Space.canonical`).
        path: Or the file that has them.

    Raises:
        ValueError: Unless exactly one of `records` and `path` is given; if the table is empty or has an architecture
            twice, or an accuracy is no number, or the file is none; the message names the rows. In a query, if it does
            not have the genotype.

    Example:
        >>> import random
        >>> space = get_space("nasbench201")
        >>> rows = {space.sample(random.Random(k)): Record(80.0 + k, None, 60.0, 12) for k in range(3)}
        >>> OwnTable(space, rows).best()[0]
        82.0
    """

    def __init__(
        self,
        space: str | Space,
        records: Mapping[Genotype, Record] | None = None,
        path: str | Path | None = None,
    ) -> None:
        if (records is None) == (path is None):
            raise ValueError("give the records of a table or the path of its file, and not both")
        self.space, self.name = get_space(space), "own table"
        self.path = None if path is None else Path(path)
        if self.path is None:
            named = ((f"{self.space.format(g)!r}", g, record) for g, record in (records or {}).items())
            self.records = _distinct(self.space, "the table", named)
        else:
            self.records = _distinct(self.space, str(self.path), _read(self.path, self.space))
        self.datasets, self.budgets = ("own",), (max(int(record.epochs) for record in self.records.values()),)

    @classmethod
    def read(cls, path: str | Path, space: str | Space) -> OwnTable:
        """The table of a file, as ``OwnTable(space, path=path)``.

        Args:
            path: The ``.csv`` or ``.npz``.
            space: Name of the genotypes' space, or the space.

        Raises:
            ValueError: If it is no such file, or a line does not fit; the message names it.
        """
        return cls(space, path=path)

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        """The row of a genotype, whatever the budget."""
        found = self.records.get(genotype) or self.records.get(self.space.canonical(genotype))
        if found is None:
            raise ValueError(f"the table has no row for {self.space.format(genotype)}; see TableSpace for its rows")
        return found

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """One."""
        return 1

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        """Always, by your word: a row costs once, whatever the budget."""
        return True

    def genotypes(self) -> Iterator[Genotype]:
        """All rows."""
        return iter(self.records)

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        """The largest validation and the largest test accuracy; NaN for the latter if there is none."""
        tests = [record.test for record in self.records.values() if record.test is not None]
        return max(record.val for record in self.records.values()), max(tests, default=float("nan"))


class TableSpace(RestrictedSpace):
    """The architectures that a table has, as a space: a searcher on it proposes no others.

    Args:
        benchmark: The table.
        within: Decisions in which neighbors may differ, see `RestrictedSpace`.

    Raises:
        ValueError: If the table has fewer than two architectures.

    Example:
        >>> import random
        >>> from lightning_nas.query import RandomSearch
        >>> space = get_space("nasbench201")
        >>> rows = {space.sample(random.Random(k)): Record(80.0 + k, None, 60.0, 12) for k in range(3)}
        >>> table = OwnTable(space, rows)
        >>> {trial.genotype for trial in RandomSearch(TableSpace(table)).ask(20)} == set(table.genotypes())
        True
    """

    def __init__(self, benchmark: Benchmark, within: int = 1) -> None:
        super().__init__(benchmark.space, benchmark.genotypes(), within)


def _distinct(space: Space, table: str, named: Iterable[tuple[str, Genotype, Record]]) -> dict[Genotype, Record]:
    """The rows by their canonical genotypes."""
    records: dict[Genotype, Record] = {}
    first: dict[Genotype, str] = {}
    for row, genotype, record in named:
        key = space.canonical(genotype)
        if key in first:
            raise ValueError(
                f"{table}: {first[key]} and {row} are one architecture, {space.format(key)}; give one row for it, for"
                " example the mean"
            )
        if not math.isfinite(record.val):
            raise ValueError(f"{table}, {row}: val is {record.val}; give a number, or leave the row out")
        first[key], records[key] = row, record
    if not records:
        raise ValueError(f"{table} has no rows; give at least one genotype with its accuracy")
    return records


def _read(path: Path, space: Space) -> Iterator[tuple[str, Genotype, Record]]:
    """The rows of a file with their names."""
    for number, row in enumerate(_rows(path), start=1):
        try:
            seconds, epochs = (float(row.get(name) or 0.0) for name in ("seconds", "epochs"))
            test = math.nan if row.get("test") in (None, "") else float(row["test"])
            record = Record(float(row["val"]), None if math.isnan(test) else test, seconds, epochs)
            if not math.isfinite(epochs):
                raise ValueError(f"epochs is {epochs}")
            genotype = space.parse(str(row["genotype"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {number}: {type(error).__name__} {error}; {_COLUMNS}") from None
        yield f"row {number}", genotype, record


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
