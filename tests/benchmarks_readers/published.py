"""Small files of exactly the structure in which NATS-Bench and NAS-Bench-201 are published."""

from __future__ import annotations

import bz2
import pickle
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_nas.spaces import NB201_OPS, NASBench201Space

VALIDATION_SECONDS = 1.5
REAL = (0, 11, 284)
"""The architectures whose complete curves are at hand."""

Infos = list[OrderedDict[str, Any]]


def result(
    epochs: int,
    seed: int,
    evaluations: Mapping[str, Sequence[float] | float],
    seconds: float,
    size: tuple[float, float],
) -> dict[str, Any]:
    """One training; an evaluation is a list over epochs, or one number after the last."""
    accuracies = {}
    for part, values in evaluations.items():
        every = {epochs - 1: values} if isinstance(values, float) else dict(enumerate(values))
        accuracies |= {f"{part}@{epoch}": float(value) for epoch, value in every.items()}
    by_epoch = {epoch: float(epoch) for epoch in range(epochs)}
    return {
        "name": "infer.tiny",
        "net_state_dict": None,
        "train_acc1es": by_epoch,
        "train_acc5es": None,
        "train_losses": by_epoch,
        "train_times": OrderedDict((epoch, np.float64(seconds)) for epoch in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "class_num": 10},
        "params": size[0],
        "flop": size[1],
        "seed": seed,
        "epochs": epochs,
        "latency": [0.0143],
        "eval_names": list(evaluations),
        "eval_acc1es": accuracies,
        "eval_times": dict.fromkeys(accuracies, VALIDATION_SECONDS),
        "eval_losses": dict.fromkeys(accuracies, 0.5),
    }


def arch_results(index: int, arch: str, results: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    """The trainings of an architecture at one budget."""
    seeds: dict[str, list[int]] = {}
    for dataset, seed in results:
        seeds.setdefault(dataset, []).append(seed)
    own = {"arch_index": index, "arch_str": arch, "all_results": dict(results), "dataset_seed": seeds}
    return own | {"clear_net_done": True}


def real(data: Path) -> tuple[list[str], Infos]:
    """The complete records of three architectures, numbered anew."""
    with np.load(data / "nb201_curves_3archs.npz", allow_pickle=False) as file:
        curves = {tuple(key.split("/")): file[key] for key in file.files}
    with np.load(data / "nb201.npz", allow_pickle=False) as file:
        ops, sizes = file["ops"], list(zip(file["params_m_recorded"].tolist(), file["flops_m"].tolist(), strict=True))
    space, infos = NASBench201Space(), []
    archs = [space.format(space.from_rows({"cell": dict(enumerate(ops[i].tolist()))})) for i in REAL]
    for index, (row, arch) in enumerate(zip(REAL, archs, strict=True)):
        info: OrderedDict[str, Any] = OrderedDict()
        for hp in ("12", "200"):
            results = {}
            for dataset, seed in dict.fromkeys((k[2], k[3]) for k in curves if k[:2] == (str(row), hp)):
                own = {k[4]: values for k, values in curves.items() if k[:4] == (str(row), hp, dataset, seed)}
                parts = {what[6:]: float(values) for what, values in own.items() if what.startswith("final_")}
                parts |= {what[5:]: values.tolist() for what, values in own.items() if what.startswith("eval_")}
                seconds = float(own["train_time"][0])
                results[dataset, int(seed)] = result(int(hp), int(seed), parts, seconds, sizes[row])
            info[hp] = arch_results(index, arch, results)
        infos.append(info)
    return archs, infos


def invented(archs: Sequence[str], hps: Sequence[str], seed: int = 0) -> tuple[list[str], Infos]:
    """Records of numbers drawn at random, with the published seeds and gaps."""
    rng, infos = random.Random(seed), []
    for index, arch in enumerate(archs):
        info: OrderedDict[str, Any] = OrderedDict()
        for hp in hps:
            seeds = (777, 888) if hp == hps[-1] else (111,)
            results = {}
            for dataset in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"):
                for run in (*seeds, 777) if dataset == "cifar10-valid" and hp == "12" else seeds:
                    results[dataset, run] = invented_result(rng, dataset, int(hp), run, whole=hp == hps[-1])
            info[hp] = arch_results(index, arch, results)
        infos.append(info)
    return list(archs), infos


def invented_result(rng: random.Random, dataset: str, epochs: int, run: int, whole: bool) -> dict[str, Any]:
    """A training; the longest of CIFAR-100 and ImageNet16-120 has validation accuracy after its last epoch only."""

    def percent() -> float:
        return rng.randrange(25_001) / 250

    parts: dict[str, Sequence[float] | float] = {"ori-test": [percent() for _ in range(epochs)]}
    if dataset == "cifar10-valid":
        parts = {"ori-test": percent(), "x-valid": [percent() for _ in range(epochs)]}
    elif dataset != "cifar10":
        for part in ("x-valid", "x-test"):
            parts[part] = percent() if whole else [percent() for _ in range(epochs)]
    return result(epochs, run, parts, {"cifar10-valid": 2.0, "ImageNet16-120": 12.0}.get(dataset, 4.0), (0.1, 10.0))


def write_folder(folder: Path, archs: Sequence[str], infos: Infos) -> Path:
    """A folder of NATS-Bench."""
    folder.mkdir()
    meta = {"meta_archs": list(archs), "total_archs": len(archs)}
    files: dict[str, Any] = {"meta": meta} | {f"{index:06d}": info for index, info in enumerate(infos)}
    for name, value in files.items():
        (folder / f"{name}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(value, protocol=4)))
    return folder


def write_pth(path: Path, archs: Sequence[str], infos: Infos, zipped: bool = False) -> Path:
    """A file of NAS-Bench-201."""
    named = {index: {"less": info["12"], "full": info["200"]} for index, info in enumerate(infos)}
    whole = {"meta_archs": list(archs), "arch2infos": OrderedDict(named), "evaluated_indexes": set(range(len(archs)))}
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    return path


def cells(count: int, seed: int = 0) -> list[str]:
    """Texts of distinct cells."""
    space, rng = NASBench201Space(), random.Random(seed)
    chosen = rng.sample(range(len(NB201_OPS) ** 6), count)
    return [
        space.format(space.from_rows({"cell": {edge: number // 5**edge % 5 for edge in range(6)}})) for number in chosen
    ]
