"""Real training on two Ray workers, one of which dies, in a search that is killed and started again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_search import SEARCHERS, TRIALS, search

HERE = Path(__file__).parent


def rows(folder: Path) -> list[tuple[object, ...]]:
    """What the history knows, but for the times and the wording of errors."""
    if not (folder / "history.sqlite").exists():
        return []
    columns = "number, genotype, budget, continues, score, epochs, error IS NULL"
    with sqlite3.connect(folder / "history.sqlite") as file:
        if not file.execute("SELECT name FROM sqlite_master WHERE name = 'results'").fetchall():
            return []
        return file.execute(f"SELECT {columns} FROM results ORDER BY number").fetchall()  # noqa: S608


@pytest.mark.ddp
@pytest.mark.parametrize(
    "name", [name if name == "asha" else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHERS]
)
def test_a_killed_search_on_ray_makes_the_history_of_one_in_this_process(tmp_path: Path, name: str) -> None:
    ray, here = tmp_path / "ray", tmp_path / "here"
    ray.mkdir()
    command = [sys.executable, str(HERE / "killed_search.py"), name, str(ray), "ray"]
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(rows(ray)) < 4:
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = rows(ray)
    subprocess.run(
        command, env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    module = search(name, here, "here")
    assert module.searcher.failures == 1
    assert rows(ray)[: len(before)] == before
    assert rows(ray)[:TRIALS] == rows(here)[:TRIALS]
    assert [row[6] for row in rows(ray)[:TRIALS]] == [1, 1, 0, *[1] * (TRIALS - 3)]
