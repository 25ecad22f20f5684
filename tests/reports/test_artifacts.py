"""Files of a run: whole or not at all, readable again, and listed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lightning_nas.reports import list_artifacts, require_writable, save_drawing, write_genotype, write_summary
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces import GENOTYPES, SPACES, get_space, load_genotype


class Interrupted(BaseException):
    """Stops a program, like an interrupt from the keyboard."""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- whole or not at all


@pytest.mark.parametrize("error", [RuntimeError, OSError, Interrupted])
def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def half(path: Path) -> None:
        path.write_text("half of the te")
        raise error("disk full")

    with pytest.raises(error, match="disk full"):
        write_whole(tmp_path / "a.txt", half)
    assert names(tmp_path) == []


def test_a_write_that_fails_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def half(path: Path) -> None:
        path.write_text("ne")
        assert target.read_text() == "old"  # the target is not touched while the new one is written
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_whole(target, half)
    assert (names(tmp_path), target.read_text()) == (["a.txt"], "old")


def test_a_write_replaces_and_is_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("a longer old text")
    assert write_whole(target, lambda path: path.write_text("new")) == target
    assert (names(tmp_path), target.read_text()) == (["a.txt"], "new")
    assert target.stat().st_mode & 0o777 == 0o644


def test_the_temporary_file_has_the_ending_of_the_target(tmp_path: Path) -> None:
    seen: list[Path] = []
    write_whole(tmp_path / "cell.svg", lambda path: (seen.append(path), path.write_text("<svg/>")))
    assert seen[0].suffix == ".svg"
    assert seen[0].parent == tmp_path


def test_a_folder_in_the_place_of_the_target_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match=r"a\.txt"):
        write_whole(tmp_path / "a.txt", lambda path: path.write_text("x"))
    assert names(tmp_path) == ["a.txt"]


def test_a_drawing_that_fails_leaves_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Figure.savefig

    def savefig(figure: Figure, path: Path, **options: Any) -> None:
        draw(figure, path, **options)
        if Path(path).suffix == ".png":
            raise MemoryError("no room")

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(MemoryError, match="no room"):
        save_drawing(*load_genotype("darts_v2"), tmp_path / "cell")
    assert names(tmp_path) == ["cell.svg"]


# --- folders


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert require_writable(folder) == folder
    assert require_writable(folder) == folder
    assert names(tmp_path) == ["a", "a/b"]


@pytest.mark.parametrize("below", ["run", "run/deeper"])
@pytest.mark.parametrize(
    "write",
    [
        require_writable,
        lambda folder: write_genotype(*load_genotype("darts_v2"), folder),
        lambda folder: write_summary(folder, {}),
    ],
    ids=["folder", "genotype", "summary"],
)
def test_a_folder_that_cannot_be_is_named_with_advice(tmp_path: Path, below: str, write: Callable[[Path], Any]) -> None:
    (tmp_path / "file").write_text("kept")
    folder = tmp_path / "file" / below
    with pytest.raises(OSError, match="cannot write to the folder") as caught:
        write(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(folder)) in message
    assert "choose another folder" in message
    assert "Not a directory" in message
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "kept")


def test_a_regular_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match=r"cannot write to the folder .*file.* choose another folder"):
        require_writable(tmp_path / "file")


# --- genotype and summary


@pytest.mark.parametrize("name", list(GENOTYPES))
def test_published_genotypes_load_back_from_their_file(tmp_path: Path, name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("lightning_nas.reports.artifacts.save_drawing", lambda *_: [])  # drawn in other tests
    space, genotype = load_genotype(name)
    (path,) = write_genotype(space, genotype, tmp_path)
    for source in (path, str(path)):
        loaded, back = load_genotype(source)
        assert (loaded.name, back) == (space.name, genotype)


@pytest.mark.parametrize("name", list(SPACES))
def test_a_sample_is_written_three_times_and_loads_back(tmp_path: Path, name: str) -> None:
    space = get_space(name)
    genotype = space.sample(Random(3))
    folder = tmp_path / "new" / "folder"
    paths = write_genotype(space, genotype, folder)
    assert [path.name for path in paths] == ["genotype.json", "cell.svg", "cell.png"]
    assert names(folder) == ["cell.png", "cell.svg", "genotype.json"]
    loaded, back = load_genotype(paths[0])
    assert (loaded.name, back) == (name, genotype)
    assert json.loads(paths[0].read_text())["text"] == space.format(genotype)
    assert paths[0].read_text().endswith("}\n")


def test_a_genotype_of_another_space_is_not_written(tmp_path: Path) -> None:
    _, genotype = load_genotype("darts_v2")
    with pytest.raises(ValueError, match="'darts' was given to space 'nasbench201'"):
        write_genotype(get_space("nasbench201"), genotype, tmp_path)
    assert names(tmp_path) == []


def test_a_summary_is_plain_json(tmp_path: Path) -> None:
    summary = {"space": "darts", "parameters": 3_349_342, "accuracy": 0.97, "nothing": None}
    path = write_summary(tmp_path, summary)
    assert path == tmp_path / "summary.json"
    assert json.loads(path.read_text()) == summary


def test_a_summary_has_no_number_that_json_lacks(tmp_path: Path) -> None:
    numbers = {"loss": math.nan, "best": [math.inf, 1.5], "acc": torch.tensor(0.5), "size": np.float32(np.nan)}
    path = write_summary(tmp_path, {"metrics": numbers, "ok": True})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"metrics": {"loss": None, "best": [None, 1.5], "acc": 0.5, "size": None}, "ok": True}


def test_a_summary_that_is_no_json_leaves_the_old_one(tmp_path: Path) -> None:
    write_summary(tmp_path, {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_summary(tmp_path, {"a": object()})
    assert names(tmp_path) == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": 1}


# --- the list


def test_every_file_is_listed_once_with_its_size(tmp_path: Path) -> None:
    sizes = {
        "a.txt": (0, "0 B"),
        "b/c.bin": (999, "999 B"),
        "b/d/e.bin": (1000, "1.0 kB"),
        "b/.hidden": (1536, "1.5 kB"),
        "z.ckpt": (2_340_000, "2.3 MB"),
    }
    for name, (size, _) in sizes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "empty").mkdir()
    lines = list_artifacts(tmp_path).splitlines()
    listed = {line[12:]: line[:10].strip() for line in lines}
    assert listed == {name: shown for name, (_, shown) in sizes.items()}
    assert len(lines) == len(sizes)
    assert [line[12:] for line in lines] == sorted(sizes, key=Path)


def test_gigabytes_are_the_last_unit(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1_234_000_000_000)  # a hole, no space on disk
    assert list_artifacts(tmp_path).split() == ["1234.0", "GB", "big"]


def test_an_empty_folder_has_an_empty_list(tmp_path: Path) -> None:
    assert list_artifacts(tmp_path) == ""


def test_what_a_genotype_leaves_is_in_the_list(tmp_path: Path) -> None:
    paths = write_genotype(*load_genotype("darts_v1"), tmp_path)
    write_summary(tmp_path, {})
    listed = [line[12:] for line in list_artifacts(tmp_path).splitlines()]
    assert listed == sorted([path.name for path in paths] + ["summary.json"])
