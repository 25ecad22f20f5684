"""The results of a search, on disk before anybody learns from them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from filelock import FileLock, Timeout

from lightning_nas.query.described import differences
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


_TABLES = (
    "search (space TEXT NOT NULL)",
    f"results ({', '.join(_COLUMNS)})",
    "settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "begun (number INTEGER PRIMARY KEY, times INTEGER NOT NULL)",
)


class History:
    """Results by the number of their trial, in an SQLite file that survives a kill at any moment.

    A search that is started again finds its results here and asks nobody twice. One process at a time may write; any
    may read the file. Without a path the history lives in memory.

    Args:
        space: The space of the genotypes.
        path: The file; it is made if there is none.

    Attributes:
        patience: Seconds that a program which holds the file is waited for.

    Raises:
        ValueError: If another process writes to the file, if it is no history, or if it is one of another space.
        OSError: If the file cannot be written.

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

    patience: ClassVar[float] = 60.0

    def __init__(self, space: Space, path: str | Path | None = None) -> None:
        self.space, self.path = space, None if path is None else Path(path)
        self._results: dict[int, Result] = {}
        self._begun: dict[int, int] = {}
        self._settings: dict[str, Any] = {}
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
            self._file = sqlite3.connect(path, timeout=self.patience)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=FULL")
            with self._file:
                for table in _TABLES:
                    self._file.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                found = self._file.execute("SELECT space FROM search").fetchone()
                if found is None:
                    self._file.execute("INSERT INTO search VALUES (?)", (self.space.name,))
            names = ", ".join(column.split()[0] for column in _COLUMNS[:-1])
            rows = self._file.execute(f"SELECT {names} FROM results ORDER BY number").fetchall()  # noqa: S608
            self._begun = dict(self._file.execute("SELECT number, times FROM begun").fetchall())
            settings = self._file.execute("SELECT name, value FROM settings").fetchall()
        except sqlite3.OperationalError as error:
            raise self._unwritable(error) from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is no history of a search ({error}); give another file") from None
        if found is not None and found[0] != self.space.name:
            raise ValueError(
                f"{path} is the history of a search in {found[0]!r}, this one is in {self.space.name!r}; give another"
                " file"
            )
        self._settings = {name: json.loads(value) for name, value in settings}
        self._results = {row[0]: self._read(row) for row in rows}

    def _write(self, statement: str, values: Sequence[float | str | None]) -> None:
        """Change the file, if there is one; once this returns, it is on the disk."""
        if self._file is None:
            return
        try:
            with self._file:
                self._file.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: sqlite3.OperationalError) -> OSError:
        return OSError(
            f"{self.path} cannot be written ({error}); end the program that has held it for {self.patience:g} s, or"
            " make room on the disk, and start the search again: it goes on where it was"
        )

    def bind(self, settings: Mapping[str, Any]) -> None:
        """Take note of the settings of a search, or refuse those that the file does not go with.

        Files that are older than such notes go with any.

        Args:
            settings: Descriptions of what the results depend on, by name, of plain values.

        Raises:
            ValueError: If the results were made with other settings; the message names them.
        """
        here: dict[str, Any] = json.loads(json.dumps(settings))
        found = differences(self._settings, here)
        if found:
            raise ValueError(
                f"{self.path} has the results of a search with other settings: {'; '.join(found)}. Give this search"
                " another history, or the old settings (settings that change no answer are left out by the describe()"
                " of the searcher's or the oracle's class)"
            )
        for name in here.keys() - self._settings.keys() if self.path is not None else ():
            self._write("INSERT INTO settings VALUES (?, ?)", (name, json.dumps(here[name])))
            self._settings[name] = here[name]

    def begun(self, trial: Trial) -> int:
        """How often a trial was begun, and nothing came of it."""
        return self._begun.get(trial.number, 0)

    def begin(self, trial: Trial) -> None:
        """Take note that a trial begins in this process, which may die during it."""
        self._begun[trial.number] = self.begun(trial) + 1
        self._write("INSERT OR REPLACE INTO begun VALUES (?, ?)", (trial.number, self._begun[trial.number]))

    def withdraw(self, trial: Trial) -> None:
        """The process has outlived a trial that was begun and came to no end."""
        self._begun[trial.number] = self.begun(trial) - 1
        self._write("INSERT OR REPLACE INTO begun VALUES (?, ?)", (trial.number, self._begun[trial.number]))

    def _read(self, row: tuple[Any, ...]) -> Result:
        number, genotype, budget, continues, score, cost, epochs, source, test, error, metrics, note = row
        trial = Trial(number, self.space.parse(genotype), budget, continues, note=json.loads(note))
        score = float("nan") if score is None else score  # SQLite keeps NaN as NULL
        return Result(trial, score, cost, epochs, source, test, json.loads(metrics), error)

    def add(self, result: Result) -> None:
        """Keep a result; once this returns, it is on the disk.

        Raises:
            ValueError: If there is a result of this trial already.
            OSError: If the file cannot be written.
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
            self._write(f"INSERT INTO results ({names}) VALUES ({marks})", values)  # noqa: S608
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
