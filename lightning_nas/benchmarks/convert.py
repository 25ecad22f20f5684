"""From the published files of NATS-Bench and NAS-Bench-201 to a compact table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from lightning_nas.benchmarks.base import Array
from lightning_nas.benchmarks.nasbench201 import NASBench201
from lightning_nas.benchmarks.nats import NATSSize
from lightning_nas.benchmarks.nats_table import NATSTable
from lightning_nas.benchmarks.official import DATASETS, OfficialTable, Split, Training, open_official
from lightning_nas.reports.artifacts import require_writable
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces.nasbench201 import NB201_OPS, NASBench201Space
from lightning_nas.spaces.nats_size import NATSSizeSpace

__all__ = ["convert"]

_SEEDS = 3
"""Most runs of one architecture that are kept one by one."""


def convert(official: str, out: str) -> None:
    """Make a compact table of a published folder or file, and print its path, its rows and its best accuracies.

    The table holds, for every architecture in the benchmark's own order, the mean accuracies at each budget, seconds of
    training and of one validation, the single validation runs on CIFAR-10 and, where the files have a validation
    accuracy after each epoch, its mean over runs, and for the shorter trainings each run where there are several.
    Accuracies after an epoch on pictures of the test set are left out.

    Args:
        official: The folder ``NATS-tss-v1_0-3ffb9-simple`` or ``NATS-sss-v1_0-50262-simple`` of NATS-Bench, or a file
            ``NAS-Bench-201-v1_1-096897.pth`` (it needs much memory).
        out: The ``.npz`` file to write. `NASBench201` and `NATSSize` find theirs as ``nb201.npz`` and
            ``nats_size.npz`` in the folder that ``LIGHTNING_NAS_DATA`` names.

    Raises:
        ValueError: If `out` does not end in ``.npz``, or `official` is not as published.
        OSError: If the folder of `out` cannot be written, which is tried before anything is read.
    """
    path = Path(out)
    if path.suffix != ".npz":
        raise ValueError(f"out={out!r} does not end in .npz; give the name of the table to write")
    require_writable(path.parent)
    source = open_official(official)
    missing = source.missing()
    if missing:
        raise ValueError(
            f"{official} lacks {len(missing)} of {len(source.archs)} architectures, the first is number {missing[0]};"
            " get the whole of it"
        )
    topology = source.archs[0].startswith("|")
    columns = _records(source, (NASBench201 if topology else NATSSize).budgets)
    columns |= _cells(source.archs) if topology else _widths(source.archs)
    write_whole(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **columns))
    _report(NASBench201(path) if topology else NATSSize(path))


def _report(table: NATSTable) -> None:
    print(f"{table.path}\n{len(table)} architectures")
    for name in table.datasets:
        val, test = table.best(name)
        print(f"{name}: best validation {val:.4f}, best test {test:.4f} (separate maxima)")


def _cells(archs: Sequence[str]) -> dict[str, Array]:
    """Operations, isomorphism classes, and the closed forms of the CIFAR-10 network's size."""
    space = NASBench201Space()
    genotypes = [space.parse(arch) for arch in archs]
    rows = [space.kept_rows(genotype, "cell") for genotype in genotypes]
    ops = np.array([[choice for _, choice in sorted(row.items())] for row in rows], dtype=np.uint8)
    first: dict[str, int] = {}
    same = [first.setdefault(space.expression(genotype), row) for row, genotype in enumerate(genotypes)]
    small, large = ((ops == NB201_OPS.index(op)).sum(axis=1) for op in ("nor_conv_1x1", "nor_conv_3x3"))
    return {
        "ops": ops,
        "op_names": np.array(NB201_OPS),
        "iso_rep": np.array(same, dtype=np.uint16),
        "params_m": (0.073306 + 0.028 * small + 0.24304 * large).astype(np.float32),
        "flops_m": (7.78305 + 3.93216 * small + 35.38944 * large).astype(np.float32),
    }


def _widths(archs: Sequence[str]) -> dict[str, Array]:
    space = NATSSizeSpace()
    return {"widths": np.array([space.widths(space.parse(arch)) for arch in archs], dtype=np.uint8)}


def _records(source: OfficialTable, budgets: Sequence[int]) -> dict[str, Array]:
    """The columns of accuracies and times; what an architecture lacks is NaN, and a curve is kept if all have it."""
    numbers = track(range(len(source.archs)), description=f"reading {len(source.archs)} architectures")
    rows = [dict(_row(list(source.trainings(number)), budgets)) for number in numbers]
    columns = {}
    for name in sorted(set[str]().union(*rows)):
        missing = np.full(next(np.shape(row[name]) for row in rows if name in row), np.nan)
        values = [row.get(name, missing) for row in rows]
        if "_curve_" not in name or all(name in row for row in rows):
            columns[name] = np.array(values, dtype=_KINDS.get(name, np.float32))
    single = [name for name, values in columns.items() if name.endswith("_runs") and values.ndim > 1]
    for name in (name for name in single if np.isnan(columns[name][:, 1:]).all()):
        del columns[name]
    return columns


_KINDS = {"n_runs": np.uint8, "c10_val_correct_of_25000": np.uint16}


def _row(trainings: Sequence[Training], budgets: Sequence[int]) -> Iterator[tuple[str, float | Array]]:
    """The entries of one architecture that the files have."""
    for split in DATASETS.values():
        for budget in budgets:
            own = [t for t in trainings if t.epochs == budget]
            yield from _entries(own, split, budget)
            if budget != budgets[-1]:
                yield from _single(own, split, budget)
    longest = sorted((t for t in trainings if t.epochs == budgets[-1]), key=lambda training: training.seed)
    (dataset, part), (size_of, _) = DATASETS["cifar10"].val, DATASETS["cifar10"].test
    valid = _known([t.accuracy(part) for t in longest if t.dataset == dataset])[:_SEEDS]
    yield "n_runs", len(valid)
    yield "c10_val_correct_of_25000", np.array([round(250 * a) for a in valid] + [0] * (_SEEDS - len(valid)))
    for name, key in (("params_m", "params"), ("params_m_recorded", "params"), ("flops_m", "flop")):
        yield from _mean(name, [t.result.get(key) for t in longest if t.dataset == size_of])


def _entries(trainings: Sequence[Training], split: Split, budget: int) -> Iterator[tuple[str, float | Array]]:
    """Those of one data set at one budget."""
    runs = {
        part: [t for t in trainings if t.dataset == where[0]] for part, where in (("v", split.val), ("t", split.test))
    }
    part = split.val[1]
    yield from _mean(f"{split.column}_val_{budget}", [t.accuracy(part) for t in runs["v"]])
    yield from _mean(f"{split.column}_test_{budget}", [t.accuracy(split.test[1]) for t in runs["t"]])
    yield from _mean(f"train_time_s_{split.time}_{budget}", [t.train_seconds() for t in runs["v"]])
    yield from _mean(f"valid_time_s_{split.time}_{budget}", [t.evaluation_seconds(part) for t in runs["v"]])
    curves = [_known([t.accuracy(part, epoch) for epoch in range(1, budget + 1)]) for t in runs["v"]]
    if curves and all(len(curve) == budget > 1 for curve in curves):
        yield f"{split.column}_val_curve_{budget}", np.mean(curves, axis=0)


def _single(trainings: Sequence[Training], split: Split, budget: int) -> Iterator[tuple[str, Array]]:
    """The single runs of one data set at one budget, in the order of their seeds, filled up with NaN."""
    (dataset, part), epochs = split.val, range(1, budget + 1)
    runs = sorted((t for t in trainings if t.dataset == dataset), key=lambda training: training.seed)
    curves = [[t.accuracy(part, epoch) for epoch in epochs] for t in runs if t.accuracy(part) is not None][:_SEEDS]
    values = np.full((_SEEDS, budget), np.nan)
    if curves:
        values[: len(curves)] = np.array(curves, dtype=float)
        yield f"{split.column}_val_{budget}_runs", values[:, -1]
    if budget > 1 and curves and np.isfinite(values[: len(curves)]).all():
        yield f"{split.column}_val_curve_{budget}_runs", values


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(name: str, values: Sequence[float | None]) -> Iterator[tuple[str, float]]:
    if known := _known(values):
        yield name, float(np.mean(known))
