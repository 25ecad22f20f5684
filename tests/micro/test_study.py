"""A study on a planted table: it resumes, its figures are those of the records, and its rule is one for all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_nas.methods import AdamTheta
from lightning_nas.micro import MicroSetting, MicroTable, run_study, write_table
from lightning_nas.micro.contestants import CONTESTANTS, Schedule
from lightning_nas.micro.report import edge_correlations, summarise

SETTING = MicroSetting("small_sep")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Each cell's accuracy is 40 % and two points for each convolution."""
    space = SETTING.network_space
    records = [
        {"cell": text, "seed": seed, "val": 0.4 + 0.02 * text.count("conv"), "test": 0.4 + 0.02 * text.count("conv")}
        | {"parameters": 1, "seconds": 1.0}
        for text in {space.format(space.canonical(cell)) for cell in space.cells()}
        for seed in range(2)
    ]
    write_table(tmp_path / "table.csv", SETTING, records)
    return tmp_path / "table.csv"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 255, (400, 16, 16, 3), dtype=np.uint8), np.arange(400) % 4
    np.savez(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    return tmp_path / "tiny.npz"


def test_a_study_resumes_and_reports(
    tmp_path: Path, table: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    names = ["DARTS", "few-shot"]

    def run(methods: list[str]) -> None:
        run_study(str(pictures), str(out), epochs=2, seeds=1, methods=methods, table=str(table))

    run(names[:1])
    first = (out / "runs.jsonl").read_text()
    run(names)
    lines = (out / "runs.jsonl").read_text().splitlines()
    assert lines[0] + "\n" == first
    assert [json.loads(line)["method"] for line in lines] == names
    text = (out / "study.md").read_text()
    assert all(f"| {name} | 1 |" in text for name in names)
    assert "| random search, trained alone | 1000 |" in text
    assert text in capsys.readouterr().out
    assert (out / "study.png").stat().st_size > 10_000
    record = json.loads(lines[0])
    assert [e["epoch"] for e in record["epochs"]] == [0, 1]
    assert len(record["cells"]) == 42
    assert "lambda_max" in record["epochs"][0]
    with pytest.raises(ValueError, match="unknown methods"):
        run(["nothing"])


def record(genotype: str, mean: float) -> dict:  # type: ignore[type-arg]
    """A run whose weights say what the planted table does, or the contrary."""
    space = SETTING.network_space
    cells = {space.format(space.canonical(c)): mean * space.format(c).count("conv") for c in space.cells()}
    last = {"epoch": 3, "genotype": genotype, "lambda_max": 0.5, "mean": {"normal": [[0.5 - mean, 0.5 + mean]] * 5}}
    without = {"skip_connect": 0.5 + mean, "sep_conv_3x3": 0.5 - mean}  # accuracy
    decisions = [{"decision": d.name, "scores": without} for d in space.decisions["normal"]]
    return {
        "genotype": genotype,
        "epochs": [last],
        "supernet_acc": 0.5,
        "vertex_acc": 0.3,
        "cells": cells,
        "seconds": 7.0,
        "scores": {"PerturbationSelection": decisions},
    }


def test_figures_of_a_planted_run(table: Path) -> None:
    found, space = MicroTable.load(table), SETTING.network_space
    best = space.format(max(found.test, key=found.accuracy))
    row = summarise([record(best, 0.1), record(best, 0.2)], found)
    assert row["accuracy"] == pytest.approx((48.0, 0.0))
    assert (row["regret"], row["rank"], row["skips"]) == ((0.0, 0.0), (1.0, 0.0), (0.0, 0.0))
    assert row["gap"] == pytest.approx((20.0, 0.0))
    assert row["tau"][0] == pytest.approx(1.0)
    for sign in (1, -1):
        assert edge_correlations(record(best, 0.1 * sign), found)["alpha"] * sign > 0.85
        assert edge_correlations(record(best, 0.1 * sign), found)["drop"] * sign > 0.85


def test_the_rule_of_the_schedule() -> None:
    published = Schedule(epochs=50, batches=390)
    assert published.span(15, of=50) == 15
    assert published.adam(AdamTheta(), of=50).lr == pytest.approx(3e-4, rel=2e-3)
    short = replace(published, epochs=10, batches=62)
    assert short.span(15, of=50) == 3
    assert short.adam(AdamTheta(), of=50).lr == pytest.approx(3e-4 * 25_000 / 64 * 50 / 620)
    assert short.span(1, of=50) == 1  # never nothing
    assert {"DARTS", "DARTS 2nd", "SNAS", "GDAS", "DSNAS", "DrNAS", "NASP", "PC-DARTS", "SDARTS-RS"} <= set(CONTESTANTS)
