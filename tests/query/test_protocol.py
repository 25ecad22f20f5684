"""The published comparison on NAS-Bench-201, on a made table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_nas.benchmarks import NASBench201
from lightning_nas.oracles import TableOracle
from lightning_nas.protocol import CONTESTANTS, PUBLISHED, run_protocol, simulate
from lightning_nas.query import BOHB, RegularizedEvolution
from lightning_nas.spaces import NB201_OPS


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """All cells; accuracy is the number of 3x3 convolutions, a training on CIFAR-100 costs twice that on CIFAR-10."""
    ops = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), axis=1).astype(np.uint8)
    good = 50.0 + (ops == NB201_OPS.index("nor_conv_3x3")).sum(axis=1)
    columns = {f"{d}_{part}_{e}": good for d in ("c10", "c100", "in16") for part in ("val", "test") for e in (12, 200)}
    seconds = np.full(5**6, 2000.0)
    np.savez(
        tmp_path / "nb201.npz",
        ops=ops,
        op_names=np.array(NB201_OPS),
        train_time_s_c10val_200=seconds,
        train_time_s_in16_200=6 * seconds,
        **columns,
    )
    return tmp_path


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_a_run_stops_before_it_exceeds_its_time(table: Path, name: str) -> None:
    oracle = TableOracle(NASBench201(table))
    run = simulate(CONTESTANTS[name](0, False), oracle, 120.0 * 25 + 119.0)
    assert run.trials == 25  # twelve epochs of ten seconds each
    assert run.incumbents[-1][1] == run.val == run.test
    assert [value for _, value in run.incumbents] == sorted({value for _, value in run.incumbents})
    with pytest.raises(ValueError, match="not enough for one trial"):
        simulate(CONTESTANTS[name](0, False), oracle, 100.0)


def test_settings_are_the_published_ones() -> None:
    evolution = CONTESTANTS["REA"](0, False)
    assert isinstance(evolution, RegularizedEvolution)
    assert (evolution.size, evolution.sample, evolution.replace) == (10, 3, True)
    bohb, one = (CONTESTANTS["BOHB"](0, curves) for curves in (True, False))
    assert isinstance(bohb, BOHB)
    assert isinstance(one, BOHB)
    rungs = [[(rung.n, int(rung.budget)) for rung in bracket] for bracket in bohb.schedule]
    assert rungs == [[(9, 1), (3, 4), (1, 12)], [(3, 4), (1, 12)], [(3, 12)]]
    assert [[rung.budget for rung in bracket] for bracket in one.schedule] == [[12.0]]


def test_bohb_reads_the_curve_where_the_table_has_it(table: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"runs": 1, "seconds": 12 * 120, "methods": ["BOHB"], "processes": 1}
    run_protocol(str(table), str(tmp_path / "without"), **arguments)
    with np.load(table / "nb201.npz") as file:
        columns = {name: file[name] for name in file.files}
    columns |= {f"{d}_val_curve_12": columns[f"{d}_val_12"][:, None] - np.arange(11, -1, -1) for d in ("c10", "in16")}
    (tmp_path / "curves").mkdir()
    np.savez(tmp_path / "curves" / "nb201.npz", **columns)
    run_protocol(str(tmp_path / "curves"), str(tmp_path / "with"), **arguments)
    found = [json.loads((tmp_path / name / "protocol.json").read_text()) for name in ("without", "with")]
    trials = [[row["trials"] for row in report["rows"]] for report in found]
    assert trials[0] == [12, 12, 12]
    # 9 trials of 1 epoch, 3 of 4, 1 of 12; 3 of 4, 1 of 12; 3 of 12; 9 of 1, 3 of 4, 1 of 12; 1 of 4, or more
    assert trials[1][1] == 12
    assert trials[1][0] == trials[1][2] > 20
    assert (
        "1.33, 4 and 12 epochs on cifar10, ImageNet16-120, else 12" in (tmp_path / "with" / "protocol.md").read_text()
    )
    assert "on none, else 12 alone" in (tmp_path / "without" / "protocol.md").read_text()


def test_the_report_compares_with_the_published_table(table: Path, tmp_path: Path) -> None:
    run_protocol(str(table), str(tmp_path / "out"), runs=2, seconds=1200, methods=["random"], processes=1)
    found = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert [row["trials"] for row in found["rows"]] == [10, 10, 10]  # as many on each data set
    run_protocol(
        str(table), str(tmp_path / "own"), runs=2, seconds=1200, methods=["random"], own_seconds=True, processes=1
    )
    own = json.loads((tmp_path / "own" / "protocol.json").read_text())
    assert [row["trials"] for row in own["rows"]] == [10, 5, 1]
    text = (tmp_path / "out" / "protocol.md").read_text()
    assert all(f"{mean:.2f} ± {deviation:.2f}" in text for mean, deviation in PUBLISHED["random"])
    assert (tmp_path / "out" / "protocol.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="known methods are"):
        run_protocol(str(table), methods=["grid"])
