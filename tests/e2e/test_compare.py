"""The comparison of recipes over seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from lightning_nas import compare
from lightning_nas.cli import main

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "query"


def small(name: str, folder: Path, **oracle: Any) -> Path:
    """A recipe of trainings of one batch."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    few: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1}
    settings = recipe["model"]["init_args"]
    settings["oracle"]["init_args"] |= {"channels": 4, "epochs": 3, "trainer": few} | oracle
    settings["max_failures"] = 3
    if name == "digits_halving":
        settings["searcher"]["init_args"] |= {"n": 3, "max_budget": 3}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_recipes_are_compared_at_the_same_budget_and_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures: list[tuple[dict[str, list[compare.Search]], Figure]] = []
    draw = compare._picture

    def drawn(found: dict[str, list[compare.Search]]) -> Figure:
        pictures.append((found, draw(found)))
        return pictures[-1][1]

    monkeypatch.setattr(compare, "_picture", drawn)
    paths = [small(name, tmp_path) for name in ("digits_random", "digits_halving")]
    for seeds in (1, 2):
        main(["compare", f"[{paths[0]},{paths[1]}]", "--epochs=5", f"--seeds={seeds}", "--out=out"])
    found = {row["recipe"]: row for row in json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]}
    assert found["digits_random"]["trials"][0] == 2  # of three epochs each: the second reaches five
    assert found["digits_halving"]["trials"][0] == 4  # three of one epoch, one goes on for two
    assert all(row["failed"][0] == 0 and row["test"][0] > 0 for row in found.values())
    runs, figure = pictures[0]
    ((best, results, _),) = runs["digits_halving"]
    heights = [float(y) for y in figure.axes[0].lines[1].get_ydata()]
    assert heights[:3] == [max(result.score for result in results[: k + 1]) for k in range(3)]
    assert heights[3] == results[3].score == best.score  # the largest budget counts, whatever smaller ones promised
    assert "out/compare.png" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").glob("*.sqlite")) == [
        f"{name}-{seed}.sqlite" for name in ("digits_halving", "digits_random") for seed in (0, 1)
    ]


def test_what_cannot_be_compared_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RECIPES.parent / "search" / "digits.yaml"
    with pytest.raises(SystemExit):
        main(["compare", f"[{recipe}]"])
    assert "give recipes with a QuerySearch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", "[]"])
    assert "recipes=[]" in capsys.readouterr().err


def test_a_recipe_whose_trials_all_fail_ends_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = small("digits_random", tmp_path, monitor="val/typo")
    with pytest.raises(SystemExit):
        main(["compare", f"[{path}]", "--epochs=5", "--seeds=1"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: all of the first 3 trials failed, the last one with: ValueError: monitor='val/typo'")
