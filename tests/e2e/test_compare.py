"""The comparison of recipes over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lightning_nas.cli import main

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "query"


def test_recipes_are_compared_at_the_same_budget_and_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for name in ("digits_random", "digits_halving"):
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        oracle = recipe["model"]["init_args"]["oracle"]["init_args"]
        oracle |= {"channels": 4, "epochs": 3, "trainer": {"limit_train_batches": 1, "limit_val_batches": 1}}
        if name == "digits_halving":
            recipe["model"]["init_args"]["searcher"]["init_args"] |= {"n": 3, "max_budget": 3}
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(recipe))
    for seeds in (1, 2):
        main(["compare", f"[{paths[0]},{paths[1]}]", "--epochs=5", f"--seeds={seeds}", "--out=out"])
    found = {row["recipe"]: row for row in json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]}
    assert found["digits_random"]["trials"][0] == 2  # of three epochs each: the second reaches five
    assert found["digits_halving"]["trials"][0] == 4  # three of one epoch, one goes on for two
    assert all(row["failed"][0] == 0 and row["test"][0] > 0 for row in found.values())
    assert "out/compare.png" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").glob("*.sqlite")) == [
        f"{name}-{seed}.sqlite" for name in ("digits_halving", "digits_random") for seed in (0, 1)
    ]


def test_what_cannot_be_compared_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RECIPES.parent / "search" / "digits.yaml"
    with pytest.raises(SystemExit):
        main(["compare", f"[{recipe}]"])
    assert "give recipes with a QuerySearch" in capsys.readouterr().err
