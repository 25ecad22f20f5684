"""Every recipe below recipes/query runs through the command line, with a few trials on a few small batches."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path

import pytest
import yaml

from lightning_nas.cli import main
from lightning_nas.query_runs import is_query
from lightning_nas.spaces import get_space

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


def write_own_table(path: Path) -> None:
    """Eight rows of two columns."""
    space, rng = get_space("nasbench201"), random.Random(0)
    rows = [f"{space.format(space.sample(rng))},{80 + number}" for number in range(8)]
    path.write_text("\n".join(["genotype,val", *rows]))


def kept(name: str) -> list[tuple[int, float | None]]:
    """Number and budget of the trials in the history of a recipe."""
    with sqlite3.connect(Path("runs", name, "history.sqlite")) as file:
        return list(file.execute("SELECT number, budget FROM results ORDER BY number"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_query_recipe_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    recipe = yaml.safe_load(path.read_text())
    oracle = recipe["model"]["init_args"]["oracle"]["class_path"].rsplit(".", 1)[1]
    trained, shared = oracle == "TrainingOracle", oracle == "SupernetOracle"
    if path.stem == "own_table_random":
        write_own_table(tmp_path / "mine.csv")
    elif oracle == "TableOracle" and not (DATA / "nb201.npz").is_file():
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
    assert f"runs/{name}/history.sqlite" in said
    assert [number for number, _ in kept(name)] == [0, 1, 2]
    if trained:
        assert f"runs/{name}/trainings" in said


@pytest.mark.parametrize("kind", ["asha", "halving", "hyperband"])
def test_multi_fidelity_recipes_reach_the_second_training_of_the_table_and_go_on_when_run_again(
    kind: str, benchmark_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_NAS_DATA", str(benchmark_data))
    monkeypatch.chdir(tmp_path)
    name = f"nasbench201_{kind}"
    options = ["--config", str(ROOT / "recipes" / "query" / f"{name}.yaml"), "--trainer.enable_progress_bar=false"]
    options += ["--model.searcher.n=17"] if kind == "halving" else []
    for trials in (17, 20):
        main(["search", *options, f"--model.trials={trials}"])
        found = kept(name)
        assert [number for number, _ in found] == list(range(trials))
    assert {round(budget or 0, 6) for _, budget in found} == {12, 200}
    summary = json.loads((tmp_path / "runs" / name / "version_1" / "summary.json").read_text())
    assert summary["failed"] == {}
    long = sum(round(budget or 0) == 200 for _, budget in found)
    assert summary["spent"]["epochs"] == 12 * (20 - long) + 200 * long
