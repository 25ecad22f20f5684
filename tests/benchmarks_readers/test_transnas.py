"""TransNAS-Bench-101: the reader on small files of exactly the published structure."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_nas.benchmarks import TransNASBench101
from lightning_nas.oracles import TableOracle
from lightning_nas.query.trial import Trial
from lightning_nas.spaces.transnas import TransNASMacroSpace, TransNASMicroSpace

MICRO, MACRO = TransNASMicroSpace(), TransNASMacroSpace()
CELLS = ["64-41414-1_02_333", "64-41414-0_00_000", "64-41414-3_33_212"]
SKELETONS = ["64-2311-basic", "64-1234-basic", "64-23443-basic", "64-431112-basic"]
TOP = [f"{part}_{kind}" for part in ("train", "valid", "test") for kind in ("top1", "top5", "loss")]
SSIM = [f"{part}_{kind}" for part in ("train", "valid", "test") for kind in ("ssim", "l1_loss")]
NAMES = {
    "class_scene": TOP,
    "class_object": TOP,
    "room_layout": [f"{part}_{kind}" for part in ("train", "valid", "test") for kind in ("loss", "neg_loss")],
    "jigsaw": TOP,
    "segmentsemantic": [f"{part}_{kind}" for part in ("train", "valid", "test") for kind in ("loss", "acc", "mIoU")],
    "normal": SSIM,
    "autoencoder": SSIM,
}
EPOCHS = {"jigsaw": 10, "segmentsemantic": 30, "normal": 30, "autoencoder": 30}
INFOS = ["inference_time", "encoder_params", "model_params", "model_FLOPs", "encoder_FLOPs"]


def training(task: str, seed: str) -> dict[str, Any]:
    """Numbers drawn at random, neg_loss minus the loss; times since the start."""
    rng, epochs = random.Random(f"{task}/{seed}"), EPOCHS.get(task, 25)
    metrics: dict[str, list[Any]] = {}
    for name in NAMES[task]:
        loss = metrics.get(name.replace("neg_loss", "loss"), [])
        metrics[name] = [-v for v in loss] if "neg_loss" in name else [rng.random() for _ in range(epochs)]
    metrics["time_elapsed"] = [60.0 * (epoch + 1) for epoch in range(epochs)]
    return {"metrics": metrics, "model_info": {name: rng.random() for name in INFOS}, "total_epochs": epochs}


def whole() -> dict[str, Any]:
    data = {
        space: {arch: {task: training(task, arch) for task in NAMES} for arch in archs}
        for space, archs in {"macro": SKELETONS, "micro": CELLS}.items()
    }
    listed = {task: [*names, "time_elapsed"] for task, names in NAMES.items()}
    return {"metrics_dict": listed, "info_names": INFOS, "task_list": list(NAMES), "data": data}


def write(folder: Path, content: Any, zipped: bool = True) -> Path:
    path = folder / "transnas-bench_v10141024.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def changed(folder: Path, task: str, values: dict[str, Sequence[Any] | None]) -> TransNASBench101:
    """A table whose first cell has other values of some metrics."""
    content = whole()
    metrics = content["data"]["micro"][CELLS[0]][task]["metrics"]
    metrics |= {name: list(listed) for name, listed in values.items() if listed is not None}
    for name in [name for name, listed in values.items() if listed is None]:
        del metrics[name]
    return TransNASBench101(write(folder, content))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("search_space", "archs"), [("micro", CELLS), ("macro", SKELETONS)])
def test_the_last_epoch_of_every_task(zipped: bool, search_space: Any, archs: list[str], tmp_path: Path) -> None:
    content = whole()
    write(tmp_path, content, zipped)
    table = TransNASBench101(tmp_path, search_space)
    assert [table.space.format(genotype) for genotype in table.genotypes()] == archs
    assert table.datasets == tuple(NAMES)
    assert (len(table), table.budgets[0], table.budgets[-1]) == (len(archs), 1, 30)
    kinds = ["top1", "top1", "neg_loss", "top1", "mIoU", "ssim", "ssim"]
    for (task, names), kind in zip(NAMES.items(), kinds, strict=True):
        assert table.metric_names(task) == (*names, "time_elapsed")
        epochs = table.total_epochs(task)
        assert epochs == EPOCHS.get(task, 25)
        own = {arch: content["data"][search_space][arch][task]["metrics"] for arch in archs}
        for arch, metrics in own.items():
            genotype = table.space.parse(arch)
            record = table.query(genotype, task)
            assert (record.val, record.test) == (metrics[f"valid_{kind}"][-1], metrics[f"test_{kind}"][-1])
            assert (record.seconds, record.epochs) == (60.0 * epochs, epochs)
            early = table.query(genotype, task, epochs=3, run=7)
            assert (early.val, early.test) == (metrics[f"valid_{kind}"][2], metrics[f"test_{kind}"][2])
            assert (early.seconds, early.epochs, table.runs(genotype, task)) == (180.0, 3, 1)
            for name in names:
                assert table.values(genotype, name, task) == tuple(metrics[name])
        assert table.best(task) == tuple(
            max(m[f"{part}_{kind}"][-1] for m in own.values()) for part in ("valid", "test")
        )


def test_the_best_epoch_is_that_of_the_validation(tmp_path: Path) -> None:
    content = whole()
    metrics = content["data"]["micro"][CELLS[0]]["jigsaw"]["metrics"]
    metrics["valid_top1"] = [10.0, 50.0, 40.0, 60.0, 20.0, 20.0, 20.0, 20.0, 20.0, 30.0]
    metrics["test_top1"] = [99.0, 51.0, 41.0, 61.0, 21.0, 21.0, 21.0, 21.0, 21.0, 31.0]
    path, genotype = write(tmp_path, content), MICRO.parse(CELLS[0])
    last, best = TransNASBench101(path), TransNASBench101(path, take="best")
    for table, epochs, val, test in [(last, None, 30, 31), (last, 3, 40, 41), (best, None, 60, 61), (best, 3, 50, 51)]:
        record = table.query(genotype, "jigsaw", epochs)
        assert (record.val, record.test) == (val, test)
    assert last.query(genotype, "jigsaw").seconds == best.query(genotype, "jigsaw").seconds == 600.0
    assert best.best("jigsaw") == (60.0, 61.0)
    assert last.best("jigsaw") == (30.0, 31.0)


def test_negative_losses_keep_their_sign_and_losses_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, whole())
    table = TransNASBench101(path)
    genotype = MICRO.parse(CELLS[0])
    record = table.query(genotype, "room_layout")
    assert record.val < 0
    assert record.val == -table.values(genotype, "valid_loss", "room_layout")[-1]
    assert record.test == -table.values(genotype, "test_loss", "room_layout")[-1]
    losses = [table.values(g, "valid_loss", "room_layout")[-1] for g in table.genotypes()]
    assert table.best("room_layout")[0] == -min(losses)
    for task, metric in {"room_layout": "loss", "normal": "l1_loss"}.items():
        with pytest.raises(ValueError, match=f"'{metric}' of '{task}' is the better the smaller"):
            TransNASBench101(path, metrics={task: metric})
    other = TransNASBench101(path, metrics={"segmentsemantic": "acc"})
    assert other.query(genotype, "segmentsemantic").val == table.values(genotype, "valid_acc", "segmentsemantic")[-1]
    assert pickle.loads(pickle.dumps(other)).query(genotype, "segmentsemantic") == other.query(
        genotype, "segmentsemantic"
    )


def test_questions_without_an_answer(tmp_path: Path) -> None:
    path = write(tmp_path, whole())
    table = TransNASBench101(path)
    genotype = MICRO.parse(CELLS[0])
    questions: list[tuple[Any, str]] = [
        (lambda: table.query(genotype, "cifar10"), "no data set 'cifar10'; it has class_scene, class_object, room_lay"),
        (
            lambda: table.query(genotype, "jigsaw", 11),
            "epochs=11 is no budget of 'jigsaw'; give a whole number from 1 to 10",
        ),
        (lambda: table.query(genotype, "jigsaw", 0), "epochs=0 is no budget"),
        (
            lambda: table.values(genotype, "valid_ssim", "jigsaw"),
            "'jigsaw' has no metric 'valid_ssim'; it has train_top1",
        ),
        (
            lambda: table.query(MICRO.parse("64-41414-3_33_333")),
            "no training of 64-41414-3_33_333 on class_scene; it has 3",
        ),
        (lambda: table.query(MACRO.parse(SKELETONS[0])), "'transnas_macro' was given to space 'transnas_micro'"),
        (
            lambda: TransNASBench101(path, metrics={"jigsaw": "mIoU"}),
            "'jigsaw' has no metric 'mIoU'; .* has train_top1",
        ),
        (lambda: TransNASBench101(path, metrics={"depth": "ssim"}), r"metrics names the tasks \['depth'\]"),
        (lambda: TransNASBench101(path, "nano"), "search_space='nano'; give one of 'micro', 'macro'"),  # type: ignore[arg-type]
        (lambda: TransNASBench101(path, take="final"), "take='final'; give 'last' or 'best'"),  # type: ignore[arg-type]
        (lambda: TransNASBench101(tmp_path / "none.pth"), "no file .*none.pth; get the release's transnas-bench"),
    ]
    for ask, message in questions:
        with pytest.raises(ValueError, match=message):
            ask()


def test_figures_of_the_networks(tmp_path: Path) -> None:
    content = whole()
    figures = TransNASBench101(write(tmp_path, content)).metrics(MICRO.parse(CELLS[1]))
    assert len(figures) == 5 * 7
    info = content["data"]["micro"][CELLS[1]]["jigsaw"]["model_info"]
    assert figures["model_params_jigsaw"] == info["model_params"]
    assert figures["encoder_FLOPs_jigsaw"] == info["encoder_FLOPs"]


def test_times_and_gaps(tmp_path: Path) -> None:
    genotype, texts = MICRO.parse(CELLS[0]), [f"00:{epoch + 1:02d}:30" for epoch in range(9)]
    for times, seconds in [
        ([*texts, "01:00:05"], [90, 150, 210, 3605]),
        ([7.0, 5.0, 6.0] + 7 * [2.0], [7, 12, 18, 32]),
        (10 * [5.0], [5, 10, 15, 50]),
    ]:
        table = changed(tmp_path, "jigsaw", {"time_elapsed": times})
        assert [table.query(genotype, "jigsaw", epochs).seconds for epochs in (1, 2, 3, 10)] == seconds
    table = changed(tmp_path, "jigsaw", {"time_elapsed": None})
    assert table.query(genotype, "jigsaw").seconds != table.query(genotype, "jigsaw").seconds
    gap = [*range(9), float("nan")]
    table = changed(tmp_path, "jigsaw", {"test_top1": gap})
    assert table.query(genotype, "jigsaw").test is None
    assert table.query(genotype, "jigsaw", 9).test == 8.0
    table = changed(tmp_path, "jigsaw", {"valid_top1": gap})
    with pytest.raises(ValueError, match=f"no valid_top1 of {CELLS[0]} after 10 epochs of jigsaw"):
        table.query(genotype, "jigsaw")
    assert table.best("jigsaw")[0] == max(table.query(MICRO.parse(c), "jigsaw").val for c in CELLS[1:])
    assert TransNASBench101(tmp_path, take="best").query(genotype, "jigsaw").val == 8.0
    table = changed(tmp_path, "jigsaw", {"valid_top1": [1.0]})
    with pytest.raises(ValueError, match=f"valid_top1 of {CELLS[0]} is no list of 10 epochs"):
        table.query(genotype, "jigsaw")


class Calls:
    """An object whose unpickling calls a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [False, True])
def test_files_that_are_none(zipped: bool, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "it asks for '.*mkdir', which no benchmark file needs": whole() | {"data": Calls()},
        "it lacks task_list, data": {"metrics_dict": {}, "info_names": []},
        "it lacks metrics_dict, info_names, task_list, data": [1],
        r"has no architecture of 'micro', but \['macro'\]": whole() | {"data": {"macro": {"x": {}}}},
        "is not as published .KeyError 'jigsaw'": whole() | {"metrics_dict": {t: [] for t in NAMES if t != "jigsaw"}},
        "not a cell of TransNAS-Bench-101: '64-1-x'": whole() | {"data": {"micro": {"64-1-x": {}}}},
    }
    for message, content in wrong.items():
        path = write(tmp_path, content, zipped)
        with pytest.raises(ValueError, match=message):
            TransNASBench101(path)
    assert not Path("ran").exists()


def test_an_oracle_on_top(tmp_path: Path) -> None:
    table = TransNASBench101(write(tmp_path, whole()))
    genotype = MICRO.parse(CELLS[2])
    oracle = TableOracle(table, "room_layout", costs=True)
    result = oracle(Trial(0, genotype))
    assert result.score == table.query(genotype, "room_layout").val < 0
    assert (result.test, result.cost) == (table.query(genotype, "room_layout").test, 1500.0)
    assert result.metrics["inference_time_normal"] > 0
    onward = oracle(Trial(1, genotype, budget=10, continues=0, trained=4))
    assert (onward.cost, onward.score) == (360.0, table.query(genotype, "room_layout", 10).val)
