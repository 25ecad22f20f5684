"""A file with a line for each finished piece of a study, to which several processes contribute."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.progress import track

from lightning_nas.query import Processes

__all__ = ["append_row", "read_rows", "run_all"]

Row = Mapping[str, Any]


def run_all(calls: Sequence[Callable[[], Row]], file: Path, names: Sequence[str], processes: int) -> None:
    """Call all, and add what each returns to a file as soon as it is there.

    A call that fails does not stop the others.

    Args:
        calls: Functions that pickle, if there is more than one process.
        file: The file.
        names: Its columns.
        processes: Processes that share the calls; 1 for this one.

    Raises:
        RuntimeError: At the end, if some calls failed, with their first reasons.
    """
    failed: list[str] = []
    pool = Processes(processes) if processes > 1 else None
    try:
        jobs = iter(calls) if pool is None else (future.result for future in as_completed(map(pool.submit, calls)))
        for job in track(jobs, total=len(calls), description=f"{len(calls)} runs"):
            try:
                append_row(file, names, job())
            except Exception as error:  # one of many: the others are worth having
                failed.append(f"{type(error).__name__}: {error}")
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(calls)} runs failed, the others are in {file}; the same command tries them again."
            " Reasons: " + "; ".join(list(dict.fromkeys(failed))[:3])
        )


def append_row(file: Path, names: Sequence[str], row: Row) -> None:
    """Add a line to a file of comma-separated values, with a header if it is new; two processes may do so."""
    with FileLock(f"{file}.lock"), file.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(names))
        if handle.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def read_rows(file: Path, **kinds: Callable[[str], Any]) -> list[dict[str, Any]]:
    """The lines of such a file; none if it is not there.

    Args:
        file: The file.
        kinds: Column -> what its text becomes.
    """
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as handle:
        rows: list[dict[str, Any]] = list(csv.DictReader(handle))
    return [row | {name: kind(row[name]) for name, kind in kinds.items()} for row in rows]
