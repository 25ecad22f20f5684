"""The benchmark of the supernets runs from the project's root, on networks too small to say anything of seconds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {"darts", "nb201", "nb201-small", "partial", "one-path", "candidates", "many", "checkpoint", "formats"}


@pytest.mark.e2e
def test_supernet_benchmark_measures_every_case(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, "tests/benchmarks/bench_supernet.py", "--small", "--threads", "1"]
    written = tmp_path / "bench.json"
    done = subprocess.run([*command, "--json", str(written)], cwd=project, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    rows = json.loads(written.read_text())["rows"]
    assert {row["case"] for row in rows} == CASES
    for row in rows:
        costs = [row[name]["ratio"] for name in ("resident", "live", "calls", "kernels")]
        assert all(math.isfinite(ratio) and ratio > 0 for ratio in (row["ratio"], *costs)), row
        assert row["case"] in done.stdout
    dense = [row for row in rows if row["case"] in {"darts", "nb201", "partial"}]
    assert all(row["calls"]["ratio"] < 1 for row in dense)  # grouped calls are fewer, whatever the size
