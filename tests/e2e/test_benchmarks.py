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


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("file", "cases"),
    [
        ("bench_steps", {"second", "exact", "drnas", "pt"}),
        ("bench_predictors", {"ensemble", "encode", "paths", "gcn", "bananas", "brp_nas"}),
    ],
)
def test_benchmarks_of_methods_run(file: str, cases: set[str], project: Path, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    command = [sys.executable, f"tests/benchmarks/{file}.py", "--small", "--repeats", "1", "--json", str(written)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    rows = json.loads(written.read_text())["rows"]
    assert set(rows) == cases
    for name, row in rows.items():
        assert name in done.stdout
        if name in {"bananas", "brp_nas"}:  # one side only, and only where there is the table
            assert "LIGHTNING_NAS_DATA" in row["skipped"] if "skipped" in row else row["ours_s"] > 0
            continue
        assert math.isfinite(row["times"])
        assert row["times"] == pytest.approx(row["reference_s"] / row["ours_s"])
