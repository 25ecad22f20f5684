"""Mistakes in a search by queries end in one line."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_nas.cli import main
from lightning_nas.query import History


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search that takes no time."""
    monkeypatch.chdir(tmp_path)
    searcher = {"class_path": "lightning_nas.query.RandomSearch"}
    function = {"space": "nasbench201", "function": "builtins.hash"}
    oracle = {"class_path": "lightning_nas.oracles.FunctionOracle", "init_args": function}
    model = {"searcher": searcher, "oracle": oracle, "trials": 3, "history": "h.sqlite", "max_failures": 2}
    quiet: dict[str, Any] = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_checkpointing": False}
    path = tmp_path / "recipe.yaml"
    found = {"model": {"class_path": "lightning_nas.methods.QuerySearch", "init_args": model}, "trainer": quiet}
    path.write_text(yaml.safe_dump(found))
    return path


def mistake(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The last line of a search that ends with an error."""
    with pytest.raises(SystemExit) as ended:
        main(["search", *args])
    assert ended.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_a_malformed_recipe(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text("model: [1, 2\ntrainer: {")
    last = mistake(capsys, f"--config={recipe}")
    assert last.startswith(f"error: {recipe} is no YAML (while parsing a flow")
    recipe.write_bytes(b"model: \xff\xfe")
    assert f"{recipe} is no YAML ('utf-8' codec" in mistake(capsys, f"--config={recipe}")


def test_an_extra_that_is_not_installed(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    last = mistake(capsys, f"--config={recipe}", "--model.executor=lightning_nas.query.RayExecutor")
    assert last == "error: RayExecutor needs Ray: pip install 'lightning-nas[ray]'"


def test_a_broken_file(recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(history: History, result: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(History, "add", broken)
    assert mistake(capsys, f"--config={recipe}") == "error: database disk image is malformed"


def test_an_oracle_that_always_fails_and_other_settings(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--model.oracle.init_args.function=builtins.len"]
    last = mistake(capsys, f"--config={recipe}", *wrong, "--model.history=other.sqlite")
    assert last.startswith("error: all of the first 2 trials failed, the last one with: TypeError: object of type")
    main(["search", f"--config={recipe}"])
    last = mistake(capsys, f"--config={recipe}", *wrong)
    assert "h.sqlite has the results of a search with other settings: oracle.function was 'hash' and is 'len'" in last
