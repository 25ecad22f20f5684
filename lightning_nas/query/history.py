"""The results of a search, on disk before anybody learns from them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["History"]

_COLUMNS = (
    "number INTEGER PRIMARY KEY",
    "genotype TEXT NOT NULL",
    "budget REAL",
    "continues INTEGER",
    "score REAL",
    "cost REAL NOT NULL",
    "epochs REAL NOT NULL",
    "source TEXT NOT NULL",
    "test REAL",
    "error TEXT",
    "metrics TEXT NOT NULL",
    "note TEXT NOT NULL",
    "finished TEXT DEFAULT CURRENT_TIMESTAMP",
)


class History:
    """Results by the number of their trial, in an SQLite file that survives a kill at any moment.

    A search that is started again finds its results here and asks nobody twice. One process at a time may write; any
    may read the file. Without a path the history lives in memory.

    Args:
        space: The space of the genotypes.
        path: The file; it is made if there is none.

    Raises:
        ValueError: If another process writes to the file, if it is no history, or if it is one of another space.

    Example:
        >>> from lightning_nas.arch import Genotype
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> import random
        >>> history = History(space)
        >>> history.add(Result(Trial(0, space.sample(random.Random(0))), score=91.0))
        >>> len(history), history[0].score
        (1, 91.0)
    """

    def __init__(self, space: Space, path: str | Path | None = None) -> None:
        self.space, self.path = space, None if path is None else Path(path)
        self._results: dict[int, Result] = {}
        self._file: sqlite3.Connection | None = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{self.path}.lock", blocking=False, is_singleton=False)
            try:
                self._lock.acquire()
            except Timeout:
                raise ValueError(
                    f"another search writes to {self.path}; wait for its end, or give this one another history"
                ) from None
            try:
                self._open(self.path)
            except BaseException:
                self.close()
                raise

    def _open(self, path: Path) -> None:
        """Make or read the file."""
        try:
            self._file = sqlite3.connect(path)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=FULL")
            with self._file:
                self._file.execute("CREATE TABLE IF NOT EXISTS search (space TEXT NOT NULL)")
                self._file.execute(f"CREATE TABLE IF NOT EXISTS results ({', '.join(_COLUMNS)})")
                found = self._file.execute("SELECT space FROM search").fetchone()
                if found is None:
                    self._file.execute("INSERT INTO search VALUES (?)", (self.space.name,))
            names = ", ".join(column.split()[0] for column in _COLUMNS[:-1])
            rows = self._file.execute(f"SELECT {names} FROM results ORDER BY number").fetchall()  # noqa: S608
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is no history of a search ({error}); give another file") from None
        if found is not None and found[0] != self.space.name:
            raise ValueError(
                f"{path} is the history of a search in {found[0]!r}, this one is in {self.space.name!r}; give another"
                " file"
            )
        self._results = {row[0]: self._read(row) for row in rows}

    def _read(self, row: tuple[Any, ...]) -> Result:
        number, genotype, budget, continues, score, cost, epochs, source, test, error, metrics, note = row
        trial = Trial(number, self.space.parse(genotype), budget, continues, note=json.loads(note))
        score = float("nan") if score is None else score  # SQLite keeps NaN as NULL
        return Result(trial, score, cost, epochs, source, test, json.loads(metrics), error)

    def add(self, result: Result) -> None:
        """Keep a result; once this returns, it is on the disk.

        Raises:
            ValueError: If there is a result of this trial already.
        """
        trial = result.trial
        if trial.number in self._results:
            raise ValueError(f"the history has a result of trial {trial.number} already; each trial is told once")
        if self._file is not None:
            values: list[float | str | None]
            values = [trial.number, self.space.format(trial.genotype), trial.budget, trial.continues, result.score]
            values += [result.cost, result.epochs, result.source, result.test, result.error]
            values += [json.dumps(dict(result.metrics)), json.dumps(dict(trial.note))]
            marks = ", ".join("?" * len(values))
            names = ", ".join(column.split()[0] for column in _COLUMNS[: len(values)])
            with self._file:
                self._file.execute(f"INSERT INTO results ({names}) VALUES ({marks})", values)  # noqa: S608
        self._results[trial.number] = result

    def find(self, trial: Trial) -> Result | None:
        """The result of a trial, if it is known.

        Raises:
            ValueError: If the trial of this number was another one: the history is that of another search.
        """
        known = self._results.get(trial.number)
        if known is not None and known.trial != trial:
            there = f"{self.space.format(known.trial.genotype)} at budget {known.trial.budget}"
            raise ValueError(
                f"trial {trial.number} of {self.path or 'the history'} is {there}, this search asks for"
                f" {self.space.format(trial.genotype)} at budget {trial.budget}: it has another seed or other settings;"
                " give it another history"
            )
        return known

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(sorted(self._results.values(), key=lambda result: result.trial.number))

    def __getitem__(self, number: int) -> Result:
        return self._results[number]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.path is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
