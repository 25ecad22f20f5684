"""Scores without training of every architecture of a table, for level 0 of RANK-NOSH and as a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import torch
from rich.progress import track

from lightning_nas.data import NPZDataModule
from lightning_nas.label_study.worlds import world
from lightning_nas.oracles import ZeroCostOracle
from lightning_nas.oracles.zero_cost import ZeroCostScore
from lightning_nas.proxies import naswot, synflow
from lightning_nas.query import Processes
from lightning_nas.reports import require_writable
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces import get_space

__all__ = ["write_scores"]

_SCORES = {"naswot": naswot, "synflow": synflow}


def write_scores(
    pictures: str,
    out: str = "runs/labels/naswot.npz",
    score: Literal["naswot", "synflow"] = "naswot",
    table: str = "nasbench201",
    batch: int = 64,
    channels: int = 16,
    cells: int = 1,
    processes: int = 2,
) -> None:
    """Score untrained networks of all architectures of a table, equal ones once.

    Args:
        pictures: File with x_train and y_train, see NPZDataModule; the first batch is used.
        out: File to write.
        score: "naswot" or "synflow".
        table: "nasbench201" or "nasbench101", in the folder LIGHTNING_NAS_DATA.
        batch: Pictures.
        channels: Channels of the network's first stage.
        cells: Its cells a stage.
        processes: Processes that share the work.
    """
    if score not in _SCORES or batch < 1:
        raise ValueError(f"score={score!r}, batch={batch}: give one of {', '.join(_SCORES)} and at least one picture")
    path, of = Path(out), world(table)
    require_writable(path.parent)
    texts = sorted(of.space.format(of.space.canonical(genotype)) for genotype in of.members())
    work = partial(_score, of.space.name, pictures, score, batch, channels, cells)
    chunks = [texts[k : k + 50] for k in range(0, len(texts), 50)]
    with Processes(processes) as pool:
        values = [v for part in track(pool.map(work, chunks), total=len(chunks)) for v in part]
    finite = [value if np.isfinite(value) else -1e8 for value in values]
    with_names = {"genotype": np.array(texts), "score": np.array(finite)}
    print(write_whole(path, lambda new: _save(new, with_names)))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _score(
    space: str, pictures: str, score: str, batch: int, channels: int, cells: int, texts: Sequence[str]
) -> list[float]:
    """The scores of some architectures."""
    torch.set_num_threads(1)
    data: L.LightningDataModule = NPZDataModule(pictures, batch_size=batch)
    known = get_space(space)
    oracle = ZeroCostScore(ZeroCostOracle(known, _SCORES[score], data, channels, cells))
    return [oracle(known.parse(text)) for text in texts]
