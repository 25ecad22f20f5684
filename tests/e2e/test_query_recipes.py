"""Every recipe below recipes/query runs through the command line, with a few trials on a few small batches."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
import yaml

from lightning_nas.cli import main
from lightning_nas.query_runs import is_query

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes" / "query").glob("*.yaml"))
DATA = Path(os.environ.get("LIGHTNING_NAS_DATA", ROOT.parent / "shared" / "data"))
SMALL = ["channels=4", 'trainer={"limit_train_batches": 1, "limit_val_batches": 1}']
SEARCHERS_OWN = ("digits_genetic_cnn", "digits_cgp", "digits_hierarchical")


def test_there_are_recipes_and_they_are_told_from_others() -> None:
    assert len(FILES) >= 15
    assert all(is_query(["--config", str(path)]) for path in FILES)
    assert not is_query(["--config", str(ROOT / "recipes" / "search" / "digits.yaml")])
    assert not is_query(["--config=nowhere.yaml", "--model=DARTS"])


def train_supernet() -> None:
    """What the recipe that searches with shared weights begins with."""
    small = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--model.samples=1", "--model.batches=1"]
    main(["search", "--config", str(ROOT / "recipes" / "search" / "digits_spos.yaml"), *small])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_query_recipe_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    recipe = yaml.safe_load(path.read_text())
    oracle = recipe["model"]["init_args"]["oracle"]["class_path"].rsplit(".", 1)[1]
    trained, shared = oracle == "TrainingOracle", oracle == "SupernetOracle"
    if oracle == "TableOracle" and not (DATA / "nb201.npz").is_file():
        pytest.skip(f"there is no nb201.npz in {DATA}; set LIGHTNING_NAS_DATA")
    monkeypatch.setenv("LIGHTNING_NAS_DATA", str(DATA))
    monkeypatch.chdir(tmp_path)
    options = [f"--model.oracle.{option}" for option in SMALL] if trained else []
    if shared:
        train_supernet()
        options.append("--model.oracle.batches=1")
    options += ["--model.trials=3", "--trainer.enable_progress_bar=false"]
    if path.stem == "digits_asha":
        options.append("--model.executor=null")  # the executor has a test of its own
    main(["search", "--config", str(path), *options])
    name = recipe["trainer"]["logger"]["init_args"]["name"]
    folder = tmp_path / "runs" / name / "version_0"
    left = {file.name for file in folder.iterdir()}
    assert {"genotype.json", "cell.png", "regret.png", "summary.json", "config.yaml", "metrics.csv"} <= left
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["failed"] == {}
    said = capsys.readouterr().out
    assert all(file in said for file in ("genotype.json", "regret.png", "summary.json"))
    if trained or shared:
        assert f"runs/{name}/history.sqlite" in said
    if trained:
        assert f"runs/{name}/trainings" in said
        with sqlite3.connect(tmp_path / "runs" / name / "history.sqlite") as file:
            assert [row[0] for row in file.execute("SELECT number FROM results ORDER BY number")] == [0, 1, 2]
