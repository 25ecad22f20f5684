"""Tables of micro-benchmarks: what is written is read back, ranks and regrets, resuming a build."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lightning_nas.micro import MicroSetting, MicroTable, build_micro, write_table
from lightning_nas.micro.report import random_search
from lightning_nas.micro.runs import append, read
from lightning_nas.spaces import SMALL_SPACES, SmallSpace


def table_of(tmp_path: Path, name: str = "small_sep") -> MicroTable:
    """A table in which a cell is better the more convolutions it has."""
    space, draw = SmallSpace(name), np.random.default_rng(0)
    records = [
        {
            "cell": space.format(cell),
            "seed": seed,
            "val": 0.4 + 0.02 * space.format(cell).count("conv") + 0.001 * draw.random(),
            "test": 0.4 + 0.02 * space.format(cell).count("conv") + 0.001 * draw.random(),
            "parameters": 100,
            "seconds": 2.0,
        }
        for seed in (1, 0, 2)
        for cell in {space.canonical(cell) for cell in space.cells()}
    ]
    write_table(tmp_path / "table.csv", MicroSetting(name), records)
    return MicroTable.load(tmp_path / "table.csv")


@pytest.mark.parametrize(("name", "cells", "classes"), [("small_sep", 48, 42), ("small_ops", 49, 49)])
def test_small_spaces_count_their_cells(name: str, cells: int, classes: int) -> None:
    space = SmallSpace(name)
    found = list(space.cells())
    assert len(set(found)) == len(found) == cells
    assert len({space.canonical(cell) for cell in found}) == classes
    assert all(space.check(cell) is cell for cell in found)
    assert set(SMALL_SPACES) == {"small_sep", "small_ops"}
    with pytest.raises(ValueError, match="unknown small space"):
        SmallSpace("other")


@pytest.mark.parametrize("name", list(SMALL_SPACES))
def test_a_table_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    table = table_of(tmp_path, name)
    space = table.setting.network_space
    assert set(table.test) == {space.canonical(cell) for cell in space.cells()}
    assert all(len(runs) == 3 for runs in (*table.val.values(), *table.test.values()))
    most, least = max(table.test, key=table.accuracy), min(table.test, key=table.accuracy)
    assert (table.rank(most), table.regret(most)) == (1, 0.0)
    assert table.rank(least) == len(table.test)
    assert table.regret(least) == pytest.approx(table.spread)
    ranked = sorted(table.test, key=table.rank)
    assert all(table.accuracy(a) >= table.accuracy(b) for a, b in pairwise(ranked))
    assert table.deviation == pytest.approx(
        np.sqrt(np.mean([np.var(runs, ddof=1) for runs in table.test.values()])), rel=1e-12
    )
    assert table.seconds[most] == 2.0


def test_every_form_of_a_cell_has_the_accuracy_of_its_class(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    space = table.setting.network_space
    others = [cell for cell in space.cells() if space.canonical(cell) != cell]
    assert len(others) == 6
    assert all(table.accuracy(cell) == table.accuracy(space.canonical(cell)) for cell in others)


def test_random_search_gets_better_with_its_budget(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    few, many, all_cells = (random_search(table, draws, repeats=200)["accuracy"][0] for draws in (1, 5, 42))
    mean = np.mean(
        [table.accuracy(table.setting.network_space.canonical(c)) for c in table.setting.network_space.cells()]
    )
    assert few == pytest.approx(mean, abs=0.5)
    assert few < many < all_cells <= max(map(table.accuracy, table.test))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no micro-benchmark 'nothing'"):
        MicroTable.load("nothing")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv is no table of a micro-benchmark"):
        MicroTable.load(tmp_path / "other.csv")


def test_a_log_survives_a_torn_line_and_refuses_another_setting(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append(log, {"cell": "a", "setting": {"epochs": 1}})
    with log.open("a") as file:
        file.write('{"cell": "b", "sett')
    append(log, {"cell": "c", "setting": {"epochs": 1}})
    assert [record["cell"] for record in read(log, {"epochs": 1})] == ["a", "c"]
    with pytest.raises(ValueError, match="another setting"):
        read(log, {"epochs": 2})


@pytest.fixture
def tiny_pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 255, (40, 16, 16, 3), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return tmp_path / "tiny.npz"


def test_a_build_goes_on_where_it_was_killed(
    tmp_path: Path, tiny_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallSpace, "cells", lambda self: iter(list(_first_cells(self))))
    out = tmp_path / "out" / "table.csv"

    def build() -> None:
        build_micro(str(tiny_pictures), str(out), "small_ops", seeds=2, epochs=1, channels=2, cells=3)

    build()
    lines = out.with_suffix(".jsonl").read_text().splitlines()
    assert len(lines) == 4
    out.with_suffix(".jsonl").write_text("\n".join(lines[:3]) + "\n")
    build()
    again = out.with_suffix(".jsonl").read_text().splitlines()
    assert again[:3] == lines[:3]
    kept, redone = ({k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (lines[3], again[3]))
    assert kept == redone  # the same training to the bit
    assert len(MicroTable.load(out).test) == 2
    with pytest.raises(ValueError, match="seeds=0"):
        build_micro(str(tiny_pictures), str(out), seeds=0)


def _first_cells(space: SmallSpace) -> list:  # type: ignore[type-arg]
    return [space.from_rows({"normal": {0: a, 1: 2}}) for a in (2, 3)]
