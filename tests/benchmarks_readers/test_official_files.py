"""The published files: a folder of NATS-Bench and a file of NAS-Bench-201 give the same trainings."""

from __future__ import annotations

import bz2
import pickle
from pathlib import Path

import pytest
from published import VALIDATION_SECONDS, cells, invented, write_folder, write_pth

from lightning_nas.benchmarks.official import OfficialFile, OfficialFolder, open_official


def test_folder_and_file_give_the_same_trainings(tmp_path: Path) -> None:
    archs, infos = invented(cells(3), ["12", "200"])
    folder = open_official(write_folder(tmp_path / "nats", archs, infos))
    file = open_official(write_pth(tmp_path / "nb201.pth", archs, infos))
    zipped = open_official(write_pth(tmp_path / "zipped.pth", archs, infos, zipped=True))
    assert isinstance(folder, OfficialFolder)
    assert isinstance(file, OfficialFile)
    for index in range(3):
        trainings = list(folder.trainings(index))
        assert sorted(trainings[0]._fields) == ["arch", "dataset", "hp", "result", "seed"]
        found = [(t.hp, t.dataset, t.seed) for t in trainings]
        expected = {("12", "cifar10-valid", 777), ("12", "cifar10-valid", 111), ("200", "cifar100", 888)}
        assert len(found) == len(set(found)) == 5 + 8
        assert expected <= set(found)
        assert {t.arch for t in trainings} == {index}
        by_key = [{t[:4]: t.result for t in table.trainings(index)} for table in (folder, file, zipped)]
        assert by_key[0] == by_key[1] == by_key[2]
    assert list(folder.archs) == list(file.archs) == archs


def test_what_a_training_tells(tmp_path: Path) -> None:
    archs, infos = invented(cells(1), ["12", "200"])
    table = open_official(write_folder(tmp_path / "nats", archs, infos))
    trainings = {t[1:4]: t for t in table.trainings(0)}
    valid, whole = trainings["200", "cifar10-valid", 777], trainings["200", "cifar100", 777]
    recorded = infos[0]["200"]["all_results"]["cifar10-valid", 777]["eval_acc1es"]
    assert [valid.accuracy("x-valid", epoch) for epoch in range(1, 201)] == [
        recorded[f"x-valid@{e}"] for e in range(200)
    ]
    assert valid.accuracy("x-valid") == recorded["x-valid@199"]
    assert valid.accuracy("x-valid", 201) is None
    assert valid.train_seconds() == 400.0
    assert valid.evaluation_seconds("x-valid") == VALIDATION_SECONDS
    assert whole.accuracy("x-valid") is not None
    assert whole.accuracy("x-valid", 199) is None
    assert whole.accuracy("ori-test", 199) is not None
    assert trainings["12", "cifar100", 111].accuracy("x-valid", 3) is not None
    assert valid._replace(result={"train_times": None, "eval_times": None}).train_seconds() is None
    assert valid._replace(result={}).evaluation_seconds("x-valid") is None


def test_an_architecture_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "nats", *invented(cells(3), ["12", "200"]))
    (folder / "000002.pickle.pbz2").unlink()
    (folder / "000001.pickle.pbz2").write_bytes(b"broken")
    table = open_official(folder)
    assert len(list(table.trainings(0))) == 13
    assert table.missing() == [2]
    for index, message in {1: "not a benchmark file", 2: "there is no file"}.items():
        with pytest.raises(ValueError, match=message):
            list(table.trainings(index))


def test_records_of_another_structure(tmp_path: Path) -> None:
    archs, infos = invented(cells(3), ["12", "200"])
    infos[0]["12"]["arch_str"] = archs[1]
    del infos[1]["200"]["all_results"]
    table = open_official(write_folder(tmp_path / "nats", archs, infos))
    for index, message in {0: "record 0 is of", 1: "record 1 of budget '200' lacks 'all_results'"}.items():
        with pytest.raises(ValueError, match=message):
            list(table.trainings(index))
    file = open_official(write_pth(tmp_path / "nb201.pth", archs[:1], invented(archs[:1], ["12", "200"])[1]))
    with pytest.raises(ValueError, match="no records of architecture 1"):
        list(file.trainings(1))


@pytest.mark.parametrize("meta", [[], None, [3]])
def test_a_folder_without_a_list_of_architectures(meta: object, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "nats", [], [])
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"meta_archs": meta})))
    with pytest.raises(ValueError, match="meta_archs"):
        open_official(folder)
